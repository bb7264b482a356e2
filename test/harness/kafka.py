"""A Kafka broker of our own: one KRaft node on a loopback port, from the jars on Maven Central."""

import base64
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

from confluent_kafka import (Consumer, ConsumerGroupTopicPartitions, IsolationLevel,
                             KafkaException, Producer, TopicPartition)
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource,
                                   NewPartitions, NewTopic, OffsetSpec)

from . import place
from .place import Process, wait_until

DEFAULT_VERSION = "3.9.1"
CLUSTER_ID = "cHVsc2UtdGVzdC1jbHVzdA"

SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}

# As in production: topics do not appear because somebody mistyped a name.
auto.create.topics.enable=false
delete.topic.enable=true

# One node.
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1

# Small and quick: two cores are shared with the database.
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.backoff.ms=1000
log.retention.check.interval.ms=2000
log.segment.delete.delay.ms=1000
transaction.max.timeout.ms=60000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000

# After kill -9 the controller takes the broker back only when its old session has run out.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

# Of a line that is there twice the last counts.
PROXIED = """\
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{hidden},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
"""

LOGGING = """\
log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n
log4j.logger.kafka.server.KafkaRaftServer=INFO
log4j.logger.org.apache.kafka.clients=ERROR
"""


def version():
    return os.environ.get("KAFKA_VERSION") or DEFAULT_VERSION


class Distribution:
    """The jars of one Kafka version, and a formatted data directory to copy brokers from."""

    def __init__(self, wanted=None, heap="512m"):
        self.version = wanted or version()
        self.heap = heap
        self.directory = place.private() / "kafka" / self.version
        self.libs = self.directory / "libs"

    def fetch(self):
        """Gets the jars unless they are there. Maven keeps its own cache under ~/.m2."""
        if (self.directory / "complete").exists():
            return self
        print(f"== Kafka {self.version} (jars, by Maven)", flush=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        place.server_directory(self.directory)
        place.run("mvn", "--quiet", "--batch-mode", "--no-transfer-progress",
                  "-f", Path(__file__).with_name("kafka-pom.xml"),
                  f"-Dkafka.version={self.version}", "dependency:copy-dependencies",
                  "-DincludeScope=runtime", f"-DoutputDirectory={self.libs}")
        os.chmod(self.libs, 0o755)
        (self.directory / "log4j.properties").write_text(LOGGING)
        self._format()
        (self.directory / "complete").touch()
        return self

    def java(self, *arguments):
        """A java command with the jars on its class path; the first argument is the main class."""
        return ["java", f"-Xmx{self.heap}", "-XX:+UseSerialGC", "-Xshare:auto",
                f"-Dlog4j.configuration=file:{self.directory}/log4j.properties",
                "-cp", f"{self.libs}/*", *[str(argument) for argument in arguments]]

    def _format(self):
        """Formats storage once; every broker starts from a copy, which saves a JVM each time."""
        settings = self.directory / "format.properties"
        settings.write_text(SETTINGS.format(port=1, controller_port=2,
                                            data=self.directory / "formatted"))
        place.run(*self.java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID,
                             "-c", settings), as_server=True)


