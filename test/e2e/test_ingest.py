"""pulse.ingest() beside workers: nobody waits for anybody but by equal events, the ledger adds up in every snapshot."""

import json
import threading
from datetime import datetime, timedelta, timezone

import psycopg
import pytest

from harness.pipeline import event

INGEST = "SELECT accepted, rejected FROM pulse.ingest('events', %s)"


def events(count, prefix, **fields):
    return json.dumps([json.loads(event(event_id=f"{prefix}-{n}", **fields)) for n in range(count)])


def wrong(connection):
    return connection.execute("SELECT what, expected, found FROM pulse.verify('events') WHERE NOT ok").fetchall()


@pytest.mark.server(pulse__counters="minute,hour,day,user_day")
def test_sessions_and_workers_at_once(pulse, how_many):
    """Each session commits or rolls back many small transactions while records flow in from Kafka."""
    pulse.produce([event()])
    pulse.wait_caught_up()
    load = pulse.start_producing(how_many(10_000, 100_000), rate=how_many(2_000, 10_000), seed=1)
    rounds, errors = how_many(25, 300), []

    def ingest(name):
        try:
            with pulse.connect(autocommit=False) as connection:
                connection.execute("SET lock_timeout = '20s'")
                for number in range(rounds):
                    assert connection.execute(INGEST, [events(20, f"{name}-{number}")]).fetchone() == (20, 0)
                    assert connection.execute(INGEST, ["[1]"]).fetchone() == (0, 1)
                    if number % 5 == 4:
                        connection.rollback()
                    else:
                        connection.commit()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=ingest, args=[name]) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    with pulse.connect() as watcher:
        while any(thread.is_alive() for thread in threads):
            assert wrong(watcher) == []
    for thread in threads:
        thread.join()
    assert errors == []
    assert load.wait(300) == 0
    pulse.wait_caught_up()
    kept = 3 * (rounds - rounds // 5)
    assert pulse.value("SELECT count(*) FROM raw.events WHERE kafka_topic IS NULL") == 20 * kept
    assert pulse.value("SELECT count(*) FROM raw.dlq WHERE kafka_topic IS NULL") == kept
    pulse.verify()


def test_an_open_transaction_holds_nobody_up(pulse):
    pulse.produce([event()])
    pulse.wait_caught_up()
    same = events(100, "first")
    with pulse.connect(autocommit=False) as first, pulse.connect(autocommit=False) as second:
        assert first.execute(INGEST, [same]).fetchone() == (100, 0)
        second.execute("SET lock_timeout = '5s'")
        assert second.execute(INGEST, [events(100, "second")]).fetchone() == (100, 0)
        second.commit()
        pulse.produce([event() for _ in range(50)])
        pulse.wait_caught_up()
        assert pulse.count() == 151
        pulse.verify()
        # The same events in two transactions: the second waits, and they are there once.
        second.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute(INGEST, [same])
        second.rollback()
        first.commit()
        assert second.execute(INGEST, [same]).fetchone() == (100, 0)
        second.commit()
    assert pulse.count() == 251
    assert pulse.value("SELECT sum(duplicates) FROM pulse.ingests") == 100
    pulse.verify()


def test_a_killed_session_leaves_nothing(pulse):
    pulse.produce([event()])
    pulse.wait_caught_up()
    pulse.arm("ingest_rows", "kill")
    with pytest.raises(psycopg.OperationalError):
        pulse.query(INGEST, events(500, "killed"))
    pulse.wait_for("SELECT true")
    assert pulse.query(INGEST, events(500, "killed")) == [(500, 0)]
    pulse.produce([event()])
    pulse.wait_caught_up()
    assert pulse.count() == 502
    pulse.verify()


@pytest.mark.server(pulse__max_queue_depth=1000, pulse__batch_max_rows=500)
def test_refused_while_the_workers_are_too_far_behind(pulse):
    pulse.produce([event()])
    pulse.wait_caught_up()
    with pulse.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE raw.events IN EXCLUSIVE MODE")
        pulse.produce([event() for _ in range(5_000)])
        pulse.wait_for("SELECT sum(queue_records) > 1000 FROM pulse.stat_worker")
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded) as refused:
            pulse.query(INGEST, event().decode())
        assert refused.value.sqlstate == "53400"
        words = refused.value.diag.message_hint.split()
        assert words[:2] == ["retry", "after"] and words[3] == "ms" and 100 <= int(words[2]) <= 60_000
        holder.rollback()
    pulse.wait_caught_up()
    assert pulse.query(INGEST, event().decode()) == [(1, 0)]
    assert pulse.count() == 5_002
    pulse.verify()


def test_retention_and_recount_know_ingested_rows(pulse):
    old = (datetime.now(timezone.utc) - timedelta(days=20)).isoformat(timespec="milliseconds")
    pulse.query(INGEST, events(30, "old", event_timestamp=old))
    pulse.query(INGEST, events(10, "new"))
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"retention\": \"10d\"}')")
    pulse.wait_for("SELECT count(*) = 10 FROM raw.events", timeout=120)
    assert pulse.value("SELECT sum(expired_rows) FROM pulse.ingests") == 30
    pulse.verify()
    pulse.query("SELECT pulse.rebuild_counters('events')")
    pulse.verify()
