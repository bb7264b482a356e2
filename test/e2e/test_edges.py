"""Edges that once lost a record, stopped a partition or brought the server down."""

import random

import psycopg
import pytest
from harness.pipeline import event
from harness.place import wait_until


def noise(length):
    """Text that no compression makes shorter."""
    rnd = random.Random(length)
    return "".join(rnd.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length))


def test_an_event_type_too_long_for_the_counters_is_a_letter(pulse):
    pulse.produce([event(user_id="before"), event(event_type=noise(5000)), event(user_id=noise(3000)),
                   event(user_id="after")], partition=0)
    pulse.wait_caught_up()
    assert pulse.letters("error_code, error_path") == [("too_long", "/event_type"), ("too_long", "/user_id")]
    assert pulse.rows("user_id") == [("before",), ("after",)]
    pulse.check()


@pytest.mark.parametrize("column, wrong", [("kafka_timestamp", "text"), ("ingested_at", "bigint"), ("kafka_key", "int"),
                                           ("kafka_topic", "uuid"), ("kafka_headers", "text")])
def test_metadata_column_of_the_wrong_type_is_refused(cluster, column, wrong):
    cluster.query(f"CREATE TABLE public.wrong (event_id text PRIMARY KEY, {column} {wrong})")
    with pytest.raises(psycopg.errors.DatatypeMismatch):
        cluster.query("SELECT pulse.create_pipeline('wrong', ARRAY['wrong'], 'public.wrong')")


@pytest.mark.server(pulse__batch_max_rows=2000)
def test_a_tripped_batch_is_not_left_out_when_the_pipeline_cannot_be_marked_stopped(pulse):
    """The row of the pipeline is locked while the breaker trips: the worker can't say it is stopped."""
    with pulse.connect(autocommit=False) as blocker:
        blocker.execute("SELECT 1 FROM pulse.pipelines WHERE name = 'events' FOR UPDATE")
        pulse.produce([b"not json"] * 3000, partition=0)
        wait_until(lambda: "lock timeout" in (pulse.reason() or "") or pulse.state() == "retrying",
                   "the worker to run into the lock", 30)
        # Good records behind the bad ones, which a worker that forgot the batch would go on with.
        pulse.produce([event(user_id=f"user-{number}") for number in range(200)], partition=0)
    pulse.wait_state("stopped")
    pulse.query("""SELECT pulse.alter_pipeline('events', '{"max_error_ratio": 1}')""")
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert pulse.count("raw.dlq") == 3000
    assert pulse.count() == 200
    pulse.check()


def test_a_partition_that_another_worker_makes_meanwhile_is_used(pulse):
    """Both saw that it is missing; the second waits for the first and finds it there."""
    pulse.wait_created()
    pulse.log_since()
    with pulse.connect(autocommit=False) as first:
        # What a worker does: 0x70756c73 is pulse's class of advisory locks.
        first.execute("SELECT pg_advisory_xact_lock(x'70756c73'::int, 'raw.events'::regclass::oid::int)")
        first.execute("CREATE TABLE raw.events_made_first (LIKE raw.events INCLUDING ALL)")
        first.execute("ALTER TABLE raw.events ATTACH PARTITION raw.events_made_first"
                      " FOR VALUES FROM ('2026-11-10 00:00+00') TO ('2026-11-11 00:00+00')")
        pulse.produce([event(event_timestamp="2026-11-10T12:00:00Z")], partition=0)
        pulse.wait_for("SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted",
                       "the worker to wait for its turn")
        first.commit()
    pulse.wait_caught_up()
    assert pulse.count("raw.events_made_first") == 1
    assert "42P17" not in pulse.log_since(), "the worker tried to make it once more"
    pulse.check()
