"""A Kafka cluster of our own: three KRaft nodes on loopback ports, small ones. Each is a Broker with
a life of its own; what the cluster holds is asked of all of them."""

from pathlib import Path

from confluent_kafka.admin import NewPartitions, NewTopic

from . import place
from .kafka import Broker, Distribution, Topics
from .place import wait_until

COUNT = 3
HEAP = "256m"

# Of a line that is there twice the last counts.
NODE = """\
node.id={node}
controller.quorum.voters={voters}
offsets.topic.replication.factor={count}
replica.fetch.wait.max.ms=100
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1500
"""


class Brokers(Topics):
    """Nodes have the ids 1 to 3; `brokers[2]` is the Broker with the id 2."""

    def __init__(self, directory, **settings):
        self.nodes = {node: Broker(Path(directory) / f"node{node}", Distribution(heap=HEAP), **settings)
                      for node in range(1, COUNT + 1)}

    def __getitem__(self, node):
        return self.nodes[node]

    @property
    def address(self):
        return ",".join(node.address for node in self.nodes.values())

    def create(self):
        ports = {node: (place.free_port(), place.free_port()) for node in self.nodes}
        voters = ",".join(f"{node}@127.0.0.1:{ports[node][1]}" for node in ports)
        for node, broker in self.nodes.items():
            broker.create(ports=ports[node], more=NODE.format(node=node, voters=voters, count=COUNT))
            broker.become_node(node)
        return self

    def start(self):
        """Those that do not run; they need each other to be ready."""
        for broker in self.nodes.values():
            if not broker.running():
                broker.launch()
        return self.wait_ready()

    def wait_ready(self, nodes=COUNT, timeout=120):
        for broker in self.nodes.values():
            if broker.running():
                wait_until(lambda asked=broker: len(asked.admin.list_topics(timeout=1).brokers) == nodes,
                           f"{nodes} brokers, as {broker.address} sees it ({broker.log})", timeout, 0.2)
        return self

    def destroy(self):
        for broker in self.nodes.values():
            broker.destroy()

    # --- topics whose replicas are where the test wants them

    def place_topic(self, name, replicas, **settings):
        """replicas: of each partition the ids of its brokers, the leader first."""
        config = {key.replace("_", "."): str(value) for key, value in settings.items()}
        topic = NewTopic(name, len(replicas), replica_assignment=replicas, config=config)
        self.admin.create_topics([topic])[name].result(30)
        self._wait_partitions(name, len(replicas))
        wait_until(lambda: all(self.leader(name, partition) == wanted[0]
                               for partition, wanted in enumerate(replicas)), f"leaders of {name}")
        return name

    def place_more(self, name, replicas):
        """Partitions in addition."""
        total = self.partitions(name) + len(replicas)
        self.admin.create_partitions([NewPartitions(name, total, replicas)])[name].result(30)
        self._wait_partitions(name, total)

        def is_known():  # to the producer, whichever node it asks
            self._producer = self.producer()
            return len(self._producer.list_topics(name, timeout=10).topics[name].partitions) == total
        wait_until(is_known, f"{total} partitions of {name} at a producer")

    def _wait_partitions(self, name, count):
        """Until whichever node a client asks knows them."""
        for broker in self.nodes.values():
            if broker.running():
                wait_until(lambda asked=broker: asked.partitions(name) == count,
                           f"{count} partitions of {name} at {broker.address}")

    def _partition(self, topic, partition):
        return self.admin.list_topics(topic, timeout=10).topics[topic].partitions[partition]

    def leader(self, topic, partition):
        """-1: it has none."""
        return self._partition(topic, partition).leader

    def in_sync(self, topic, partition):
        return sorted(self._partition(topic, partition).isrs)
