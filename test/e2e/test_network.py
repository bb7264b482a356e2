"""The link between pulse and its broker breaks, swallows or crawls. Nothing is lost or doubled, nothing
goes to the dead letters for it, nobody has to do anything, and the log stays quiet."""

import re
import time

import pytest
from harness.load import trial
from harness.place import wait_until

pytestmark = pytest.mark.server(pulse__batch_max_rows=500, pulse__workers=2)

RATE = 1000


@pytest.fixture
def pulse(make_pulse, proxied_broker, proxy):
    """The broker behind the proxy; everybody else has a link of his own."""
    pulse = make_pulse(proxied_broker, proxied_broker.create_topic("events"), pulse__brokers=proxy.address)
    assert wait_until(lambda: proxy.accepted, "pulse to come through the proxy")
    return pulse


def lines_about_pulse(pulse, since):
    """What an operator would find in the log: words of pulse, at LOG or above."""
    return [line for line in pulse.cluster.log_text(since).splitlines()
            if re.search(r"(LOG|WARNING|ERROR|FATAL): .*pulse", line) and "statement:" not in line]


def test_cut_connections_lose_and_double_nothing(pulse, proxy, how_many):
    times = how_many(5, 60)
    with trial(pulse, seed=201, rate=RATE) as run:
        for _ in range(times):
            run.progress()
            before, since = proxy.accepted, time.time()
            proxy.reset()
            wait_until(lambda: proxy.accepted > before, "another connection")
            run.resumed(since)


def test_black_hole_is_waited_out(pulse, proxy, how_many):
    """Connections stay open and nothing passes, as behind a firewall that has forgotten them."""
    mark = pulse.cluster.log_mark()
    times = how_many(2, 20)
    with trial(pulse, seed=202, rate=RATE) as run:
        for fault in range(times):
            run.progress()
            proxy.black_hole()
            wait_until(lambda: pulse.behind() > 3 * RATE, "the pipeline to fall behind")
            stood = run.total()
            proxy.clear()
            run.resumed(time.time())
            assert run.total() > stood
    assert len(lines_about_pulse(pulse, mark)) <= 8 * times, "\n".join(lines_about_pulse(pulse, mark))


@pytest.mark.parametrize("rate, latency", [(50_000, 0), (0, 0.5)], ids=["50_kB_a_second", "half_a_second_late"])
def test_slow_link_makes_progress(pulse, proxy, how_many, rate, latency):
    with trial(pulse, seed=203, rate=RATE) as run:
        run.progress()
        proxy.slow(rate, latency)
        for _ in range(how_many(2, 10)):
            run.progress(at_least=200, at_most=500, timeout=150)
        proxy.clear()
        run.resumed(time.time(), timeout=150)
