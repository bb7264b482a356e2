"""The simulator: what it sends, that the truth it leaves is what arrived, and how it ends."""

import threading

import psycopg
import pytest

from harness.place import wait_until

TROUBLE = "late => 0.03, duplicates => 0.02, malformed => 0.02, out_of_order => 0.05, bots => 0.05"

# The rules of sim.sessions, once more in SQL.
VISITS = """
    WITH gaps AS (
        SELECT *, event_timestamp - lag(event_timestamp) OVER (PARTITION BY user_id ORDER BY event_timestamp) AS gap
          FROM raw.events),
    visits AS (
        SELECT *, max(event_timestamp) FILTER (WHERE gap IS NULL OR gap > interval '30 minutes')
                  OVER (PARTITION BY user_id ORDER BY event_timestamp) AS visit FROM gaps),
    parts AS (
        SELECT *, floor(extract(epoch FROM event_timestamp - visit) / 86400) AS part FROM visits),
    numbered AS (
        SELECT *, min(event_timestamp) OVER (PARTITION BY user_id, visit, part) AS began FROM parts)
"""
SESSIONS = f"""{VISITS}
        SELECT user_id, began, max(event_timestamp) AS ended, count(*) AS events,
               count(*) FILTER (WHERE event_type = 'page_view') AS page_views,
               (array_agg(page_url ORDER BY event_timestamp))[1] AS landing_page,
               (array_agg(page_url ORDER BY event_timestamp DESC))[1] AS exit_page,
               bool_or(event_type = 'payment') AS is_converted
          FROM numbered GROUP BY user_id, began
"""
TRUE_SESSIONS = """
    SELECT user_id, session_started_at, session_ended_at, events, page_views, landing_page, exit_page, is_converted
      FROM sim.sessions WHERE run_id = 1
"""


@pytest.fixture
def kept(pulse):
    """A topic that keeps records of any age."""
    pulse.broker.alter_topic(pulse.topic, **{"retention.ms": "-1"})
    return pulse


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_arrives_is_the_truth(kept, how_many, seed):
    events = how_many(20_000, 300_000)
    run_id, records = kept.query(
        f"CALL pulse.simulate(events => {events}, users => {events // 20}, duration => '3 days', seed => {seed},"
        f" start_at => now() - interval '4 days', {TROUBLE})")[0]
    kept.wait_caught_up()
    kept.check(duplicates=records - events - kept.value("SELECT sum(count)::bigint FROM sim.rejects"))

    assert run_id == 1 and kept.count() == events
    assert kept.query("SELECT error_code, count(*) FROM raw.dlq GROUP BY 1 ORDER BY 1") \
        == kept.query("SELECT error_code, count FROM sim.rejects ORDER BY 1")
    assert len(kept.query("SELECT * FROM sim.rejects")) == 16, "every code came up"
    different = f"(({SESSIONS}) EXCEPT ({TRUE_SESSIONS})) UNION ALL (({TRUE_SESSIONS}) EXCEPT ({SESSIONS}))"
    assert kept.query(f"{different} LIMIT 3") == []
    assert kept.query("""
        SELECT (event_timestamp AT TIME ZONE 'UTC')::date, count(*), count(*) FILTER (
                   WHERE kafka_timestamp - event_timestamp > interval '5 minutes'), count(DISTINCT user_id)
          FROM raw.events GROUP BY 1 ORDER BY 1""") \
        == kept.query("SELECT day, events, late_events, active_users FROM sim.days WHERE events > 0 ORDER BY 1")
    assert kept.query("""
        SELECT (event_timestamp AT TIME ZONE 'UTC')::date, funnel_step_index, event_type, count(DISTINCT user_id)
          FROM raw.events GROUP BY 1, 2, 3 ORDER BY 1, 2""") \
        == kept.query("SELECT day, step, event_type, users FROM sim.funnel_daily WHERE users > 0 ORDER BY 1, 2")
    late = kept.value("SELECT sum(late_events)::float8 / sum(events) FROM sim.days")
    assert 0.02 < late < 0.04


