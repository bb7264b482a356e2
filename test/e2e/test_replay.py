"""Dead letters that come back: what a replay does to rows, letters, ledger and counters, alone, beside a
running pipeline, killed in the middle, and together with seeks."""

import json
import os
import signal
import threading
from datetime import datetime, timedelta, timezone

import psycopg
import pytest

from harness.pipeline import event
from harness.place import wait_until

LETTERS = "SELECT status, attempts, error_code, last_attempt_at, resolved_at FROM raw.dlq ORDER BY dlq_id"
BY_STATUS = "SELECT status, count(*) FROM raw.dlq GROUP BY 1 ORDER BY 1"


def hours_ago(hours):
    return (datetime.now(timezone.utc) - timedelta(hours=hours)).isoformat(timespec="milliseconds")


def alter(pulse, **settings):
    pulse.query("SELECT pulse.alter_pipeline('events', %s)", json.dumps(settings))


def replay(pulse, arguments=""):
    """(replayed, duplicates, failed)"""
    return pulse.query(f"CALL pulse.dlq_replay({arguments})")[0]


def read_again(pulse):
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    assert pulse.value("SELECT pulse.wait_until_caught_up('events', '2 min')")


def refuse_old(pulse):
    """From now on events older than an hour are dead letters, and any number of them."""
    alter(pulse, reject_older_than="1h", max_error_ratio=1)


def test_letters_of_a_constraint_come_back_once_it_is_gone(pulse):
    pulse.query("ALTER TABLE raw.events ADD CONSTRAINT no_robots CHECK (device <> 'robot')")
    robot = {"event_id": None, "device": "robot"}
    pulse.produce([event(**robot) if n % 5 == 0 else event() for n in range(300)])
    pulse.produce([event(**robot, event_timestamp=hours_ago(80))])  # its day has no partition yet
    pulse.wait_caught_up()
    assert pulse.query(BY_STATUS) == [("new", 61)]
    before, partitions = pulse.query(LETTERS), pulse.value("SELECT count(*) FROM pg_partition_tree('raw.events')")
    assert replay(pulse, "max_letters => 10, dry_run => true") == (0, 0, 10)

    pulse.query("ALTER TABLE raw.events DROP CONSTRAINT no_robots")
    assert replay(pulse, "dry_run => true") == (61, 0, 0)
    assert pulse.query(LETTERS) == before and pulse.count() == 240
    assert pulse.value("SELECT count(*) FROM pg_partition_tree('raw.events')") == partitions
    pulse.check()

    assert replay(pulse) == (61, 0, 0)
    assert pulse.query(BY_STATUS) == [("replayed", 61)]
    pulse.check()
    assert replay(pulse) == (0, 0, 0)
    generated = pulse.query("SELECT event_id, kafka_topic || '-' || kafka_partition || '-' || kafka_offset "
                            "FROM raw.events WHERE device = 'robot'")
    assert len(generated) == 61 and [pair for pair in generated if pair[0] != pair[1]] == []

    read_again(pulse)
    assert pulse.count() == 301 and pulse.query(BY_STATUS) == [("replayed", 61)]
    pulse.check()


def test_a_column_added_takes_what_the_letters_hold(pulse):
    refuse_old(pulse)
    pulse.produce([event(event_timestamp=hours_ago(2), shop=f"shop-{n}") for n in range(5)])
    pulse.wait_caught_up()
    pulse.query("ALTER TABLE raw.events ADD COLUMN shop text")
    alter(pulse, reject_older_than=None)
    assert replay(pulse, "'events', error_code => 'too_old'") == (5, 0, 0)
    assert sorted(pulse.rows("shop")) == [(f"shop-{n}",) for n in range(5)]
    pulse.check()


def test_letters_that_stay_bad_are_parked_and_named_ones_tried_again(pulse):
    alter(pulse, max_replays=2, reject_older_than="1h", max_error_ratio=1)
    pulse.produce([event(event_timestamp=hours_ago(2)), b"{", event()])
    pulse.wait_caught_up()
    assert [replay(pulse), replay(pulse), replay(pulse)] == [(0, 0, 2), (0, 0, 2), (0, 0, 0)]
    assert pulse.query("SELECT status, attempts FROM raw.dlq") == [("parked", 2)] * 2
    pulse.check()
    alter(pulse, reject_older_than=None)
    ids = [row[0] for row in pulse.query("SELECT dlq_id FROM raw.dlq")]
    assert replay(pulse, f"ids => '{{{ids[0]},{ids[1]}}}'") == (1, 0, 1)
    assert pulse.query(BY_STATUS) == [("parked", 1), ("replayed", 1)]
    pulse.check()


