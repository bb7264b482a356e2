"""Seeded events whose sessions, funnels and active users are known, and the order they arrive in.

Shoppers with think times, visits across midnight, bots that never fall silent, clocks that jump; events
that arrive late by minutes or days, out of order, twice. Everything is in whole milliseconds after BEGIN.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

BEGIN = datetime(2026, 9, 28, tzinfo=timezone.utc)  # a Monday; two month edges lie in the 40 days that follow
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
TIMEOUT = 30 * MINUTE
STEPS = ("page_view", "product_view", "add_to_cart", "checkout", "payment")
GOES_ON = (0.6, 0.5, 0.6, 0.8)
PUNCTUAL = "bot"  # never late, so that runs begin in the middle of an endless visit, not at its begin
DEVICES = ("mobile", "desktop", "tablet", None)
REFERRERS = ("https://www.google.com/", "https://news.example.org/a?b=c", None)


@dataclass(frozen=True)
class Event:
    event_id: str
    event_type: str
    user_id: str
    at: int          # ms
    arrives: int     # ms, at the broker
    page_url: str | None
    referrer: str | None
    device: str | None


def moment(ms):
    return BEGIN + timedelta(milliseconds=ms)


def generate(seed, users=60, days=40, bots=2):
    """A list of events without duplicates, by nothing in particular."""
    rnd = random.Random(seed)
    made = []

    def emit(user, at, event_type, page):
        delay = rnd.randrange(0, 2 * SECOND)
        if user != PUNCTUAL:
            delay = rnd.choice((delay,) * 17 + (
                5 * MINUTE + rnd.randrange(-1, 2),               # the edge of late
                rnd.randrange(6 * MINUTE, 3 * HOUR), rnd.randrange(DAY, 12 * DAY)))
        made.append(Event(f"{rnd.getrandbits(64):016x}", event_type, user, at, at + delay, page,
                          rnd.choice(REFERRERS), rnd.choice(DEVICES)))

    def page():
        return rnd.choice((None, f"https://shop.example.com/p/{rnd.randrange(12)}"
                           + rnd.choice(("", "?utm_source=mail", "#top", "?a=1#b?c"))))

    def walk(user, at):
        """One visit, through the funnel with detours; returns the time of its last event."""
        step = rnd.choice((0, 0, 0, 0, 0, rnd.randrange(5)))  # some begin in the middle of the funnel
        while True:
            emit(user, at, STEPS[step], page())
            if rnd.random() < 0.1:
                emit(user, at, rnd.choice((*STEPS, "search")), page())  # at the same millisecond
            if step == 4 or rnd.random() > GOES_ON[step]:
                if rnd.random() < 0.6:
                    return at
                step = -1
            step += 1
            at += rnd.choice((rnd.randrange(SECOND, 5 * MINUTE),) * 12 + (
                TIMEOUT - SECOND, TIMEOUT - 1, TIMEOUT))

    for number in range(users):
        user = f"user-{number:03d}"
        at = rnd.randrange(days * DAY // 2)
        while at < days * DAY:
            if rnd.random() < 0.25:  # across midnight
                at = at // DAY * DAY + DAY - rnd.randrange(1, 10 * MINUTE)
            at = walk(user, at)
            at += rnd.choice((TIMEOUT, TIMEOUT + 1, TIMEOUT + SECOND, rnd.randrange(TIMEOUT, 2 * HOUR),
                              rnd.randrange(6 * HOUR, 9 * DAY), rnd.randrange(6 * HOUR, 9 * DAY)))
    for bot, count in ((PUNCTUAL, 1500), ("bot-late", 500))[:bots]:  # about three weeks, one week without a silence
        at = rnd.randrange(days * DAY // 3)
        for _ in range(count):
            emit(bot, at, rnd.choice(STEPS[:2]), "https://shop.example.com/p/1")
            at += rnd.choice((rnd.randrange(SECOND, TIMEOUT), TIMEOUT))
    # The same id at another time is another event; the key of raw.events says so.
    made += [Event(e.event_id, e.event_type, e.user_id, e.at + 7 * MINUTE, e.arrives + 7 * MINUTE, e.page_url, e.referrer,
                   e.device) for e in rnd.sample(made, 5)]
    return made


def arrivals(events, seed, chunks, duplicates=0.1):
    """The events in chunks of batches, in order of arrival but for a share that comes at any time later
    and some again."""
    rnd = random.Random(seed)
    order = sorted(events, key=lambda event: event.arrives)
    placed = [(position if event.user_id == PUNCTUAL or rnd.random() < 0.85 else
               rnd.uniform(position, len(order)), event) for position, event in enumerate(order)]
    placed += [(rnd.uniform(position, len(order)), event) for position, event in placed
               if rnd.random() < duplicates]
    placed.sort(key=lambda pair: pair[0])
    edges = sorted(rnd.sample(range(1, len(placed)), chunks - 1))
    result = []
    for low, high in zip([0, *edges], [*edges, len(placed)]):
        chunk = [event for _, event in placed[low:high]]
        size = rnd.randrange(1, max(2, len(chunk)))
        result.append([chunk[at:at + size] for at in range(0, len(chunk), size)])
    return result
