"""Fixtures of the end-to-end tests; test/README.md shows how to use them."""

import re
import uuid

import pytest

from harness import place
from harness.kafka import Broker
from harness.pipeline import Pulse
from harness.postgres import Cluster, Installation
from harness.proxy import Proxy
from harness.session import end_to_end_run

CRASH = re.compile(r"was terminated by signal (\d+)|PANIC:|TRAP:")


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="the long counts")


def pytest_configure(config):
    config.addinivalue_line("markers", "server(**settings): settings of the server; "
                            "pulse__workers=2 is pulse.workers")
    config.addinivalue_line("markers", "topic(partitions=3, **settings): the test's topic")
    config.addinivalue_line("markers", "extension(False): do not create the extension")
    config.addinivalue_line("markers", "soak: runs only in `make soak`")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--soak"):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="only in make soak"))


@pytest.fixture(scope="session")
def how_many(request):
    """how_many(quick, soak): the count for this kind of run."""
    return lambda quick, soak: soak if request.config.getoption("--soak") else quick


@pytest.fixture(scope="session", autouse=True)
def this_run():
    with end_to_end_run():
        yield


@pytest.fixture(scope="session")
def installation():
    return Installation(testing=True).prepare()


@pytest.fixture(scope="session")
def shared_broker():
    broker = Broker(place.private() / f"e2e-broker-{uuid.uuid4().hex[:8]}").create().start()
    yield broker
    broker.destroy()


@pytest.fixture
def broker(shared_broker):
    """The session's broker, running, whatever the test before did to it."""
    if not shared_broker.running():
        shared_broker.start()
    shared_broker.thaw()
    yield shared_broker
    shared_broker.thaw()


@pytest.fixture
def own_broker():
    """A broker for one test, for what would disturb others: kills, recreated ids."""
    broker = Broker(place.private() / f"e2e-broker-{uuid.uuid4().hex[:8]}").create().start()
    yield broker
    broker.destroy()


@pytest.fixture
def proxy():
    """A TCP proxy, an ordinary link until a test says otherwise."""
    proxy = Proxy()
    yield proxy
    proxy.close()


@pytest.fixture
def proxied_broker(proxy):
    """A broker for one test; pulse should reach it at proxy.address."""
    broker = Broker(place.private() / f"e2e-broker-{uuid.uuid4().hex[:8]}").create(behind=proxy).start()
    yield broker
    broker.thaw()
    broker.destroy()


@pytest.fixture
def topic(request, broker):
    """A new topic, with three partitions unless the test is marked otherwise."""
    marker = request.node.get_closest_marker("topic")
    settings = dict(marker.kwargs) if marker else {}
    name = f"events-{uuid.uuid4().hex[:8]}"
    yield broker.create_topic(name, settings.pop("partitions", 3), **settings)


@pytest.fixture
def make_cluster(request, installation):
    """make_cluster(**settings): a running server with the database `pulse`, no extension. Any
    number of them; they are gone after the test."""
    made = []

    def make(**settings):
        directory = place.private() / f"e2e-{uuid.uuid4().hex[:8]}"
        cluster = Cluster(directory, installation, **settings)
        made.append(cluster)
        cluster.create().start().create_database()
        return cluster

    yield make
    for cluster in made:
        if getattr(request.node, "failed", False):
            keep(request.node.name, cluster.log)
        cluster.destroy()


@pytest.fixture
def cluster(request, make_cluster):
    """A server of the test's own, with pulse preloaded and no broker named."""
    cluster = make_cluster(pulse__database="pulse", **server_settings(request))
    if wants_extension(request):
        cluster.query("CREATE EXTENSION pulse")
    return cluster


@pytest.fixture
def make_pulse(request, make_cluster):
    """make_pulse(broker, topic, **settings): a Pulse whose pipeline exists and runs."""
    made = []

    def make(broker, topic, **settings):
        cluster = make_cluster(**{"pulse__database": "pulse", "pulse__brokers": broker.address,
                                  "pulse__topic": topic, **server_settings(request), **settings})
        made.append(Pulse(cluster, broker, topic))
        if wants_extension(request):
            cluster.query("CREATE EXTENSION pulse")
            made[-1].wait_created()
        return made[-1]

    yield make
    for pulse in made:
        no_crash(request, pulse)


@pytest.fixture
def pulse(request, make_pulse, broker, topic):
    """The usual one: the session's broker, a topic and a server of the test's own, and the pipeline
    events -> raw.events between them, running."""
    pulse = make_pulse(broker, topic)
    if wants_extension(request):
        pulse.worker_pid()  # once it is seen it misses no reload
    return pulse


def server_settings(request):
    settings = {"pulse__dlq_topic": ""}  # the default one is not there
    for marker in reversed(list(request.node.iter_markers("server"))):
        settings.update(marker.kwargs)
    return settings


def wants_extension(request):
    marker = request.node.get_closest_marker("extension")
    return marker is None or marker.args[0]


def no_crash(request, pulse):
    """Nothing but a kill -9 of the test's own may have ended a server process."""
    expected = ["9"] if pulse.crashes_expected else []
    expected += ["6", None] if pulse.aborts_expected else []  # None: a PANIC
    for found in CRASH.finditer(pulse.cluster.log_text()):
        if found.group(1) in expected:
            continue
        request.node.failed = True
        pytest.fail(f"the server crashed: {found.group(0)}\n{place.tail(pulse.cluster.log, 60)}")


def keep(name, log):
    """Logs of failed tests stay in build/e2e."""
    directory = place.BUILD / "e2e"
    directory.mkdir(exist_ok=True)
    safe = re.sub(r"[^\w.-]+", "_", name)
    (directory / f"{safe}-{log.parent.name}.log").write_text(log.read_text(errors="replace"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the ends of its server's and its broker's logs."""
    report = yield
    if report.failed:
        item.failed = True
        logs = {}
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Pulse):
                logs[value.cluster.log] = 60
            elif isinstance(value, Cluster):
                logs[value.log] = 60
            elif isinstance(value, Broker):
                logs[value.log] = 15
        for log, lines in logs.items():
            if log.exists():
                report.sections.append((log.name, place.tail(log, lines)))
    return report
