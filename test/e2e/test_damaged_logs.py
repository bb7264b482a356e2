"""Logs that are not what they were: a flipped bit on the broker's disk, compaction."""

import pytest
from harness.pipeline import event
from harness.place import wait_until


def send_batch(broker, topic, values, partition=0):
    """All in one record batch."""
    producer = broker.producer(linger_ms=2000, batch_num_messages=len(values))
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(30) == 0


def flip_a_bit(broker, topic, payload, partition=0):
    """In a record of the partition's log, the broker being stopped."""
    path, = (broker.data / f"{topic}-{partition}").glob("*.log")
    data = bytearray(path.read_bytes())
    assert data.count(payload) == 1
    data[data.index(payload)] ^= 1
    path.write_bytes(data)


def partition_state(pulse, partition):
    return pulse.query("SELECT state, coalesce(reason, '') FROM pulse.stat_partition WHERE partition = %s", partition)[0]


def test_a_damaged_batch_stops_its_partition_and_nothing_is_skipped(own_broker, make_pulse):
    topic = own_broker.create_topic("events", 2)
    pulse = make_pulse(own_broker, topic)
    send_batch(own_broker, topic, [event(user_id="before") for _ in range(10)])
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.pause('events')")
    send_batch(own_broker, topic, [event(user_id=f"damaged-{number}") for number in range(10)])
    send_batch(own_broker, topic, [event(user_id="behind") for _ in range(10)])
    own_broker.stop()
    flip_a_bit(own_broker, topic, b"damaged-5")
    own_broker.start()
    pulse.query("SELECT pulse.resume('events')")

    wait_until(lambda: "CRC" in partition_state(pulse, 0)[1], "the partition to say why it does not go on")
    assert partition_state(pulse, 0)[0] == "retrying"
    assert "next offset 10" in partition_state(pulse, 0)[1]
    assert pulse.query("SELECT status FROM pulse.health()") == [("stalled",)]
    send_batch(own_broker, topic, [event(user_id="neighbour") for _ in range(10)], partition=1)
    pulse.wait_for("SELECT count(*) = 10 FROM raw.events WHERE kafka_partition = 1", "its neighbour to go on")
    assert pulse.offsets() == {0: 10, 1: 10}
    assert pulse.value("SELECT count(*) FROM raw.events WHERE user_id ~ 'damaged|behind'") == 0
    assert pulse.count("raw.dlq") == 0

    # The operator decides, and what he passes over is on record.
    pulse.query("SELECT pulse.seek('events', '20', 0)")
    pulse.wait_for("SELECT next_offset = 30 FROM pulse.offsets WHERE partition = 0", "the rest to be read")
    assert pulse.query("SELECT user_id, count(*) FROM raw.events GROUP BY 1 ORDER BY 1") == [
        ("before", 10), ("behind", 10), ("neighbour", 10)]
    assert pulse.query("SELECT partition, from_offset, to_offset FROM pulse.gaps") == [(0, 10, 20)]
    wait_until(lambda: partition_state(pulse, 0) == ("running", ""), "the partition to be well")
    pulse.verify()


def records_of(broker, topic):
    return {message.offset(): message.value() for message in broker.iterate(topic)}


@pytest.mark.topic(partitions=1, cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01,
                   min_compaction_lag_ms=0, max_compaction_lag_ms=500)
def test_a_worker_goes_on_when_the_record_it_read_last_was_compacted_away(pulse):
    topic, broker = pulse.topic, pulse.broker
    pulse.produce([(b"user-%d" % number, event(user_id=f"user-{number}")) for number in range(20)])
    pulse.wait_caught_up()
    last = pulse.offsets()[0] - 1
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce([(b"user-19", event(user_id="again"))])

    def is_compacted():
        pulse.produce([(b"filler", event(user_id="filler"))])  # closes the segment before
        return last not in records_of(broker, topic)
    wait_until(is_compacted, "the cleaner to take away the record that was read last", 60, 0.5)
    broker.alter_topic(topic, min_cleanable_dirty_ratio=1, max_compaction_lag_ms=2**62)
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    left = [offset for offset in records_of(broker, topic) if offset > last]
    found = [offset for offset, in pulse.rows("kafka_offset", f"kafka_offset > {last}")]
    assert left and sorted(set(left) - set(found)) == [], "what is left of the topic is there"
    assert len(found) == len(set(found)) and pulse.value("SELECT count(*) FROM raw.events WHERE kafka_offset <= %s", last) == 20
    pulse.wait_for("SELECT lag = 0 AND state = 'running' FROM pulse.stat_partition")
    assert pulse.count("raw.dlq") == 0 and pulse.count("pulse.gaps") == 0
    assert partition_state(pulse, 0) == ("running", "")
    pulse.verify()