def test_a_rollback_takes_a_replay_back(pulse):
    refuse_old(pulse)
    pulse.produce([event(event_timestamp=hours_ago(2)) for _ in range(20)] + [event()])
    pulse.wait_caught_up()
    alter(pulse, reject_older_than=None)
    with pulse.connect(autocommit=False) as connection:
        assert connection.execute("CALL pulse.dlq_replay()").fetchone() == (20, 0, 0)
        assert connection.execute("SELECT count(*) FROM raw.events").fetchone() == (21,)
        began = connection.execute("SELECT min(ingested_at) FROM raw.events WHERE (kafka_partition, kafka_offset) IN "
                                   "(SELECT kafka_partition, kafka_offset FROM raw.dlq)").fetchone()[0]
        assert pulse.value("SELECT pulse.ingest_horizon()") <= began
        assert replay(pulse) == (0, 0, 0), "letters that another session holds are passed over"
        connection.rollback()
    mark = pulse.value("SELECT clock_timestamp()")
    assert pulse.value("SELECT pulse.ingest_horizon()") >= mark
    assert pulse.count() == 1 and pulse.query(BY_STATUS) == [("new", 20)]
    pulse.check()


def test_corrected_payloads_and_purged_letters_survive_reading_again(pulse):
    refuse_old(pulse)
    pulse.produce([event(event_timestamp=hours_ago(2), event_id="old"), b"{", b"[]", event()])
    pulse.wait_caught_up()
    ids = dict(pulse.query("SELECT error_code, dlq_id FROM raw.dlq"))
    outcome = "SELECT outcome, error_code FROM pulse.dlq_replay_as(%s, %s)"
    assert pulse.query(outcome, ids["too_old"], event(event_id="corrected")) == [("replayed", None)]
    assert pulse.query(outcome, ids["syntax"], event(user_id=None)) == [("failed", "missing_field")]
    assert pulse.query(outcome, ids["syntax"], event(event_id="mended")) == [("replayed", None)]
    pulse.query("SELECT pulse.dlq_discard(%s, 'a test')", [ids["not_object"]])
    assert pulse.value("SELECT value FROM raw.dlq WHERE dlq_id = %s", ids["syntax"]) == b"{"
    pulse.check()

    alter(pulse, reject_older_than=None)  # the original would be a row now, beside the corrected one
    read_again(pulse)
    assert pulse.value("SELECT array_agg(event_id) @> '{corrected,mended}' FROM raw.events") and pulse.count() == 3
    pulse.verify()

    assert pulse.value("SELECT pulse.dlq_purge('1 hour')") == 0
    assert pulse.value("SELECT pulse.dlq_purge('0')") == 3
    pulse.verify()
    read_again(pulse)
    pulse.verify()
    assert pulse.count() == 3
    assert pulse.letters("error_code, status") == [("not_object", "new")], "the row of one, the letter of the other"


def test_drop_and_create_again_adds_up(pulse):
    refuse_old(pulse)
    pulse.produce([event(event_timestamp=hours_ago(2)) for _ in range(10)] + [event()])
    pulse.wait_caught_up()
    alter(pulse, reject_older_than=None)
    assert replay(pulse, "max_letters => 4") == (4, 0, 0)
    pulse.query("SELECT pulse.drop_pipeline('events')")
    with pytest.raises(psycopg.errors.UndefinedObject):
        replay(pulse, "'events'")
    pulse.query("SELECT pulse.create_pipeline('events', %s)", [pulse.topic])
    assert replay(pulse) == (6, 0, 0)
    pulse.wait_caught_up()
    pulse.wait_for("SELECT count(*) = 11 FROM raw.events")
    pulse.verify()


def test_who_writes_on_alone_accounts_for_rows_that_were_replayed(pulse):
    pulse.query("SELECT pulse.create_pipeline('heir', %s, 'raw.events', '{\"start_position\": \"latest\"}')", [pulse.topic])
    pulse.wait_for("SELECT count(*) = 3 FROM pulse.offsets WHERE pipeline = 'heir'", "the heir to have a place")
    refuse_old(pulse)
    pulse.query("SELECT pulse.pause('heir')")
    pulse.produce([event(event_timestamp=hours_ago(2)) for _ in range(10)])
    pulse.wait_caught_up()
    alter(pulse, reject_older_than=None)
    assert replay(pulse, "'events'") == (10, 0, 0)
    pulse.query("SELECT pulse.drop_pipeline('events')")
    pulse.query("SELECT pulse.resume('heir')")
    pulse.name = "heir"
    pulse.wait_caught_up()  # it finds all of them written
    assert pulse.value("SELECT sum(duplicates) FROM pulse.offsets WHERE pipeline = 'heir'") == 10
    pulse.verify()


class Session(threading.Thread):
    """A replay in a session of its own, which may be ended by others."""

    def __init__(self, pulse, arguments=""):
        super().__init__(daemon=True)
        self.connection = pulse.connect()
        self.pid = self.connection.info.backend_pid
        self.arguments = arguments
        self.result = self.error = None
        self.start()

    def run(self):
        try:
            self.result = self.connection.execute(f"CALL pulse.dlq_replay({self.arguments})").fetchone()
        except psycopg.Error as error:
            self.error = error


