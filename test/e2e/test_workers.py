"""Several workers, several pipelines, and two owners of one partition."""

import json
import signal
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone

import psycopg
import pytest

from harness.load import trial
from harness.pipeline import event
from harness.place import Process, wait_until

SIX_PARTITIONS = pytest.mark.topic(partitions=6)
PLAIN = "CREATE TABLE public.{} (event_id text PRIMARY KEY, user_id text, kafka_topic text, " \
        "kafka_partition int, kafka_offset bigint)"


def create(pulse, name, topics, target, settings="{}"):
    pulse.query("SELECT pulse.create_pipeline(%s, %s, %s, %s)", name, topics, target, settings)


def owners(pulse):
    """partition -> worker pid, of workers that live"""
    return dict(pulse.query("SELECT p.partition, p.worker_pid FROM pulse.stat_partition p "
                            "JOIN pulse.stat_worker w ON w.pid = p.worker_pid WHERE p.pipeline = 'events'"))


def shares(pulse):
    """How many partitions each worker has, sorted."""
    pids = list(owners(pulse).values())
    return sorted(pids.count(pid) for pid in set(pids))


def wait_shares(pulse, *wanted):
    wait_until(lambda: shares(pulse) == sorted(wanted), f"shares {sorted(wanted)}", 60)


def worker_pids(pulse):
    return pulse.query("SELECT worker, pid FROM pulse.stat_worker WHERE pid IS NOT NULL ORDER BY worker")


