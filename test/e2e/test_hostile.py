"""Payloads that have sunk systems like this one, mixed into good ones: PostgreSQL does not even
restart, each reject is kept byte for byte under its code, and its neighbours are rows."""

import json
import random
import struct
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest

from harness.events import stream

SCHEMA_CODES = {"missing_field", "type", "time", "too_old", "too_new", "too_long"}
TRY_JSONB = """
    CREATE FUNCTION public.as_jsonb(value bytea) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        RETURN convert_from(value, 'UTF8')::jsonb;
    EXCEPTION WHEN OTHERS THEN
        RETURN NULL;
    END $$
"""

# properties is what an event says under that name, and every field without a column of its own.
COMPARE = """
    SELECT v, d.error_code IS NULL, CASE WHEN jsonb_typeof(j) = 'object' THEN
           d.event->'properties' = coalesce(nullif(j->'properties', 'null'), '{}') || (j - ARRAY[
               'event_id', 'event_type', 'user_id', 'event_timestamp', 'kafka_timestamp',
               'funnel_step_index', 'page_url', 'referrer', 'device', 'properties', 'kafka_topic',
               'kafka_partition', 'kafka_offset', 'ingested_at'])
           AND d.event->>'user_id' = j->>'user_id' END
      FROM unnest(%s::bytea[]) v, pulse.decode('events', v) d, public.as_jsonb(v) j
"""


def now(shift=0.0):
    at = datetime.now(timezone.utc) + timedelta(seconds=shift)
    return at.isoformat(timespec="milliseconds")


def raw_event(number, tail=b"", *, at=None, user=b'"user-1"', kind=b'"page_view"', key=None):
    """An event as bytes in which anything can be put anywhere."""
    when = json.dumps(at if at is not None else now()).encode() if not isinstance(at, bytes) else at
    event_id = key if key is not None else f'"hostile-{number}"'.encode()
    return (b'{"event_id":' + event_id + b',"event_type":' + kind + b',"user_id":' + user +
            b',"event_timestamp":' + when + tail + b"}")


def field(value, name=b"x"):
    return lambda n: raw_event(n, b',"' + name + b'":' + value)


def text(value):
    return field(b'"' + value + b'"')


def at(value):
    return lambda n: raw_event(n, at=value if isinstance(value, bytes) else json.dumps(value).encode())