def test_killed_replays_beside_a_running_pipeline_lose_nothing(pulse, how_many):
    refuse_old(pulse)
    old = how_many(4_000, 40_000)
    pulse.produce_events(old, hours=2.0, seed=1)
    pulse.wait_caught_up()
    letters = pulse.count("raw.dlq")
    assert letters > old // 4
    alter(pulse, reject_older_than=None)
    pulse.wait_state("running", "idle")
    load = pulse.start_producing(how_many(4_000, 60_000), rate=how_many(400, 1_000), seed=2)
    kills = how_many(4, 20)
    for number in range(kills):
        pulse.arm("replay_settled" if number % 2 else "replay_rows", "stop", passes=1 + number % 4 // 3)
        session = Session(pulse)
        wait_until(lambda: pulse.fault_fired() or not session.is_alive(), "the replay to stop", 60)
        assert pulse.fault_fired(), f"nothing left to kill: {session.result} {session.error}"
        pulse.verify()
        if number == kills - 1:
            pulse.query("SELECT pulse.seek('events', 'earliest')")  # the worker comes upon its rows
        pulse.query("SELECT pg_terminate_backend(%s)", session.pid)
        os.kill(session.pid, signal.SIGCONT)
        session.join(60)
        assert isinstance(session.error, psycopg.OperationalError), session.result
        pulse.wait_for("SELECT NOT EXISTS (SELECT FROM pulse.stat_replay)")
        pulse.verify()
    pulse.disarm()
    done = pulse.value("SELECT count(*) FROM raw.dlq WHERE status = 'replayed'")
    sessions = [Session(pulse), Session(pulse)]
    for session in sessions:
        session.join(300)
        assert session.error is None, session.error
    assert load.wait(300) == 0
    pulse.wait_caught_up(timeout=300)
    assert pulse.query(BY_STATUS) == [("replayed", letters)]
    # The worker, reading again, makes rows of them too.
    assert sum(session.result[0] + session.result[1] for session in sessions) <= letters - done
    assert all(session.result[2] == 0 for session in sessions)
    assert pulse.count() == old + how_many(4_000, 60_000)
    pulse.check()
    read_again(pulse)
    assert pulse.count() == old + how_many(4_000, 60_000)
    pulse.check()


def test_two_replays_never_take_the_same_letter(pulse):
    refuse_old(pulse)
    pulse.produce([event(event_timestamp=hours_ago(2), event_id=None) for _ in range(6_000)])
    pulse.wait_caught_up()
    alter(pulse, reject_older_than=None)
    sessions = [Session(pulse, f"max_letters => {most}") for most in (2_500, 3_000, 6_000)]
    for session in sessions:
        session.join(120)
    assert [session.error for session in sessions] == [None] * 3
    left = replay(pulse)  # skipped while another session looked at them
    results = [session.result for session in sessions] + [left]
    assert sum(result[0] for result in results) == 6_000, results
    assert sum(result[1] + result[2] for result in results) == 0, results
    assert pulse.value("SELECT sum(replayed) FROM pulse.replays") == 6_000
    pulse.check()


def test_a_cancelled_replay_keeps_the_steps_before(pulse):
    refuse_old(pulse)
    pulse.produce([event(event_timestamp=hours_ago(2), event_id=None) for _ in range(2_500)])
    pulse.wait_caught_up()
    alter(pulse, reject_older_than=None)
    pulse.arm("replay_rows", "stop", passes=2)
    session = Session(pulse, "error_code => 'too_old', since => '2000-01-01'")
    pulse.wait_fault()
    progress = "SELECT pid, pipeline, is_dry_run, letters_due, replayed, duplicates, failed, last_step_at > started_at " \
               "FROM pulse.stat_replay"
    assert pulse.query(progress) == [(session.pid, "events", False, 2_500, 1_000, 0, 0, True)]
    pulse.query("SELECT pg_cancel_backend((SELECT pid FROM pulse.stat_replay))")
    os.kill(session.pid, signal.SIGCONT)
    session.join(60)
    assert isinstance(session.error, psycopg.errors.QueryCanceled)
    assert pulse.query(progress) == []
    assert "1000 dead letters" in str(session.error)
    pulse.disarm()
    assert pulse.query(BY_STATUS) == [("new", 1_500), ("replayed", 1_000)]
    pulse.check()
    assert replay(pulse) == (1_500, 0, 0)
    pulse.check()


@pytest.mark.server(pulse__counters="minute,user_day")
def test_an_error_of_the_environment_changes_no_letter(pulse):
    refuse_old(pulse)
    pulse.produce([event(event_timestamp=hours_ago(2)) for _ in range(3)])
    pulse.wait_caught_up()
    alter(pulse, reject_older_than=None)
    before = pulse.query(LETTERS)
    pulse.query("CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
                "$$BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'; END$$")
    pulse.query("CREATE TRIGGER full_disk BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION full_disk()")
    with pytest.raises(psycopg.errors.DiskFull):
        replay(pulse)
    assert pulse.query(LETTERS) == before and pulse.count("pulse.replays") == 0
    pulse.query("DROP TRIGGER full_disk ON raw.events")
    assert replay(pulse) == (3, 0, 0)
    assert pulse.query("SELECT sum(count) FROM live.user_day") == [(3,)]
    pulse.verify()