class Topics:
    """Topics and records of whoever has an address."""

    _admin = None
    _producer = None

    @property
    def admin(self):
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0,
                                       "reconnect.backoff.max.ms": 500})
        return self._admin

    def create_topic(self, name, partitions=3, **settings):
        config = {key.replace("_", "."): str(value) for key, value in settings.items()}
        topic = NewTopic(name, partitions, 1, config=config)
        self.admin.create_topics([topic])[name].result(30)
        wait_until(lambda: self.partitions(name) == partitions, f"topic {name}")
        return name

    def delete_topic(self, name):
        self.admin.delete_topics([name])[name].result(30)
        wait_until(lambda: name not in self.topics(), f"topic {name} to be gone")

    def add_partitions(self, name, total):
        self.admin.create_partitions([NewPartitions(name, total)])[name].result(30)
        wait_until(lambda: self.partitions(name) == total, f"{total} partitions of {name}")
        self._producer = None  # one that knows the topic learns of them minutes later

    def delete_records(self, topic, partition, before):
        """Retention by hand: everything below the offset is gone."""
        wanted = TopicPartition(topic, partition, before)
        for result in self.admin.delete_records([wanted]).values():
            result.result(30)

    def topics(self):
        return set(self.admin.list_topics(timeout=10).topics)

    def partitions(self, topic):
        found = self.admin.list_topics(topic, timeout=10).topics[topic]
        return 0 if found.error else len(found.partitions)

    def _offsets(self, topic, which):
        request = {TopicPartition(topic, partition): which
                   for partition in range(self.partitions(topic))}
        answers = self.admin.list_offsets(request, isolation_level=IsolationLevel.READ_COMMITTED)
        return {where.partition: answer.result(30).offset for where, answer in answers.items()}

    def low_offsets(self, topic):
        return self._offsets(topic, OffsetSpec.earliest())

    def end_offsets(self, topic):
        """Where a read_committed reader ends: the last stable offsets."""
        return self._offsets(topic, OffsetSpec.latest())

    def group_offsets(self, group):
        """What a lag tool would see: (topic, partition) -> committed offset."""
        request = [ConsumerGroupTopicPartitions(group)]
        answer = self.admin.list_consumer_group_offsets(request)[group].result(30)
        return {(p.topic, p.partition): p.offset for p in answer.topic_partitions if p.offset >= 0}

    # --- records

    def producer(self, **settings):
        # Records without a key go to partitions at random, each by itself: not a batch to one.
        config = {"bootstrap.servers": self.address, "log_level": 2, "linger.ms": 5,
                  "sticky.partitioning.linger.ms": 0,
                  "queue.buffering.max.messages": 1000000, "acks": "all"}
        config.update({key.replace("_", "."): value for key, value in settings.items()})
        return Producer(config)

    def consumer(self, **settings):
        config = {"bootstrap.servers": self.address, "log_level": 0, "group.id": "pulse-test-reader",
                  "enable.auto.commit": False, "auto.offset.reset": "earliest",
                  "isolation.level": "read_committed", "fetch.wait.max.ms": 20}
        config.update({key.replace("_", "."): value for key, value in settings.items()})
        return Consumer(config)

    def produce(self, topic, values, *, partition=-1, key=None, headers=None, timestamp=0):
        """Sends values (bytes, str or None for a tombstone), or (key, value) pairs, and waits
        until the broker has them all."""
        if self._producer is None:
            self._producer = self.producer()
        failures = []

        def delivered(error, _message):
            if error is not None:
                failures.append(error)

        for value in values:
            record_key, payload = value if isinstance(value, tuple) else (key, value)
            more = {"headers": headers} if headers else {}
            self._producer.produce(topic, payload, record_key, partition=partition,
                                   timestamp=timestamp, on_delivery=delivered, **more)
            self._producer.poll(0)
        if self._producer.flush(60) or failures:
            raise KafkaException(failures[0] if failures else "not everything was delivered")

    def read_all(self, topic):
        """Every committed record: the truth to compare tables with, as confluent_kafka Messages."""
        return list(self.iterate(topic))

    def iterate(self, topic, timeout=60):
        ends = self.end_offsets(topic)
        deadline = time.monotonic() + timeout
        consumer = self.consumer(enable_partition_eof=True)
        try:
            consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
            waiting = set(ends)
            while waiting:
                messages = consumer.consume(5000, timeout=0.1)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no end of {topic} within {timeout} s")
                for message in messages:
                    if message.error() is None:
                        yield message
                    elif message.error().name() == "_PARTITION_EOF":
                        waiting.discard(message.partition())
                    else:
                        raise KafkaException(message.error())
        finally:
            consumer.close()

    def alter_topic(self, name, **settings):
        entries = [ConfigEntry(key.replace("_", "."), str(value),
                               incremental_operation=AlterConfigOpType.SET)
                   for key, value in settings.items()]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
        self.admin.incremental_alter_configs([resource])[resource].result(30)