def test_same_seed_same_bytes(cluster, broker, topic):
    cluster.configure(pulse__brokers=broker.address)
    other = topic + "-again"
    broker.create_topic(other)
    call = f"""CALL pulse.simulate(events => 5000, users => 500, duration => '1 hour', seed => 7,
                                   start_at => date_trunc('hour', now()) - interval '2 hours', {TROUBLE}, topic => %s)"""
    for name in (topic, other):
        cluster.query(call, name)
    read = [{(m.partition(), m.offset()): (m.key(), m.value(), m.timestamp()) for m in broker.read_all(name)}
            for name in (topic, other)]
    assert len(read[0]) > 5000
    assert read[0] == read[1]


def test_in_real_time(pulse):
    """At a rate, records carry the time of now, and the whole takes as long as it must."""
    began = pulse.value("SELECT clock_timestamp()")
    pulse.query("CALL pulse.simulate(events => 3000, rate => 1500, users => 300)")
    took = pulse.value("SELECT extract(epoch FROM clock_timestamp() - %s)::float8", began)
    pulse.wait_caught_up()
    assert pulse.count() == 3000
    assert took > 1.2
    assert pulse.value("SELECT min(kafka_timestamp) >= %s - interval '1 second' AND max(kafka_timestamp) <="
                       " clock_timestamp() + interval '5 seconds' FROM raw.events", began)


def test_cancelled_run_is_over_at_once_and_says_how_far_it_came(pulse):
    with pulse.connect() as connection:
        connection.execute("SET statement_timeout = '3s'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("CALL pulse.simulate(events => 1000000, rate => 100)")
        connection.execute("RESET statement_timeout")
        connection.execute("CALL pulse.simulate(events => 1000)")
    assert pulse.query("SELECT finished_at IS NULL FROM sim.runs ORDER BY run_id") == [(True,), (False,)]
    assert pulse.query("SELECT DISTINCT run_id FROM sim.sessions") == [(2,)], "no truth about half a run"


def test_progress_is_seen_from_outside(pulse):
    with pulse.connect() as connection, pulse.connect() as other:
        notices = []
        connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
        connection.execute("SET statement_timeout = '60s'")
        pid = connection.info.backend_pid

        def run():
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("CALL pulse.simulate(events => 1000000, rate => 200)")

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: other.execute("SELECT to_regclass('sim.runs') IS NOT NULL").fetchone()[0], "the run's tables")
        wait_until(lambda: other.execute("SELECT records_sent > 500 FROM sim.runs").fetchone()[0], "progress", 60)
        assert other.execute("SELECT pg_cancel_backend(%s)", [pid]).fetchone()[0]
        thread.join()
    assert any("of 1000000 events sent" in notice for notice in notices)


def test_in_a_transaction_block_truth_obeys_it(pulse):
    with pulse.connect(autocommit=False) as connection:
        connection.execute("CALL pulse.simulate(events => 500)")
        connection.rollback()
    assert pulse.value("SELECT to_regclass('sim.runs')") is None
    pulse.wait_for("SELECT count(*) = 500 FROM raw.events", "what was sent stays sent")


@pytest.mark.parametrize("arguments, message", [
    ("late => 2", "late must be a share"),
    ("bots => 1", "bots must be a share"),
    ("users => 0", "users must be between"),
    ("rate => 0", "rate must be between"),
    ("events => 0", "events must be between"),
    ("duration => '0 s'", "duration must be positive"),
    ("events => 10000000, duration => '1 s'", "more than 100,000 events per second"),
    ("start_at => 'infinity'", "start_at is out of range"),
    ("topic => '^all'", "bad topic name"),
])
def test_bad_arguments_are_refused(pulse, arguments, message):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message) as caught:
        pulse.query(f"CALL pulse.simulate({arguments})")
    assert caught.value.diag.message_hint


def test_unknown_topic_is_an_error(pulse):
    with pytest.raises(psycopg.errors.ConnectionException, match="could not be delivered"):
        pulse.query("CALL pulse.simulate(events => 10, topic => 'nobody-made-this')")


def test_without_brokers_it_says_so(cluster):
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="pulse.brokers"):
        cluster.query("CALL pulse.simulate(events => 10)")
