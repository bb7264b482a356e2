"""How many partitions events make: a stream of nonsense times neither fills the catalog nor takes all locks of the server."""

import json
from datetime import datetime, timedelta, timezone

import psycopg
import pytest
from harness.pipeline import event
from harness.place import wait_until

HOURLY = "SELECT pulse.create_pipeline('hourly', ARRAY[%s], 'public.hourly', '{\"partition_by\": \"hour\", \"counters\": \"\"}')"
NOW = datetime.now(timezone.utc).replace(minute=30, second=0, microsecond=0)


def hour(number):
    return (NOW - timedelta(hours=number)).isoformat()


def events(*hours):
    return json.dumps([json.loads(event(event_timestamp=hour(number))) for number in hours])


@pytest.fixture
def hourly(pulse):
    pulse.query("CREATE TABLE public.hourly (LIKE raw.events INCLUDING DEFAULTS, PRIMARY KEY (event_id, event_timestamp)) "
                "PARTITION BY RANGE (event_timestamp)")
    pulse.query(HOURLY, f"{pulse.topic}-hourly")
    return pulse


def partitions(pulse):
    return pulse.value("SELECT count(*) FROM pg_inherits WHERE inhparent = 'public.hourly'::regclass")


def state(pulse):
    return pulse.query("SELECT state, reason, hint FROM pulse.stat_pipeline WHERE pipeline = 'hourly'")[0]


@pytest.mark.server(pulse__dlq_topic="")
def test_workers_make_400_an_hour_and_go_on_when_it_is_over(hourly):
    topic = hourly.broker.create_topic(f"{hourly.topic}-hourly", 1)
    sent = [event(event_timestamp=hour(number), event_id=str(number)) for number in range(420)]
    hourly.broker.produce(topic, sent)
    wait_until(lambda: state(hourly)[0] == "retrying" and hourly.count("public.hourly") == 400, "400 partitions to be made", timeout=120)
    assert partitions(hourly) == 400
    [(_, reason, hint)] = [state(hourly)]
    assert f'offset 400 of partition 0 of topic "{topic}": its event_timestamp' in reason and reason.count("offset 400") == 1
    assert hour(400)[:13].replace("T", " ") in reason and "reject_older_than" in hint and "goes on by itself at" in hint
    assert hourly.query("SELECT status FROM pulse.health() WHERE pipeline = 'hourly'") == [("stalled",)]
    assert hourly.letters("error_code") == []
    # Other pipelines have hours of their own, and what needs no partition is written.
    hourly.produce([event()])
    hourly.wait_caught_up()
    hourly.cluster.configure(pulse__budget_hour="1s")
    wait_until(lambda: hourly.count("public.hourly") == 420, "the rest to be written", timeout=120)
    assert hourly.letters("error_code") == [] and partitions(hourly) == 420
    assert hourly.query("SELECT * FROM pulse.verify('hourly') WHERE NOT ok") == []


def test_one_call_of_ingest_makes_no_more_than_32(hourly):
    with pytest.raises(psycopg.errors.ProgramLimitExceeded) as refused:
        hourly.query("SELECT pulse.ingest('hourly', %s)", events(*range(5000)))
    assert "more than 32 new partitions of public.hourly" in str(refused.value)
    assert "several transactions" in refused.value.diag.message_hint and "event_timestamp" in refused.value.diag.message_detail
    assert partitions(hourly) == 0 and hourly.count("public.hourly") == 0
    # A transaction has as many as a call, those that a savepoint took back included.
    with hourly.connect(autocommit=False) as session:
        session.execute("SELECT pulse.ingest('hourly', %s)", (events(*range(20)),))
        session.execute("SAVEPOINT one")
        session.execute("SELECT pulse.ingest('hourly', %s)", (events(*range(20, 30)),))
        session.execute("ROLLBACK TO one")
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            session.execute("SELECT pulse.ingest('hourly', %s)", (events(*range(40, 43)),))
        session.execute("ROLLBACK TO one")
        session.execute("SELECT pulse.ingest('hourly', %s)", (events(*range(20)),))
        session.commit()
        for first in (40, 72):
            session.execute("SELECT pulse.ingest('hourly', %s)", (events(*range(first, first + 32)),))
            session.commit()
    assert partitions(hourly) == 20 + 64 and hourly.count("public.hourly") == 40 + 64
    assert hourly.query("SELECT * FROM pulse.verify('hourly') WHERE NOT ok") == []


def test_replays_make_32_in_a_transaction(hourly):
    hourly.query("""SELECT pulse.alter_pipeline('hourly', '{"reject_older_than": "1min"}')""")
    hourly.query("SELECT pulse.ingest('hourly', %s)", events(*range(1, 101)))
    hourly.query("""SELECT pulse.alter_pipeline('hourly', '{"reject_older_than": "100d"}')""")
    assert hourly.query("CALL pulse.dlq_replay(dry_run => true)") == [(100, 0, 0)]
    assert partitions(hourly) == 0
    with hourly.connect(autocommit=False) as session:
        with pytest.raises(psycopg.errors.ProgramLimitExceeded) as refused:
            session.execute("CALL pulse.dlq_replay()")
        session.rollback()
        assert "outside of a transaction block" in refused.value.diag.message_hint
        assert session.execute("CALL pulse.dlq_replay(max_letters => 32)").fetchone() == (32, 0, 0)
        assert session.execute("CALL pulse.dlq_replay(dry_run => true)").fetchone() == (68, 0, 0)
        session.commit()
    assert hourly.query("CALL pulse.dlq_replay()") == [(68, 0, 0)]
    assert partitions(hourly) == 100 and hourly.count("public.hourly") == 100
    assert hourly.query("SELECT * FROM pulse.verify('hourly') WHERE NOT ok") == []
