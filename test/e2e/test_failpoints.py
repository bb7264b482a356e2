"""A fault at each step of the batch, as an error, a lost process, a kill -9 and a standstill: the
offset moves with the rows or not at all, and the result is the same. One server for all of them."""

import re
import signal
import threading
import uuid

import psycopg
import pytest
from harness import place
from harness.load import Auditor, look, records
from harness.pipeline import Pulse, event
from harness.place import Process, wait_until
from harness.postgres import Cluster

POINTS = ("after_poll", "after_begin", "after_fence", "after_half_insert", "after_insert", "after_letters",
          "after_counters", "before_commit", "after_commit", "before_mirror")
ACTIONS = ("error", "fatal", "kill", "stop")


@pytest.fixture(scope="module")
def line(installation, shared_broker):
    topic = shared_broker.create_topic(f"events-{uuid.uuid4().hex[:8]}")
    # Batches of more than one record, so that there is a middle to fail in.
    cluster = Cluster(place.private() / f"e2e-{uuid.uuid4().hex[:8]}", installation,
                      pulse__database="pulse", pulse__brokers=shared_broker.address,
                      pulse__topic=topic, pulse__batch_max_wait="100ms")
    cluster.create().start().create_database()
    cluster.query("CREATE EXTENSION pulse")
    pulse = Pulse(cluster, shared_broker, topic)
    pulse.wait_created()
    pulse.auditor = Auditor(pulse)
    pulse.stream = records(7, bad=0.05, duplicates=0.05)
    pulse.wait_for("SELECT count(*) = 3 FROM pulse.offsets")
    yield pulse
    log = cluster.log_text()
    cluster.destroy()
    assert set(re.findall(r"was terminated by signal (\d+)", log)) <= {"9"}
    assert not re.search("PANIC:|TRAP:", log)


def send(pulse, count):
    pulse.produce([next(pulse.stream)[:2] for _ in range(count)])


def fire(pulse, point, action, count, also=None):
    """Arms, and sends until it fires: a process may have read the setting too late for the first
    batch. Returns how many times it had to send."""
    pulse.arm(point, action)
    sent = 0

    def fired():
        nonlocal sent
        if pulse.fault_fired():
            return True
        try:
            if sent == 0 or pulse.behind() == 0:
                send(pulse, count)
                sent += 1
                if also is not None:
                    also()
        except psycopg.OperationalError:
            return pulse.fault_fired()  # it killed, between the look and the question
        return False
    wait_until(fired, f"{action} at {point}")


def stopped_worker(pulse):
    """The process that the fault stopped."""
    def found():
        for pid in pulse.cluster.backends("pulse worker"):
            if "\nState:\tT" in open(f"/proc/{pid}/status").read():
                return Process(pid)
        return None
    return wait_until(found, "a stopped worker")


def prove(pulse):
    """Catches up, in consistent snapshots all the way, and the audit is clean."""
    with pulse.connect() as connection:
        def done():
            look(connection)
            return pulse.behind() == 0
        wait_until(done, "the pipeline to catch up", 60, 0.05)
    pulse.auditor.read().check()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("point", POINTS)
def test_fault_leaves_each_record_once(line, point, action, how_many):
    before = line.offsets()
    mark = line.cluster.log_mark()
    fire(line, point, action, how_many(60, 5000))
    if action == "stop":
        worker = stopped_worker(line)
        try:
            with line.connect() as connection:
                seen = look(connection)
            # What a stopped transaction has done, nobody sees; what is committed, everybody.
            if point in ("after_commit", "before_mirror"):
                assert seen != before
            else:
                assert line.behind() > 0
        finally:
            worker.send(signal.SIGCONT)
    elif action != "kill":
        wait_until(lambda: f"injected fault at {point}" in line.cluster.log_text(mark), "the fault's report")
    if action == "kill":
        line.cluster.wait_recovered(mark)
    prove(line)
    killed = "was terminated by signal 9" in line.cluster.log_text(mark)
    assert killed == (action == "kill")


@pytest.mark.parametrize("action", ACTIONS)
def test_fault_while_a_worker_leaves_loses_nothing(line, action):
    """A changed definition makes the worker leave between two batches."""
    mark = line.cluster.log_mark()
    fire(line, "before_exit", action, 60,
         lambda: line.query("SELECT pulse.alter_pipeline('events', '{}')"))
    if action == "stop":
        stopped_worker(line).send(signal.SIGCONT)
    if action == "kill":
        line.cluster.wait_recovered(mark)
    prove(line)


def test_seek_given_up_moves_nothing(pulse):
    """Cancelled when the broker has answered already and the coordinator is about to move the offsets."""
    pulse.produce([event() for _ in range(30)])
    pulse.wait_caught_up()
    coordinator, ends = Process(pulse.cluster.backends("pulse coordinator")[0]), pulse.offsets()
    pulse.arm("before_seek", "stop")
    pulse.wait_for("SELECT current_setting('pulse.fault') <> ''")
    outcome = []

    def ask(caller):
        try:
            caller.execute("SELECT pulse.seek('events', 'earliest')")
        except psycopg.errors.QueryCanceled as error:
            outcome.append(error.sqlstate)
    with pulse.connect() as caller:
        asking = threading.Thread(target=ask, args=(caller,))
        asking.start()
        try:
            pulse.wait_fault()
            caller.cancel()
            asking.join(30)
        finally:
            coordinator.send(signal.SIGCONT)
    assert outcome == ["57014"]
    pulse.produce([event()])
    pulse.wait_caught_up()  # the worker is back
    assert pulse.value("SELECT count(*) FROM pulse.offset_log WHERE reason = 'seek'") == 0
    assert sum(pulse.offsets().values()) == sum(ends.values()) + 1
    assert pulse.value("SELECT sum(records) FROM pulse.offsets") == 31
    pulse.check()


@pytest.mark.parametrize("point", ("before_seek", "after_seek"))
@pytest.mark.parametrize("action", ("fatal", "kill"))
def test_seek_interrupted_is_done_whole_or_not_at_all(pulse, point, action):
    auditor, stream = Auditor(pulse), records(8)
    pulse.produce([next(stream)[:2] for _ in range(300)])
    pulse.wait_caught_up()
    ends = pulse.offsets()
    mark = pulse.cluster.log_mark()
    pulse.arm(point, action)
    pulse.wait_for("SELECT current_setting('pulse.fault') <> ''")
    answer = []

    def seek():
        try:
            answer.append(pulse.value("SELECT pulse.seek('events', 'earliest')") is not None)
        except psycopg.Error as error:
            answer.append(error)
    caller = threading.Thread(target=seek)
    caller.start()
    pulse.wait_fault()
    caller.join(30)
    assert answer, "the caller of seek() was left waiting"
    if action == "kill":
        assert isinstance(answer[0], psycopg.OperationalError)
        pulse.cluster.wait_recovered(mark)
    else:
        assert not isinstance(answer[0], Exception), answer[0]
    moved = pulse.value("SELECT count(*) FROM pulse.offset_log WHERE reason = 'seek'")
    assert moved % 3 == 0 and (moved > 0 or (action, point) == ("kill", "before_seek"))
    pulse.wait_caught_up()
    assert pulse.offsets() == ends
    auditor.read().check(seeked=True)
