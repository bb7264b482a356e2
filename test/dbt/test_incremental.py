"""Each rule of the incremental models by itself: what arrives, which tables it must change, and what it must leave alone."""

import random
import threading

import pytest
from clickstream import DAY, HOUR, MINUTE, SECOND, TIMEOUT, Event, moment
from harness.place import Failed, wait_until
from oracle import truth
from test_truth import TABLES, compare, same

PAGE = "https://shop.example.com/p/"


def event(user, at, event_type="page_view", page="1"):
    return Event(f"{user}-{at}", event_type, user, at, at + SECOND, PAGE + page, None, "mobile")


# Eight quiet users on days 3 to 24, so that days, weeks and funnels exist; a bot without a silence over three midnights.
KNOWN = [event(f"user-{number}", day * DAY + number * HOUR + step * MINUTE, kind)
         for number in range(8) for day in range(3 + number, 25, 1 + number)
         for step, kind in enumerate(("page_view", "product_view", "add_to_cart")[:1 + (number + day) % 3])]
KNOWN += [event("bot", 5 * DAY + 10 * MINUTE + n * 20 * MINUTE) for n in range(3 * 72)]
KNOWN += [event("owl", 10 * DAY - 10 * MINUTE), event("lark", 27 * DAY - 15 * MINUTE), event("lark", 27 * DAY + 20 * MINUTE),
          event("edge", 14 * DAY - TIMEOUT), event("away", 4 * DAY), event("away", 20 * DAY),
          event("back", 18 * DAY), event("back", 19 * DAY),
          # An address too long for an index.
          event("poet", 22 * DAY, page=f"{random.Random(1).getrandbits(40_000):x}")]

# What arrives, one run after the other. Days are counted from a Monday.
ARRIVALS = {
    "a session of three events gets a fourth": [event("user-1", 4 * DAY + HOUR + 5 * MINUTE, "payment")],
    "a session goes on behind midnight": [event("owl", 10 * DAY + 10 * MINUTE, "product_view")],
    "two sessions become one, and the later day loses the only one it had": [event("lark", 27 * DAY + 2 * MINUTE)],
    "exactly the timeout is no silence yet": [event("edge", 14 * DAY)],
    "one millisecond more is": [event("edge", 14 * DAY + TIMEOUT + 1)],
    "an old day gets another event, long after": [event("user-3", 6 * DAY + 12 * HOUR, "payment")],
    "an old day gets its first event of a user between two others": [event("away", 11 * DAY)],
    "an old and a new day get events at once": [event("user-5", 12 * DAY + HOUR), event("user-1", 24 * DAY + 21 * HOUR)],
    "a user turns out to have come weeks earlier": [event("back", 3 * DAY + 5 * HOUR)],
    "an endless visit begins earlier, and all its parts move to the days before": [event("bot", 5 * DAY - 10 * MINUTE)],
    "an endless visit goes on": [event("bot", 8 * DAY + 10 * MINUTE)],
    "days without anybody lie before the next event": [event("owl", 31 * DAY)],
    "somebody comes back behind the month": [event("away", 50 * DAY + HOUR)],
    "an event lies before all others": [event("owl", DAY)],
}


def test_each_rule_leaves_what_a_full_refresh_would(store, make_dbt):
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    arrived = list(KNOWN)
    store.write(KNOWN)
    dbt.invoke("run")
    compare(store, truth(arrived))
    for what, late in ARRIVALS.items():
        store.write(late)
        arrived += late
        dbt.invoke("run")
        try:
            compare(store, truth(arrived))
        except AssertionError as wrong:
            pytest.fail(f"{what}: {wrong}")
    dbt.invoke("run", "--full-refresh", schema="refreshed")
    same(store, "analytics", "refreshed")


# What a run leaves alone when events come for one user and day only.
UNTOUCHED = {
    "int_events_sessionized": "user_id <> 'user-0' OR event_timestamp < %(day)s",
    "int_user_days": "user_id <> 'user-0' OR activity_date < %(day)s::date",
    "int_event_days": "activity_date < %(day)s::date",
    "int_session_days": "session_date < %(day)s::date",
    "int_returns_daily": "activity_date < %(day)s::date",
    "int_cohort_weeks": "active_week < date_trunc('week', %(day)s)::date",
    "fct_sessions": "user_id <> 'user-0' OR session_started_at < %(day)s",
    "fct_landing_pages": "session_date < %(day)s::date",
    "dim_users": "user_id <> 'user-0'",
}


