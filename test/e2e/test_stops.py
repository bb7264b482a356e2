"""Stopping the server, whatever the broker does meanwhile: quickly, and nobody dies of a signal."""

import signal
import time

import pytest
from harness.load import trial
from harness.place import Process, children, wait_until

pytestmark = pytest.mark.server(pulse__batch_max_rows=500, pulse__workers=2)

RATE = 1000


def test_fast_stop_whatever_the_broker_does(make_pulse, proxied_broker, proxy, how_many):
    pulse = make_pulse(proxied_broker, proxied_broker.create_topic("events"), pulse__brokers=proxy.address)
    took = {"up": [], "frozen": [], "black hole": []}
    with trial(pulse, seed=301, rate=RATE) as run:
        for stop in range(how_many(6, 201)):
            run.progress(at_most=600)
            how = list(took)[stop % 3]
            if how == "frozen":
                proxied_broker.freeze()
            elif how == "black hole":
                proxy.black_hole()
            began = time.monotonic()
            pulse.cluster.stop("fast")
            took[how].append(time.monotonic() - began)
            proxied_broker.thaw()
            proxy.clear()
            pulse.cluster.start()
            run.resumed(time.time())
    every = sorted(sum(took.values(), []))
    print(f"\n   fast stops: median {every[len(every) // 2]:.2f} s, longest "
          + ", ".join(f"{how} {max(times):.2f} s" for how, times in took.items()))
    assert every[len(every) * 99 // 100 - 1] < 2
    assert every[-1] < 5
    assert "terminated by signal" not in pulse.cluster.log_text()


def test_cancelled_statements_and_reloads_are_harmless(pulse, how_many):
    with trial(pulse, seed=302, rate=RATE) as run:
        wait_until(lambda: len(pulse.cluster.backends()) == 2, "two workers")
        workers = pulse.cluster.backends()
        for _ in range(how_many(10, 300)):
            run.progress(at_most=300)
            for pid in workers:
                pulse.query("SELECT pg_cancel_backend(%s)", pid)
            pulse.query("SELECT pg_reload_conf()")
        assert pulse.cluster.backends() == workers, "somebody ended"


@pytest.mark.parametrize("kind", ["pulse worker", "pulse coordinator", "pulse launcher"])
def test_a_process_that_hangs_does_not_outlive_the_server(pulse, kind):
    """SIGSTOP, and the postmaster is killed: the process ends as soon as it can."""
    pulse.produce_events(1000)
    pulse.wait_caught_up()
    process = Process(pulse.cluster.backends(kind)[0])
    process.send(signal.SIGSTOP)
    pulse.crashes_expected = True
    postmaster = pulse.cluster.postmaster()
    family = [Process(pid) for pid in children(postmaster.pid)]
    assert process.pid in [member.pid for member in family]
    postmaster.send(signal.SIGKILL)
    process.send(signal.SIGCONT)
    for member in family:
        member.wait_gone()
    pulse.cluster.start()
    pulse.produce_events(1000, seed=2)
    pulse.wait_caught_up()
    pulse.check()