class Broker(Topics):
    """One broker. Survives kill9() and comes back on the same port with the same data."""

    def __init__(self, directory, distribution=None, **settings):
        self.directory = Path(directory)
        self.distribution = distribution or Distribution()
        self.settings = settings
        self.data = self.directory / "data"
        self.log = self.directory / "broker.log"
        self._ports = self.directory / "ports"
        self._pid = self.directory / "broker.pid"
        self._popen = None
        self.process = Process.load(self._pid)

    # --- life

    def create(self, behind=None, ports=None, more=""):
        """Lays out a new, empty broker. With behind (a Proxy without target) it has a second
        listener, which tells its clients the proxy's address. ports: its own and its controller's;
        more: further lines of its settings."""
        self.distribution.fetch()
        if self.directory.exists():
            self.destroy()
        place.server_directory(self.directory)
        shutil.copytree(self.distribution.directory / "formatted", self.data)
        for path in [self.data, *self.data.rglob("*")]:
            place.give_to_server(path)
        port, controller_port = ports or (place.free_port(), place.free_port())
        self._ports.write_text(f"{port}\n")
        settings = SETTINGS.format(port=port, controller_port=controller_port, data=self.data)
        if behind is not None:
            behind.target_port = place.free_port()
            settings += PROXIED.format(port=port, controller_port=controller_port,
                                       hidden=behind.target_port, proxy=behind.port)
        settings += more
        for name, value in self.settings.items():
            settings += f"{name.replace('_', '.')}={value}\n"
        (self.directory / "server.properties").write_text(settings)
        self.log.touch()
        place.give_to_server(self.log)
        return self

    def become_node(self, node):
        """Its data directory is that of another node id than 1, and not the one of another node."""
        path = self.data / "meta.properties"
        lines = [line for line in path.read_text().splitlines()
                 if not line.startswith(("node.id=", "directory.id="))]
        directory = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        path.write_text("\n".join([*lines, f"node.id={node}", f"directory.id={directory}"]) + "\n")

    def launch(self):
        """Starts the process and does not wait for it."""
        with open(self.log, "ab") as log:
            self._popen = subprocess.Popen(
                self.distribution.java("kafka.Kafka", self.directory / "server.properties"),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, env=place.environment(),
                **{"cwd": self.directory, **place.popen_options(as_server=True)})
        self.process = Process(self._popen.pid)
        self.process.save(self._pid)
        return self

    def wait_ready(self, timeout=60):
        def ready():
            if self._popen is not None and self._popen.poll() is not None:
                raise AssertionError(f"the broker ended while starting:\n{place.tail(self.log)}")
            return self.admin.list_topics(timeout=1).brokers
        wait_until(ready, f"the broker on port {self.port} ({self.log})", timeout, interval=0.1)
        return self

    def start(self):
        return self.launch().wait_ready()

    def running(self):
        self._reap()
        return self.process is not None and self.process.alive()

    def stop(self, timeout=30):
        """Orderly stop; a broker that takes too long is killed."""
        if self.running():
            self.process.send(signal.SIGCONT)
            self.process.send(signal.SIGTERM)
            try:
                wait_until(lambda: not self.running(), "the broker to stop", timeout)
            except TimeoutError:
                self.kill9()
        self._pid.unlink(missing_ok=True)

    def kill9(self):
        self.process.send(signal.SIGKILL)
        wait_until(lambda: not self.running(), "the broker to be gone")

    def freeze(self):
        self.process.send(signal.SIGSTOP)

    def thaw(self):
        self.process.send(signal.SIGCONT)

    def destroy(self):
        if self.running():
            self.kill9()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _reap(self):
        if self._popen is not None:
            self._popen.poll()

    # --- where it is

    @property
    def port(self):
        return int(self._ports.read_text())

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"
