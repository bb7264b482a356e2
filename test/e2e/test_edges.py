"""Edges that once lost a record, stopped a partition or brought the server down."""

import random
import threading

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


@pytest.mark.topic(partitions=1)
def test_a_pipeline_dropped_before_its_worker_has_read_it(pulse):
    """The worker finds no row of its own: it leaves, instead of going on without a reader."""
    with pulse.connect(autocommit=False) as dropper:
        dropper.execute("LOCK TABLE pulse.pipelines IN ACCESS EXCLUSIVE MODE")
        old = pulse.terminate_worker()
        pulse.wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pulse worker' AND "
                       "wait_event_type = 'Lock' AND pid <> %s)", "the new worker to look for its pipeline",
                       parameters=(old,))
        dropper.execute("SELECT pulse.drop_pipeline('events')")
    wait_until(lambda: not pulse.cluster.backends("pulse worker"), "the worker to leave")
    assert "was terminated by signal" not in pulse.cluster.log_text()
    pulse.produce([event(event_id="1")])
    pulse.query("SELECT pulse.create_pipeline('events', %s)", [pulse.topic])
    pulse.wait_caught_up()
    assert pulse.rows("event_id") == [("1",)]
    pulse.check()


@pytest.mark.topic(partitions=1)
def test_a_target_that_could_not_be_described_again_is_not_written_half_known(pulse):
    """The table changes and is locked at once, longer than the worker waits for it."""
    pulse.produce([event(event_id="1")])
    pulse.wait_caught_up()
    pulse.wait_state("idle")
    with pulse.connect(autocommit=False) as changer, pulse.connect(autocommit=False) as holder:
        changer.execute("ALTER TABLE raw.events ADD COLUMN campaign text")
        queued = threading.Thread(target=lambda: holder.execute("LOCK TABLE raw.events IN ACCESS EXCLUSIVE MODE"))
        queued.start()
        pulse.wait_for("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'raw.events'::regclass AND NOT granted)")
        changer.commit()
        queued.join()
        pulse.produce([event(event_id="2", campaign="spring"), b"{"])
        pulse.wait_state("retrying", timeout=60)
        assert "55P03" in pulse.reason()
    pulse.wait_caught_up()
    assert pulse.rows("event_id, campaign") == [("1", None), ("2", "spring")]
    assert pulse.letters("error_code") == [("syntax",)]
    log = pulse.cluster.log_text()
    assert "syntax error" not in log and "was terminated by signal" not in log and "is failed" not in log
    pulse.check()


MISUSES = {
    "a record beyond the batch": "PERFORM pulse._at_record(100000000)",
    "no record": "PERFORM pulse._at_record(-1)",
    "another record": "PERFORM pulse._at_record(0)",
    "the batch under other types": "PERFORM b.a FROM pulse._batch() AS b(a int, b bigint, c text)",
    "the batch as it is": "PERFORM b.a FROM pulse._batch() AS b(a text, b int, c int)",
}


@pytest.mark.topic(partitions=1)
@pytest.mark.parametrize("misuse", MISUSES, ids=lambda name: name.replace(" ", "-"))
def test_user_code_that_calls_what_is_for_pulse_itself(pulse, misuse):
    """A trigger of the target runs while the batch is open and anybody may call these two: no memory is
    touched, no record is taken for another, and it goes on when the trigger is gone."""
    pulse.query("CREATE TABLE public.mine (event_id text PRIMARY KEY, number int)")
    pulse.query(f"CREATE FUNCTION public.misuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF NEW.number > 0 THEN {MISUSES[misuse]}; END IF; RETURN NEW; END $$")
    pulse.query("CREATE TRIGGER misuse BEFORE INSERT ON public.mine FOR EACH ROW EXECUTE FUNCTION public.misuse()")
    pulse.query("SELECT pulse.create_pipeline('mine', %s, 'public.mine')", [pulse.topic])
    pulse.query("SELECT pulse.pause('mine')")
    pulse.produce([event(event_id=str(number), number=number) for number in range(20)])
    pulse.query("SELECT pulse.resume('mine')")
    if misuse == "a record beyond the batch":  # an error of the row like any other
        pulse.wait_for("SELECT next_offset = 20 FROM pulse.offsets WHERE pipeline = 'mine'")
        assert pulse.query("SELECT kafka_offset, sqlstate FROM raw.dlq ORDER BY 1") == \
            [(number, "22023") for number in range(1, 20)]
    else:
        pulse.wait_for("SELECT state = 'failed' FROM pulse.stat_pipeline WHERE pipeline = 'mine'")
        assert "39P01" in pulse.value("SELECT reason FROM pulse.stat_pipeline WHERE pipeline = 'mine'")
        assert pulse.count("raw.dlq") == 0 and pulse.count("public.mine") == 0
        pulse.query("DROP TRIGGER misuse ON public.mine")
        pulse.wait_for("SELECT next_offset = 20 FROM pulse.offsets WHERE pipeline = 'mine'")
    letters = pulse.count("raw.dlq")
    assert pulse.query("SELECT rows, rejects, duplicates FROM pulse.offsets WHERE pipeline = 'mine'") == \
        [(20 - letters, letters, 0)]
    assert pulse.count("public.mine") == 20 - letters
