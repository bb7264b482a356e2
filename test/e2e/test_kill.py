"""Nothing is lost and nothing is doubled, whatever is killed, under load: in each snapshot during the
run and in the whole at its end."""

import time

import pytest
from harness.load import trial
from harness.place import Process, wait_until

pytestmark = pytest.mark.server(pulse__batch_max_rows=500, pulse__workers=2)

RATE = 1500


def deaths(pulse):
    return pulse.cluster.log_text().count("was terminated by signal 9")


def test_kill9_of_a_worker_loses_and_doubles_nothing(pulse, how_many):
    times = how_many(6, 60)
    with trial(pulse, seed=101, rate=RATE) as run:
        for fault in range(times):
            run.progress()
            pulse.kill9_worker()
            run.resumed(time.time())
            assert deaths(pulse) == fault + 1, "the kill did not crash the server"


def test_kill9_of_the_server_loses_and_doubles_nothing(pulse, how_many):
    with trial(pulse, seed=102, rate=RATE) as run:
        for _ in range(how_many(2, 20)):
            run.progress()
            before = pulse.cluster.postmaster().pid
            pulse.crashes_expected = True
            pulse.cluster.kill9()
            since = time.time()
            pulse.cluster.start()
            assert pulse.cluster.postmaster().pid != before
            run.resumed(since)


def test_kill9_of_the_broker_loses_and_doubles_nothing(make_pulse, own_broker, how_many):
    pulse = make_pulse(own_broker, own_broker.create_topic("events"))
    with trial(pulse, seed=103, rate=RATE) as run:
        for _ in range(how_many(2, 20)):
            run.progress()
            before = own_broker.process.pid
            own_broker.kill9()
            own_broker.start()
            assert own_broker.process.pid != before
            run.resumed(time.time())


def test_termination_of_any_process_loses_and_doubles_nothing(pulse, how_many):
    kinds = ["pulse worker", "pulse coordinator", "pulse launcher"]
    with trial(pulse, seed=104, rate=RATE) as run:
        for fault in range(how_many(5, 100)):
            kind = kinds[fault % 3]
            run.progress(at_most=600)
            pid = run.rnd.choice(wait_until(lambda: pulse.cluster.backends(kind), kind))
            process = Process(pid)
            assert pulse.value("SELECT pg_terminate_backend(%s)", pid), f"no {kind} was terminated"
            process.wait_gone()
            since = time.time()
            run.resumed(since)
            wait_until(lambda: len(pulse.cluster.backends(kind)) == (2 if kind == kinds[0] else 1),
                       f"another {kind}")
        # Whatever was terminated when: no doubles.
        assert len(pulse.cluster.backends("pulse worker")) == 2
    assert deaths(pulse) == 0