# name -> (code, path, how to make it from a number). A path of ... may be anything.
HOSTILE = {
    # B1: nothing, or something before it
    "tombstone": ("tombstone", None, lambda n: None),
    "empty": ("empty", None, lambda n: b""),
    "byte order mark": ("syntax", ..., lambda n: b"\xef\xbb\xbf" + raw_event(n)),
    # B2: bytes that are no UTF-8
    "bytes ff fe": ("encoding", None, text(b"a\xff\xfeb")),
    "overlong slash": ("encoding", None, text(b"\xc0\xaf")),
    "overlong NUL": ("encoding", None, text(b"\xc0\x80")),
    "surrogate in UTF-8": ("encoding", None, text(b"\xed\xa0\x80\xed\xb0\x80")),
    "beyond U+10FFFF": ("encoding", None, text(b"\xf4\x90\x80\x80")),
    "character cut at the end": ("encoding", None, lambda n: raw_event(n)[:-1] + b"\xe2\x82"),
    "raw NUL in a string": ("encoding", None, text(b"a\x00b")),
    "NUL after the document": ("encoding", None, lambda n: raw_event(n) + b"\x00"),
    "UTF-16": ("encoding", None, lambda n: raw_event(n).decode().encode("utf-16")),
    # B3, B4: escapes that no text can hold
    "escaped NUL": ("nul", "/x", text(b"a\\u0000b")),
    "escaped NUL in a name": ("nul", ..., field(b"1", b"a\\u0000b")),
    "escaped NUL, deep": ("nul", "/x/0/y", field(b'[{"y":"\\u0000"}]')),
    "high surrogate alone": ("surrogate", "/x", text(b"\\ud800")),
    "high surrogate and text": ("surrogate", "/x", text(b"\\ud83dabc")),
    "low surrogate alone": ("surrogate", "/x", text(b"\\udc00")),
    "pair the wrong way round": ("surrogate", "/x", text(b"\\udc00\\ud800")),
    "two high surrogates": ("surrogate", "/x", text(b"\\ud800\\ud800")),
    "low surrogate in a name": ("surrogate", ..., field(b"1", b"\\udfff")),
    "low surrogate in a column": ("surrogate", "/user_id",
                                  lambda n: raw_event(n, user=b'"\\udc00"')),
    # B5, B10: numbers
    "the exponent that aborts RapidJSON": ("number", "/x", field(b"1.1111111111e-2147483639")),
    "exponent 400000": ("number", "/x", field(b"1e400000")),
    "exponent 400": ("number", "/x", field(b"-1e400")),
    "exponent 100000": ("number", "/x", field(b"1e100000")),
    "exponent beyond int64": ("number", "/x", field(b"1e99999999999999999999")),
    "2000 digits": ("number", "/x", field(b"7" * 2000)),
    "2000 digits behind the point": ("number", "/x", field(b"0." + b"3" * 2000)),
    "40000 in a smallint": ("number", "/funnel_step_index", field(b"40000", b"funnel_step_index")),
    "2^63 in a smallint": ("number", "/funnel_step_index",
                           field(b"9223372036854775808", b"funnel_step_index")),
    # B7: nesting
    "100,000 arrays": ("depth", ..., field(b"[" * 100_000 + b"]" * 100_000)),
    "100,000 arrays, never closed": ("depth", ..., lambda n: b"[" * 100_000),
    "100,000 objects": ("depth", ..., field(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)),
    "nothing but 1,000,000 openings": ("depth", ..., lambda n: b'[{"":' * 200_000),
    # B8: the same name twice
    "name twice": ("dup_key", "/user_id", field(b'"other"', b"user_id")),
    "name twice, by escape": ("dup_key", "/user_id", field(b'"other"', b"user_\\u0069d")),
    "name twice, deep": ("dup_key", "/x/a/b", field(b'{"a":{"b":1,"c":2,"b":3}}')),
    # B9: size
    "too large": ("oversize", None, lambda n: raw_event(n, b',"x":"' + b"y" * 1_100_000 + b'"')),
    # B11: times
    "year 0": ("time", "/event_timestamp", at("0000-01-01T00:00:00Z")),
    "year 294277": ("time", "/event_timestamp", at("294277-01-01T00:00:00Z")),
    "minute 60": ("time", "/event_timestamp", at("2026-01-01T12:60:00Z")),
    "30 February": ("time", "/event_timestamp", at("2026-02-30T12:00:00Z")),
    "infinity": ("time", "/event_timestamp", at("infinity")),
    "-infinity": ("time", "/event_timestamp", at("-infinity")),
    "now": ("time", "/event_timestamp", at("now")),
    "a local format": ("time", "/event_timestamp", at("20.11.2026 12:00")),
    "no offset": ("time", "/event_timestamp", at("2026-01-01 12:00:00")),
    "no time at all": ("time", "/event_timestamp", at("")),
    "epoch beyond int64": ("time", "/event_timestamp", at(b"9223372036854775808")),
    "epoch of the year 292278994": ("time", "/event_timestamp", at(b"9223372036854775807")),
    "epoch far below zero": ("time", "/event_timestamp", at(b"-9223372036854775808")),
    "three days ahead": ("too_new", "/event_timestamp",
                         lambda n: raw_event(n, at=now(3 * 86400))),
    "two years ago": ("too_old", "/event_timestamp", lambda n: raw_event(n, at=now(-730 * 86400))),
    # framed for a registry
    "Avro frame": ("schema_framed_payload", None,
                   lambda n: b"\x00" + struct.pack(">I", n) + b"\x0aabcde\x02\x01"),
    "empty frame": ("schema_framed_payload", None, lambda n: b"\x00\x00\x00\x00\x07"),
    # not an object, not JSON
    "an array": ("not_object", None, lambda n: b"[" + raw_event(n) + b"]"),
    "a string": ("not_object", None, lambda n: b'"event"'),
    "a number": ("not_object", None, lambda n: b"12"),
    "null": ("not_object", None, lambda n: b"null"),
    "cut off": ("syntax", ..., lambda n: raw_event(n)[:-1]),
    "two documents": ("syntax", ..., lambda n: raw_event(n) + b"{}"),
    "blanks": ("syntax", ..., lambda n: b"  \n\t "),
    "comment": ("syntax", ..., lambda n: b"/* */" + raw_event(n)),
    "single quotes": ("syntax", ..., lambda n: b"{'event_id':'x'}"),
    "NaN": ("syntax", ..., field(b"NaN")),
    "-Infinity": ("syntax", ..., field(b"-Infinity")),
    "leading zero": ("syntax", ..., field(b"012")),
    "trailing comma": ("syntax", ..., lambda n: raw_event(n)[:-1] + b",}"),
    "line break in a string": ("syntax", ..., text(b"a\nb")),
    "unknown escape": ("syntax", ..., text(b"\\x41")),
    "format string": ("syntax", ..., lambda n: b"%s%s%n%1000000d {"),
    "SQL": ("syntax", ..., lambda n: b"'); DROP TABLE raw.events; --"),
    # wrong fields
    "no user": ("missing_field", "/user_id", lambda n: raw_event(n).replace(b'"user_id"', b'"u"')),
    "null user": ("missing_field", "/user_id", lambda n: raw_event(n, user=b"null")),
    "no time field": ("missing_field", "/event_timestamp", at(b"null")),
    "object as user": ("type", "/user_id", lambda n: raw_event(n, user=b'{"id":1}')),
    "array as user": ("type", "/user_id", lambda n: raw_event(n, user=b"[1]")),
    "string as number": ("type", "/funnel_step_index", field(b'"2"', b"funnel_step_index")),
    "1.5 as integer": ("type", "/funnel_step_index", field(b"1.5", b"funnel_step_index")),
    "true as integer": ("type", "/funnel_step_index", field(b"true", b"funnel_step_index")),
    "true as time": ("type", "/event_timestamp", at(b"true")),
    "key of 6 kB": ("too_long", "/event_id", lambda n: raw_event(n, key=b'"' + b"k" * 6000 + b'"')),
}

