"""Seeded clickstream events, and an ordinary Kafka client that sends them (`make produce`).

The same seed, count and start give the same stream, byte for byte.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from datetime import datetime, timezone

from confluent_kafka import Producer

from . import place

FUNNEL = ("page_view", "product_view", "add_to_cart", "checkout", "payment")
GOES_ON = (0.55, 0.40, 0.50, 0.70, 0.0)  # the chance of the next step
DEVICES = ("mobile", "mobile", "mobile", "desktop", "desktop", "tablet")
REFERRERS = ("https://www.google.com/", "https://www.bing.com/search", "https://news.example.org/a",
             "https://mail.example.net/campaign/spring", "https://shop.example.com/")
CATEGORIES = ("shoes", "jackets", "bags", "watches", "books", "games", "garden", "kitchen")


def stream(count, *, seed=1, users=20_000, start=None, hours=2.0, bad=0.0):
    """Yields (key, value). Event times go from start (default: `hours` ago) evenly up to `hours`
    later; `bad` is the share of malformed records."""
    rnd = random.Random(seed)
    bits = rnd.getrandbits
    begin_ms = int((time.time() - hours * 3600 if start is None else start) * 1000)
    span_ms = int(hours * 3_600_000)
    threshold = [int(chance * 65536) for chance in GOES_ON]
    steps, visits = [-1] * users, [0] * users
    middles = [[_middle(rnd, step) for _ in range(64)] for step in range(len(FUNNEL))]
    bad_below = int(bad * (1 << 32))
    second, second_text = -1, ""
    for number in range(count):
        word = bits(96)
        user = (word & 0xFFFFFFFF) % users
        step = steps[user]
        if step < 0 or (word >> 32) & 0xFFFF >= threshold[step]:
            step = 0
            visits[user] += 1
        else:
            step += 1
        steps[user] = step
        at_ms = begin_ms + number * span_ms // count
        if at_ms // 1000 != second:
            second = at_ms // 1000
            second_text = datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        price = (word >> 48) & 0x7FFF
        unique = f"{bits(128):032x}"
        value = (f'{{"event_id":"{unique[:8]}-{unique[8:12]}-{unique[12:16]}-{unique[16:20]}-'
                 f'{unique[20:]}","user_id":"user-{user:06d}",'
                 f'"event_timestamp":"{second_text}.{at_ms % 1000:03d}Z"'
                 f'{middles[step][(word >> 63) & 63]}'
                 f'"session_id":"s-{user:06d}-{visits[user]}","price":{price // 100}.'
                 f'{price % 100:02d},"currency":"EUR"}}}}').encode()
        if bad_below and bits(32) < bad_below:
            value = spoil(value, bits(8))
        yield b"user-%06d" % user, value


def _middle(rnd, step):
    category = rnd.choice(CATEGORIES)
    page = f"https://shop.example.com/{category}/{rnd.randrange(10_000):04d}"
    return (f',"event_type":"{FUNNEL[step]}","funnel_step_index":{step},"page_url":"{page}",'
            f'"referrer":"{rnd.choice(REFERRERS)}","device":"{rnd.choice(DEVICES)}",'
            f'"properties":{{"category":"{category}","quantity":{rnd.randrange(1, 4)},')


# Each takes a good event's bytes; the key is the error code pulse gives the result.
SPOILERS = {
    "syntax": lambda value: value[:-1],
    "encoding": lambda value: value.replace(b"user-", b"us\xff\xfe-", 1),
    "nul": lambda value: value.replace(b"user-", b"us\\u0000-", 1),
    "surrogate": lambda value: value.replace(b"user-", b"us\\udc00-", 1),
    "depth": lambda value: value[:-1] + b',"deep":' + b"[" * 200 + b"]" * 200 + b"}",
    "number": lambda value: value[:-1] + b',"huge":1e400000}',
    "dup_key": lambda value: value[:-1] + b',"user_id":"somebody else"}',
    "not_object": lambda value: b"[" + value + b"]",
    "empty": lambda value: b"",
    "tombstone": lambda value: None,
    "missing_field": lambda value: value.replace(b'"user_id"', b'"user"', 1),
    "type": lambda value: value.replace(b'"funnel_step_index":', b'"funnel_step_index":"x",'
                                        b'"was":', 1),
    "time": lambda value: value.replace(b'"event_timestamp":"2', b'"event_timestamp":"x2', 1),
}


def spoil(value, choice):
    """A malformed record made from a good one; the choice is any number."""
    return list(SPOILERS.values())[choice % len(SPOILERS)](value)


def send(brokers, topic, events, rate=None):
    """Sends (key, value) pairs with an idempotent producer and returns how many were delivered.
    With a rate, that many a second, evenly."""
    undelivered = []

    def delivered(error, message):
        if error is not None:
            undelivered.append(str(error))

    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "log_level": 2,
                         "linger.ms": 20 if rate is None else 1, "compression.type": "lz4",
                         "batch.num.messages": 10000, "batch.size": 1_000_000,
                         "queue.buffering.max.messages": 200_000})
    sent, began, told = 0, time.monotonic(), time.monotonic()
    for key, value in events:
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        sent += 1
        if rate is not None:
            ahead = began + sent / rate - time.monotonic()
            producer.poll(max(ahead, 0))
        elif sent % 2000 == 0:
            producer.poll(0)
        if sys.stderr.isatty() and time.monotonic() - told > 1:
            told = time.monotonic()
            print(f"   {sent:,} sent, {len(producer):,} in flight", file=sys.stderr, flush=True)
    left = producer.flush(120)
    if left or undelivered:
        raise place.Failed(f"{left + len(undelivered)} of {sent} records were not delivered"
                           f"{': ' + undelivered[0] if undelivered else ''}")
    return sent


def start_producer(brokers, topic, count, **options):
    """The same as a process of its own."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return subprocess.Popen([sys.executable, "-m", "harness.events", brokers, "--topic", topic,
                             "--count", str(count), *words], stdin=subprocess.DEVNULL,
                            env={**os.environ, "PYTHONPATH": str(place.ROOT / "test")})


def main():
    parser = argparse.ArgumentParser(prog="harness.events", description=__doc__)
    parser.add_argument("brokers", help="host:port")
    parser.add_argument("--topic", default="events")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--bad", type=float, default=0.0, help="share of malformed records, 0 to 1")
    parser.add_argument("--rate", type=float, help="events a second (default: as fast as it goes)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--start", type=float, help="first event time, seconds since 1970")
    parser.add_argument("--hours", type=float, default=2.0, help="length of the stream in event time")
    chosen = parser.parse_args()
    began = time.monotonic()
    sent = send(chosen.brokers, chosen.topic,
                stream(chosen.count, seed=chosen.seed, users=chosen.users, start=chosen.start,
                       hours=chosen.hours, bad=chosen.bad), chosen.rate)
    took = time.monotonic() - began
    print(f"   produced {sent:,} events in {took:.1f} s ({sent / took:,.0f} a second)", flush=True)


if __name__ == "__main__":
    try:
        main()
    except place.Failed as failed:
        sys.exit(str(failed))