def is_stopped(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "T"


# --- several workers ---------------------------------------------------------------------------

@SIX_PARTITIONS
def test_number_of_workers_changes_under_load(pulse, how_many):
    """By reload, up and down: the partitions are spread evenly again each time and all go on."""
    with trial(pulse, seed=11, rate=1500) as run:
        for _ in range(how_many(1, 15)):
            for workers, wanted in ((3, [2, 2, 2]), (5, [1, 1, 1, 1, 2]), (2, [3, 3]), (9, [1] * 6), (1, [6])):
                run.progress()
                changed = time.time()
                pulse.cluster.configure(pulse__workers=workers)
                wait_shares(pulse, *wanted)
                run.resumed(changed)


@SIX_PARTITIONS
@pytest.mark.server(pulse__workers=3, log_lock_waits="on", deadlock_timeout="100ms")
def test_workers_never_wait_for_each_other(pulse, how_many):
    """All events count in the same few counters. A lock waited for longer than deadlock_timeout would be logged."""
    wait_shares(pulse, 2, 2, 2)
    pulse.produce_events(how_many(60_000, 2_000_000))
    pulse.wait_caught_up(timeout=how_many(120, 1200))
    pulse.check()
    assert len(pulse.query("SELECT DISTINCT slot FROM live._events_minute")) == 3
    # Adding pages to a table is PostgreSQL's own lock, held while the disk is slow.
    waits = [line for line in pulse.cluster.log_text().splitlines() if "still waiting for" in line and "on extension of relation" not in line]
    assert waits == []


@SIX_PARTITIONS
@pytest.mark.server(pulse__workers=2)
def test_worker_that_is_terminated_or_killed_is_replaced(pulse, how_many):
    """The other one goes on with its own partitions, or comes back with it."""
    with trial(pulse, seed=12, rate=1000) as run:
        for number in range(how_many(2, 40)):
            run.progress()
            broken = time.time()
            if number % 2:
                pulse.kill9_worker()
            else:
                pulse.terminate_worker()
            run.resumed(broken)
        wait_shares(pulse, 3, 3)


# --- several pipelines -------------------------------------------------------------------------

@pytest.mark.server(max_worker_processes=32)
def test_twenty_pipelines_at_once(pulse, broker, how_many):
    prefix = f"many-{uuid.uuid4().hex[:6]}"
    count = how_many(50, 5000)
    for number in range(20):
        broker.create_topic(f"{prefix}.{number}", 2)
        pulse.query(PLAIN.format(f"t{number}"))
    for number in range(20):
        create(pulse, f"p{number}", [f"{prefix}.{number}"], f"public.t{number}")
    for number in range(20):
        broker.produce(f"{prefix}.{number}", [event(event_id=f"{number}-{n}") for n in range(count)])
    for number in range(20):
        pulse.wait_for(f"SELECT count(*) = {count} FROM public.t{number}", timeout=120)
        assert pulse.value("SELECT count(*) FROM pulse.verify(%s) WHERE NOT ok", f"p{number}") == 0
        assert pulse.value(f"SELECT count(*) FROM public.t{number} WHERE event_id NOT LIKE '{number}-%%'") == 0
    # They come back together, too, and a command of one does not wait for the others.
    pulse.cluster.restart()
    for number in range(20):
        broker.produce(f"{prefix}.{number}", [event(event_id=f"{number}-again")])
    began = time.monotonic()
    pulse.query("SELECT pulse.pause('p7')")
    assert time.monotonic() - began < 20
    for number in range(20):
        if number != 7:
            pulse.wait_for(f"SELECT count(*) = {count + 1} FROM public.t{number}", timeout=120)
    assert pulse.value("SELECT count(*) FROM public.t7") in (count, count + 1)
    for number in range(20):
        broker.delete_topic(f"{prefix}.{number}")


def test_a_topic_that_is_not_there_is_named_while_the_others_are_read(pulse, broker):
    pulse.query(PLAIN.format("half"))
    create(pulse, "half", [pulse.topic, f"{pulse.topic}-missing"], "public.half")
    broker.produce(pulse.topic, [event(event_id="1")])
    pulse.wait_for("SELECT count(*) = 1 FROM public.half")
    pulse.wait_for("SELECT (state, reason) = ('retrying', %s) AND hint LIKE 'Create the topic, or mend the name%%' "
                   "FROM pulse.stat_pipeline WHERE pipeline = 'half'", timeout=90,
                   parameters=(f'topic "{pulse.topic}-missing" does not exist',))
    assert pulse.value("SELECT status FROM pulse.health() WHERE pipeline = 'half'") == "stalled"
    broker.produce(pulse.topic, [event(event_id="2")])
    pulse.wait_for("SELECT count(*) = 2 FROM public.half")
    # What somebody must mend is said before what may mend itself.
    pulse.query("SELECT pulse.pause('half')")
    broker.produce(pulse.topic, [event(event_id="lost")], partition=0)
    broker.delete_records(pulse.topic, 0, broker.end_offsets(pulse.topic)[0])
    pulse.query("SELECT pulse.resume('half')")
    pulse.wait_for("SELECT (status, state) = ('error', 'offset_lost') FROM pulse.health() JOIN pulse.stat_pipeline USING (pipeline) "
                   "WHERE pipeline = 'half'")
    pulse.query("SELECT pulse.accept_gap('half', %s, 0)", pulse.topic)
    pulse.wait_for("SELECT status = 'stalled' FROM pulse.health() WHERE pipeline = 'half'")
    broker.create_topic(f"{pulse.topic}-missing", 1)
    pulse.wait_for("SELECT status = 'ok' FROM pulse.health() WHERE pipeline = 'half'")


@pytest.mark.topic(partitions=1)
def test_new_partitions_that_cannot_begin_are_told(pulse, broker):
    pulse.query(PLAIN.format("matched"))
    create(pulse, "matched", [f"^{pulse.topic}.*$"], "public.matched")
    broker.produce(pulse.topic, [event(event_id="1")])
    pulse.wait_for("SELECT count(*) = 1 FROM public.matched")
    pulse.cluster.configure(pulse__start_position="yesterdya")
    broker.create_topic(f"{pulse.topic}-more", 1)
    broker.produce(f"{pulse.topic}-more", [event(event_id="of the new topic")])
    broker.add_partitions(pulse.topic, 2)
    broker.produce(pulse.topic, [event(event_id="2")], partition=1)
    # A partition of a topic that is known begins at its beginning, whatever the setting says.
    pulse.wait_for("SELECT count(*) = 2 FROM public.matched")
    pulse.wait_for("SELECT status = 'error' AND reason LIKE 'new partitions cannot begin: %%yesterdya%%' FROM pulse.health() WHERE pipeline = 'matched'")
    broker.produce(pulse.topic, [event(event_id="3")], partition=0)
    pulse.wait_for("SELECT count(*) = 3 FROM public.matched")
    pulse.cluster.configure(pulse__start_position="earliest")
    pulse.wait_for("SELECT count(*) = 4 FROM public.matched")
    pulse.wait_for("SELECT status = 'ok' FROM pulse.health() WHERE pipeline = 'matched'")


def test_what_appears_while_running_is_found_within_30_s(pulse, broker):
    """A topic that matches, a topic that is listed, and partitions of a topic already read."""
    prefix = f"found-{uuid.uuid4().hex[:6]}"
    for table in ("listed", "matched"):
        pulse.query(PLAIN.format(table))
    broker.create_topic(f"{prefix}.0", 1)
    create(pulse, "listed", [f"{prefix}.0", f"{prefix}.1"], "public.listed")
    create(pulse, "matched", [f"^{prefix}[.][0-9]$"], "public.matched")
    broker.produce(f"{prefix}.0", [event(event_id="first")])
    for table in ("listed", "matched"):
        pulse.wait_for(f"SELECT count(*) = 1 FROM public.{table}")

    broker.create_topic(f"{prefix}.1", 1)
    broker.add_partitions(f"{prefix}.0", 4)
    # What is in a new partition before pulse has seen it is read, too.
    broker.produce(f"{prefix}.1", [event(event_id="new topic")])
    for partition in range(1, 4):
        broker.produce(f"{prefix}.0", [event(event_id=f"partition {partition}")], partition=partition)
    broker.create_topic(f"{prefix}.x", 1)  # neither listed nor matched
    broker.produce(f"{prefix}.x", [event(event_id="not ours")])
    for table in ("listed", "matched"):
        pulse.wait_for(f"SELECT count(*) = 5 FROM public.{table}", timeout=30)
        assert pulse.value(f"SELECT count(*) FROM public.{table} WHERE event_id = 'not ours'") == 0
    for name in ("listed", "matched"):
        assert pulse.value("SELECT count(*) FROM pulse.verify(%s) WHERE NOT ok", name) == 0
    for name in ("0", "1", "x"):
        broker.delete_topic(f"{prefix}.{name}")


# --- fences ------------------------------------------------------------------------------------

@SIX_PARTITIONS
@pytest.mark.server(pulse__workers=2, pulse__claim_all="on")
def test_two_owners_of_every_partition_commit_each_batch_once(pulse, how_many):
    with trial(pulse, seed=13, rate=800) as run:
        for _ in range(how_many(5, 60)):
            run.progress()
        pulse.wait_for("SELECT count(pid) = 2 FROM pulse.stat_worker")
        assert "was fenced" in pulse.cluster.log_text()
        pulse.cluster.configure(pulse__claim_all="off")
        pulse.terminate_worker()  # both take what is theirs
        for _, pid in worker_pids(pulse):
            pulse.query("SELECT pg_terminate_backend(%s)", pid)
        wait_shares(pulse, 3, 3)


@SIX_PARTITIONS
@pytest.mark.server(pulse__workers=2)
def test_sleeper_whose_partitions_were_handed_over_commits_nothing(pulse):
    """Stopped with a batch in its hands; the operator goes down to one worker; then it wakes up."""
    wait_shares(pulse, 3, 3)
    for seed in range(1, 20):
        pulse.arm("after_poll", "stop")
        pulse.produce_events(200, seed=seed)
        pulse.wait_fault()
        index, sleeper = next(found for found in worker_pids(pulse) if is_stopped(found[1]))
        if index == 1:  # the one that has to go
            break
        Process(sleeper).send(signal.SIGCONT)
        pulse.wait_caught_up()
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"workers\": 1}')")
    pulse.wait_caught_up()
    process = Process(sleeper)
    assert process.alive() and pulse.count() == 200 * seed
    process.send(signal.SIGCONT)
    process.wait_gone()
    pulse.check()