# What looks dangerous and is an event all the same: name -> tail of the event.
HARMLESS = {
    "minus zero": b',"x":-0',
    "minus zero point": b',"x":-0.0e-0',
    "large double": b',"x":9.976931348623157e307',
    "2^64": b',"x":18446744073709551616',
    "digits": b',"x":' + b"9" * 300,
    "emoji by escape": b',"x":"\\ud83d\\ude00"',
    "emoji": ',"x":"😀"'.encode(),
    "noncharacters": ',"x":"\ufffe\uffff\U0010ffff"'.encode(),
    "BOM in a string": ',"x":"\ufeff"'.encode(),
    "right to left": ',"x":"\u202eevil\u2066"'.encode(),
    "60 arrays": b',"x":' + b"[" * 60 + b"]" * 60,
    "empty name": b',"":1',
    "name of quotes": b',"\\"\\\\\\/\'; DROP TABLE raw.events; --":"%s%n"',
    "name of 60 kB": b',"' + b"n" * 60_000 + b'":1',
    "controls by escape": b',"x":"\\u0001\\u001f\\n\\t\\b\\f\\r\x7f"',
    "null field": b',"page_url":null',
    "10,000 names": b"," + b",".join(b'"n%d":%d' % (n, n) for n in range(10_000)),
    "blanks": b'  ,\t"x"\r\n:  [ ]  ',
}
HOSTILE_KEYS = (None, b"", b"\x00", b"\xff\xfe", b"'; DROP TABLE raw.dlq; --", b"%s%n\n\r", b"k" * 65536,
                "ключ".encode())
HOSTILE_HEADERS = (
    None,
    [("h", b"")],
    [("h", None)],
    [("same", b"1"), ("same", b"2")],
    [("", b"no name")],
    [("'; --\n%s", b"'; DROP TABLE raw.dlq; --"), ('"\\', b'"\\')],
    [("bytes", b"\x00\xff\xfe\x80"), ("nul", b"a\x00b"), ("surrogate", b"\xed\xa0\x80")],
    [("large", b"v" * 65536)],
    [(f"h{number}", str(number).encode()) for number in range(100)],
)


def headers_as_json(headers):
    """How product.md has them: an array of objects; bytes that are no text as hex."""
    def part(name, data):
        if data is None:
            return {name: None}
        try:
            decoded = data.decode()
        except UnicodeDecodeError:
            return {f"{name}_hex": data.hex()}
        return {f"{name}_hex": data.hex()} if "\x00" in decoded else {name: decoded}

    return None if not headers else [{**part("key", key.encode()), **part("value", value)}
                                     for key, value in headers]