def test_what_does_not_change_is_not_written_again(store, make_dbt):
    """So a run costs what is new, not what there is. A row written again is another version of it."""
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    store.write(KNOWN)
    dbt.invoke("run")
    day = moment(24 * DAY)

    def versions(table, condition="true"):
        condition = condition.replace("%(day)s", f"'{day.isoformat()}'::timestamptz")
        return set(store.query(f"SELECT xmin::text, ctid::text FROM analytics.{table} WHERE {condition}"))

    before = {table: versions(table, condition) for table, condition in UNTOUCHED.items()}
    assert all(before.values()), before
    store.write([event("user-0", 24 * DAY + 20 * HOUR), event("user-0", 24 * DAY + 20 * HOUR + MINUTE)])
    dbt.invoke("run")
    for table, kept in before.items():
        assert kept <= versions(table), f"{table} wrote rows again that did not change"
    assert set(UNTOUCHED) < set(TABLES)
    before = {table: versions(table) for table in UNTOUCHED}
    dbt.invoke("run")
    for table, kept in before.items():
        assert kept == versions(table), f"{table} wrote something though nothing came"


def run_both(store, reader, *runs):
    """Runs that must wait for one another, each [dbt, words…], one after the other until they wait for a lock; then
    the reader lets go."""
    failed = []

    def run(dbt, *words):
        try:
            dbt.invoke("run", *words)
        except Failed as error:
            failed.append(error)

    waiting = ("SELECT count(DISTINCT pid) = %s FROM pg_locks WHERE NOT granted "
               "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
    threads = [threading.Thread(target=run, args=words) for words in runs]
    for number, thread in enumerate(threads):
        thread.start()
        wait_until(lambda number=number: store.query(waiting, number + 1)[0][0], "a run to wait", 60)
    reader.rollback()
    for thread in threads:
        thread.join()
    assert not failed


def test_two_runs_at_once_count_each_event_once(store, make_dbt):
    """One begins while the other is at work: it waits until that one has committed, and then sees what is left to do."""
    one, other = (make_dbt(store.cluster, dbname=store.dbname) for _ in range(2))
    store.write(KNOWN)
    one.invoke("run")
    other.invoke("parse")
    late = [event("owl", 10 * DAY + 10 * MINUTE, "product_view"), event("new", 31 * DAY)]
    store.write(late)
    with store.cluster.connect(store.dbname, autocommit=False) as reader:
        reader.execute("LOCK TABLE analytics.int_events_sessionized IN SHARE MODE")  # nobody writes
        run_both(store, reader, [one], [other])
    compare(store, truth(KNOWN + late))


def test_a_model_that_is_read_twice_stays_as_it_is_in_between(store, make_dbt):
    """Where the days that changed begin is asked first, and then what they have."""
    one, other = (make_dbt(store.cluster, dbname=store.dbname) for _ in range(2))
    store.write(KNOWN)
    one.invoke("run")
    other.invoke("parse")
    first, second = [event("new", 31 * DAY)], [event("old", 5 * DAY), event("new", 32 * DAY)]
    store.write(first)
    one.invoke("run", "--exclude", "int_session_days")
    store.write(second)
    other.invoke("run", "--select", "int_events_sessionized")
    with store.cluster.connect(store.dbname, autocommit=False) as reader:
        reader.execute("LOCK TABLE analytics.int_session_days IN SHARE MODE")  # nobody writes
        run_both(store, reader, [one, "--select", "int_session_days"], [other, "--select", "fct_sessions"])
    one.invoke("run")
    compare(store, truth(KNOWN + first + second))


def test_events_that_come_again_count_once(store, make_dbt):
    """Deleted, and read from Kafka once more: the same events, ingested later."""
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    store.write(KNOWN)
    dbt.invoke("run")
    store.query("DELETE FROM raw.events WHERE event_timestamp >= %s", moment(20 * DAY))
    store.write(KNOWN)
    dbt.invoke("run")
    compare(store, truth(KNOWN))


def test_what_retention_drops_stays_and_what_a_model_loses_is_told(store, make_dbt):
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    store.write(KNOWN)
    dbt.invoke("run")
    store.query("DELETE FROM raw.events WHERE event_timestamp < %s", moment(8 * DAY))
    store.write([event("owl", 31 * DAY)])
    dbt.invoke("run")
    compare(store, truth([*KNOWN, event("owl", 31 * DAY)]))

    def is_told():
        results = dbt.invoke("test", "--select", "no_event_is_lost", ok=False)
        return results["test.pulse.no_event_is_lost"]["status"] == "fail"

    assert not is_told()
    for loss in ("DELETE FROM analytics.int_events_sessionized WHERE event_id = (SELECT max(event_id) FROM raw.events)",
                 "DELETE FROM analytics.fct_sessions WHERE session_date = (SELECT min(session_date) FROM analytics.fct_sessions)",
                 "DELETE FROM analytics.int_user_days WHERE activity_date = (SELECT min(activity_date) FROM analytics.int_user_days)"):
        dbt.invoke("run", "--full-refresh")
        assert not is_told()
        store.query(loss)
        assert is_told(), loss


def test_a_few_events_do_not_make_a_run_read_tables_again_and_again(store, make_dbt):
    """Rows that the statements of a run look at. One of them may find a small table quicker to read than its index."""
    store.query("""
        INSERT INTO raw.events (event_id, event_type, user_id, event_timestamp, kafka_timestamp, ingested_at)
        SELECT format('%s-%s', number, day), 'page_view', 'user-' || number, at, at, at + interval '1 second'
          FROM generate_series(1, 1000) AS number, generate_series(0, 29) AS day,
               LATERAL (SELECT '2026-09-28 00:00:00+00'::timestamptz + day * interval '1 day'
                               + number * interval '1 minute' AS at) AS moments""")
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    dbt.invoke("run")

    def reads():
        return dict(store.query("""
            SELECT relname::text, seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables
             WHERE schemaname = 'analytics' AND relname IN ('int_events_sessionized', 'fct_sessions', 'int_user_days')"""))

    before = reads()
    store.write([event("user-7", 29 * DAY + 20 * HOUR)])
    dbt.invoke("run")
    read = {table: rows - before[table] for table, rows in reads().items()}
    assert len(read) == 3 and max(read.values()) < 1.5 * 30_000, read


def test_a_full_refresh_puts_what_a_user_did_on_a_day_in_one_place(store, make_dbt):
    """There incremental runs read it again. In the order of time each of these events would be on a page of its own."""
    store.query("""
        INSERT INTO raw.events (event_id, event_type, user_id, event_timestamp, kafka_timestamp, ingested_at)
        SELECT format('%s-%s', number, day), 'page_view', 'user-' || number % 100, at, at, at + interval '1 second'
          FROM generate_series(1, 2000) AS number, generate_series(0, 1) AS day,
               LATERAL (SELECT '2026-09-28 00:00:00+00'::timestamptz + day * interval '1 day'
                               + number * interval '40 seconds' AS at) AS moments""")
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    dbt.invoke("run", "--full-refresh")
    for table, day, rows in (("int_events_sessionized", "event_date", 20), ("fct_sessions", "session_date", 20)):
        found, pages = store.query(f"""
            SELECT min(rows), max(pages)
              FROM (SELECT count(*) AS rows, count(DISTINCT (ctid::text::point)[0]) AS pages
                      FROM analytics.{table} GROUP BY user_id, {day}) AS days_of_users""")[0]
        assert found == rows and pages <= 2, f"{table}: {pages} pages for {found} rows"


def test_many_events_that_no_statistics_know_of_take_no_longer(store, make_dbt):
    """Nobody has analyzed what arrived since: the planner takes it for a few rows, and must not go through them for each user."""
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    store.query("ALTER TABLE raw.events SET (autovacuum_enabled = off)")

    def arrive(users, ingested_at):
        store.query("""
            INSERT INTO raw.events (event_id, event_type, user_id, event_timestamp, kafka_timestamp, ingested_at)
            SELECT md5(format('%%s-%%s-%%s', %s::text, number, step)), 'page_view', 'user-' || number, at, at, %s
              FROM generate_series(1, %s) AS number, generate_series(0, 9) AS step,
                   LATERAL (SELECT '2026-09-28 00:00:00+00'::timestamptz + number * interval '1 second'
                                   + step * interval '1 hour' AS at) AS moments""", ingested_at, ingested_at, users)

    arrive(100, "2026-10-01 00:00:00+00")
    store.query("ANALYZE raw.events")
    dbt.invoke("run")
    arrive(20_000, "2026-10-02 00:00:00+00")
    store.query(f"ALTER DATABASE {store.dbname} SET statement_timeout = '60s'")
    dbt.close()
    dbt.invoke("run")
    assert store.query("SELECT count(*) FROM analytics.int_events_sessionized") == [(201_000,)]


def test_tables_just_made_are_left_as_autovacuum_would_leave_them(store, make_dbt):
    """Or it would write them again while the next runs are at work. What a run adds is left to it."""
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    store.write(KNOWN)

    def vacuums():
        return dict(store.query("SELECT relname::text, vacuum_count::int FROM pg_stat_user_tables "
                                "WHERE schemaname = 'analytics' AND vacuum_count > 0"))

    for words in (("run",), ("run", "--full-refresh")):  # tables are other ones then, and so are their counts
        dbt.invoke(*words)
        assert vacuums() == dict.fromkeys(UNTOUCHED, 1)
        assert store.query("SELECT relname FROM pg_class WHERE relnamespace = 'analytics'::regnamespace AND relkind = 'r' "
                           "AND relname::text = ANY(%s) AND relallvisible < relpages", [list(UNTOUCHED)]) == []
    store.write([event("user-0", 24 * DAY + 20 * HOUR)])
    dbt.invoke("run")
    assert vacuums() == dict.fromkeys(UNTOUCHED, 1)
