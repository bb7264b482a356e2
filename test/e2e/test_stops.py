"""Stopping the server, whatever the broker does meanwhile: quickly, and nobody dies of a signal."""

import signal
import time
import uuid

import pytest
from harness import place
from harness.load import trial
from harness.place import Process, children, wait_until
from harness.secure import SecureBroker

pytestmark = pytest.mark.server(pulse__batch_max_rows=500, pulse__workers=2)

RATE = 1000


def stop_again_and_again(pulse, broker, proxy, count):
    took = {"up": [], "frozen": [], "black hole": []}
    with trial(pulse, seed=301, rate=RATE) as run:
        for stop in range(count):
            run.progress(at_most=600)
            how = list(took)[stop % 3]
            if how == "frozen":
                broker.freeze()
            elif how == "black hole":
                proxy.black_hole()
            began = time.monotonic()
            pulse.cluster.stop("fast")
            took[how].append(time.monotonic() - began)
            broker.thaw()
            proxy.clear()
            pulse.cluster.start()
            run.resumed(time.time())
    every = sorted(sum(took.values(), []))
    print(f"\n   fast stops: median {every[len(every) // 2]:.2f} s, longest "
          + ", ".join(f"{how} {max(times):.2f} s" for how, times in took.items()))
    assert every[len(every) * 99 // 100 - 1] < 2
    assert every[-1] < 5
    assert "terminated by signal" not in pulse.cluster.log_text()


def test_fast_stop_whatever_the_broker_does(make_pulse, proxied_broker, proxy, how_many):
    pulse = make_pulse(proxied_broker, proxied_broker.create_topic("events"), pulse__brokers=proxy.address)
    stop_again_and_again(pulse, proxied_broker, proxy, how_many(6, 201))


def test_fast_stop_of_connections_with_tls_and_a_password(make_pulse, proxy, how_many):
    directory = place.private() / f"e2e-broker-{uuid.uuid4().hex[:8]}"
    broker = SecureBroker(directory).create(behind=proxy).start()
    try:
        secrets = broker.write_secrets(directory / "secrets")
        pulse = make_pulse(broker, broker.create_topic("events"), pulse__secrets_file=secrets, **broker.server_settings())
        stop_again_and_again(pulse, broker, proxy, how_many(6, 201))
    finally:
        broker.thaw()
        broker.destroy()


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