@SIX_PARTITIONS
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("moment", ["idle", "after_poll"])
def test_worker_that_does_not_move_loses_its_partitions(make_pulse, broker, topic, workers, moment):
    """After a minute (here two seconds) others have them, somebody says so, and when it wakes up
    everything is as before."""
    pulse = make_pulse(broker, topic, pulse__workers=workers, pulse__batch_timeout="1s", pulse__stall_after="2s")
    wait_shares(pulse, *[6 // workers] * workers)
    if moment == "after_poll":
        pulse.arm("after_poll", "stop")
        pulse.produce_events(500)
        pulse.wait_fault()
        sleeper = next(pid for _, pid in worker_pids(pulse) if is_stopped(pid))
    else:
        sleeper = worker_pids(pulse)[0][1]
        pulse.cluster.freeze(sleeper)
    try:
        pulse.produce_events(1000, seed=2)
        pulse.wait_caught_up()
        state, reason, hint = pulse.query("SELECT state, reason, hint FROM pulse.stat_pipeline")[0]
        assert state in ("running", "idle")
        assert str(sleeper) in reason and "does not move" in reason and "pg_terminate_backend" in hint
        assert sleeper not in owners(pulse).values()
    finally:
        Process(sleeper).send(signal.SIGCONT)
    pulse.produce_events(500, seed=3)
    wait_shares(pulse, *[6 // workers] * workers)
    pulse.wait_caught_up()
    wait_until(lambda: pulse.reason() is None, "the trouble to be over")
    assert Process(sleeper).alive()
    pulse.check()


def looks_at_the_broker(pulse):
    return pulse.value("SELECT max(watermarks_at) FROM pulse.stat_partition")


def wait_longer_than_a_stall(pulse):
    """The coordinator has had several seconds of its own to find somebody who does not move."""
    began = looks_at_the_broker(pulse)
    wait_until(lambda: (looks_at_the_broker(pulse) - began).total_seconds() > 5, "the coordinator to go round", 60)


@pytest.mark.topic(partitions=1)
@pytest.mark.server(pulse__batch_timeout="1s", pulse__stall_after="2s")
def test_reading_the_table_for_long_is_no_stall(pulse):
    """A worker that looks for the rows of rejected records keeps its partitions, however long that takes: whoever got
    them would begin the same again."""
    old = (datetime.now(timezone.utc) - timedelta(hours=2)).isoformat(timespec="milliseconds")
    pulse.produce([event(event_timestamp=old) for _ in range(20)])
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.alter_pipeline('events', %s)", json.dumps({"reject_older_than": "1h", "max_error_ratio": 1}))
    pulse.arm("during_look_up", "stop")
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    pulse.wait_fault()
    reader = worker_pids(pulse)[0][1]
    try:
        wait_longer_than_a_stall(pulse)
        assert pulse.reason() is None
        assert owners(pulse) == {0: reader} and len(worker_pids(pulse)) == 1
    finally:
        Process(reader).send(signal.SIGCONT)
    pulse.wait_caught_up()
    assert pulse.count() == 20 and pulse.letters() == []
    assert pulse.cluster.log_text().count("read raw.events once") == 1
    pulse.check()


@pytest.mark.topic(partitions=2)
@pytest.mark.parametrize("command, state", [("seek('events', '3')", "running"), ("pause('events')", "paused"),
                                            ("skip('events', current_setting('pulse.topic'), 0, 0)", "running")])
def test_command_given_up_does_not_hold_the_pipeline(make_pulse, broker, topic, command, state):
    """It waits for a worker that does not move, says so, and whoever asked gives up."""
    pulse = make_pulse(broker, topic, pulse__batch_timeout="1s", pulse__stall_after="2s")
    for partition in (0, 1):
        pulse.produce([event() for _ in range(10)], partition=partition)
    pulse.wait_caught_up()
    sleeper = worker_pids(pulse)[0][1]
    outcome = []

    def ask(caller):
        try:
            caller.execute(f"SELECT pulse.{command}")
            outcome.append("done")
        except psycopg.errors.QueryCanceled:
            outcome.append("cancelled")

    with pulse.connect() as caller:
        asking = threading.Thread(target=ask, args=(caller,))
        pulse.cluster.freeze(sleeper)
        try:
            asking.start()
            wait_until(lambda: f"waits for worker process {sleeper}" in (pulse.reason() or ""), "the reason")
            caller.cancel()
            asking.join(30)
            assert outcome == ["cancelled"]
            pulse.produce([event() for _ in range(5)], partition=1)
            if state == "running":
                pulse.wait_caught_up()
                assert pulse.count() == 25
            else:
                pulse.wait_for("SELECT state = 'paused' AND reason IS NULL FROM pulse.stat_pipeline")
                assert pulse.count() == 20
        finally:
            Process(sleeper).send(signal.SIGCONT)
            asking.join(30)
    if state == "paused":
        pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    wait_until(lambda: pulse.reason() is None, "the trouble to be over")
    assert pulse.count() == 25
    pulse.check()