def send_mixture(broker, topic, good, rnd):
    """Good events with 1 % hostile ones; keys, headers and timestamps are hostile throughout.
    Returns the records' own numbers: (name of the hostile record or None) in order of sending."""
    producer = broker.producer(message_max_bytes=4_000_000)
    sent, failures = Counter(), []
    names, harmless = list(HOSTILE), list(HARMLESS)

    def delivered(error, _message):
        if error is not None:
            failures.append(error)

    def produce(value, timestamp=0):
        key, headers = rnd.choice(HOSTILE_KEYS), rnd.choice(HOSTILE_HEADERS)
        while True:
            try:
                producer.produce(topic, value, key, headers=headers, timestamp=timestamp,
                                 on_delivery=delivered)
                return
            except BufferError:
                producer.poll(0.1)

    for number, (key, value) in enumerate(good):
        if number % 100 == 0:
            name = names[number // 100 % len(names)]
            produce(HOSTILE[name][2](number), rnd.choice((0, 0, 1, 253402300799000)))
            sent[name] += 1
        if number % 500 == 0:
            produce(raw_event(number, HARMLESS[harmless[number // 500 % len(harmless)]]))
            sent[None] += 1
        producer.produce(topic, value, key, on_delivery=delivered)
        sent[None] += 1
        if number % 1000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0 and not failures, failures[:3]
    return sent


@pytest.mark.topic(partitions=3, max_message_bytes=4_000_000, message_timestamp_type="CreateTime",
                   message_timestamp_after_max_ms=9223372036854775807)
def test_hostile_records_are_kept_and_their_neighbours_are_rows(pulse, how_many):
    rnd = random.Random(20261120)
    postmaster = pulse.cluster.postmaster().pid
    worker = pulse.worker_pid()
    sent = send_mixture(pulse.broker, pulse.topic, stream(how_many(20_000, 200_000)), rnd)
    assert set(sent) == {None, *HOSTILE}, "a hostile record was left out"
    pulse.wait_caught_up(180)

    assert (pulse.cluster.postmaster().pid, pulse.worker_pid()) == (postmaster, worker)
    found = Counter(code for code, in pulse.letters("error_code"))
    wanted = Counter()
    for name, (code, _, _) in HOSTILE.items():
        wanted[code] += sent[name]
    assert found == wanted
    assert pulse.count() == sent[None]
    check_letters(pulse)
    pulse.check()


def check_letters(pulse):
    """Every letter is the record as an independent client reads it; its message is fit for a
    terminal."""
    truth = {(m.partition(), m.offset()): m for m in pulse.broker.iterate(pulse.topic)}
    letters = pulse.letters("kafka_partition, kafka_offset, kafka_topic, value, kafka_key, "
                            "kafka_headers, (extract(epoch FROM kafka_timestamp) * 1000)::bigint, "
                            "error_class, error_code, error_message, status, pipeline")
    for (partition, offset, topic, value, key, headers, timestamp, error_class, code, message,
         status, pipeline) in letters:
        record = truth[partition, offset]
        where = f"{code} at {partition}/{offset}: {message}"
        assert (topic, pipeline, status) == (pulse.topic, "events", "new"), where
        assert value == record.value(), where
        assert key == record.key(), where
        assert headers == headers_as_json(record.headers()), where
        assert timestamp == record.timestamp()[1], where
        assert error_class == ("schema" if code in SCHEMA_CODES else "decode"), where
        assert message and len(message) < 1000 and message.isprintable(), where


@pytest.mark.topic(partitions=1, max_message_bytes=4_000_000)
def test_decode_says_what_ingestion_did(pulse):
    names = list(HOSTILE)
    values = [HOSTILE[name][2](number) for number, name in enumerate(names)]
    values += [raw_event(number + 1000, tail) for number, tail in enumerate(HARMLESS.values())]
    producer = pulse.broker.producer(message_max_bytes=4_000_000)
    for value in values:
        producer.produce(pulse.topic, value, partition=0)
    assert producer.flush(60) == 0
    pulse.wait_caught_up()

    letters = {offset: (code, path) for offset, code, path in
               pulse.letters("kafka_offset, error_code, error_path")}
    rows = dict(pulse.query("SELECT kafka_offset, properties FROM raw.events"))
    wrong = [(values[offset], letters[offset]) for offset in letters if offset >= len(names)]
    with pulse.connect() as connection:
        for offset, value in enumerate(values):
            event, error_class, code, path, message = connection.execute(
                "SELECT * FROM pulse.decode('events', %s)", (value,)).fetchone()
            if offset < len(names):
                wanted_code, wanted_path, _ = HOSTILE[names[offset]]
                if wanted_path is ...:
                    wanted_path = path
                if not ((code, path) == (wanted_code, wanted_path) == letters.get(offset)) or \
                        event is not None or not error_class or not message:
                    wrong.append((names[offset], (code, path, message), letters.get(offset),
                                  (wanted_code, wanted_path)))
            elif code is not None or event["properties"] != rows.get(offset):
                wrong.append((values[offset][:200], code, message))
    assert wrong == []


@pytest.mark.topic(partitions=1, max_message_bytes=4_000_000)
def test_what_the_decoder_accepts_jsonb_accepts(pulse, how_many):
    """Bytes of good and hostile records are changed at random: whatever the decoder calls an
    event, jsonb must take and hold the same properties."""
    rnd = random.Random(41)
    pulse.query(TRY_JSONB)
    seeds = [make(number) for number, (_, _, make) in enumerate(HOSTILE.values())]
    seeds = [seed for seed in seeds if seed and len(seed) < 4000]
    seeds += [raw_event(number, tail) for number, tail in enumerate(HARMLESS.values())
              if len(tail) < 4000] + [value for _, value in stream(20)]
    pieces = (b"\\u0000", b"\\ud800", b"\\udc00", b"\xff", b"\x00", b'"', b"\\", b"{", b"}", b"[", b"]",
              b",", b":", b"1e308", b"1e309", b"-", b"0", b"\xc3\xa9", b"\xed\xa0\x80", b"e", b".", b"null",
              b"\\u00e9", b" ", b"\n", b"5" * 400)
    accepted = compared = 0
    with pulse.connect() as connection:
        for _ in range(how_many(40, 1000)):
            values = []
            for _ in range(100):
                value = bytearray(rnd.choice(seeds))
                for _ in range(rnd.randrange(0, 3)):
                    place = rnd.randrange(len(value) + 1)
                    value[place:place + rnd.randrange(0, 3)] = rnd.choice(pieces)
                values.append(bytes(value))
            answers = connection.execute(COMPARE, (values,)).fetchall()
            for value, is_event, is_same in answers:
                compared += 1
                accepted += is_event
                assert not is_event or is_same, f"decoder and jsonb disagree about {value}"
    # Otherwise this test has compared nothing.
    assert compared == 100 * how_many(40, 1000) and accepted > compared // 10


def test_long_and_odd_topic_names(make_pulse, broker):
    name = "Odd_topic.name-" + "x" * (249 - 15)
    broker.create_topic(name, 1)
    pulse = make_pulse(broker, name)
    without_id = b'{"event_type":"a","user_id":"u","event_timestamp":' + \
        json.dumps(now()).encode() + b"}"
    pulse.produce([without_id, b"{", without_id])
    pulse.wait_caught_up()
    assert pulse.rows("event_id, kafka_topic") == [(f"{name}-0-0", name), (f"{name}-0-2", name)]
    assert pulse.letters("kafka_topic, error_code") == [(name, "syntax")]
    pulse.check()
    broker.delete_topic(name)


@pytest.mark.server(pulse__reject_newer_than=3600, pulse__reject_older_than="2d",
                    pulse__max_message_bytes=2048)
def test_limits_are_settings(pulse):
    pulse.produce([raw_event(1), raw_event(2, at=now(3000)), raw_event(3, at=now(4000)),
                   raw_event(4, at=now(-47 * 3600)), raw_event(5, at=now(-49 * 3600)),
                   raw_event(6, b',"x":"' + b"y" * 1900 + b'"'),
                   raw_event(7, b',"x":"' + b"y" * 2000 + b'"')])
    pulse.wait_caught_up()
    assert {row for row, in pulse.rows("event_id")} == {"hostile-1", "hostile-2", "hostile-4", "hostile-6"}
    assert sorted(pulse.letters("error_code")) == [("oversize",), ("too_new",), ("too_old",)]
    pulse.check()
