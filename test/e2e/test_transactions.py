"""Transactional producers: only what they committed is read, and control records are no lag."""

import uuid

from confluent_kafka import TopicPartition
from harness.load import Auditor, records
from harness.pipeline import event
from harness.place import wait_until


def transactional(pulse):
    producer = pulse.broker.producer(transactional_id=f"pulse-test-{uuid.uuid4().hex[:8]}",
                                     enable_idempotence=True)
    producer.init_transactions(30)
    return producer


def send(pulse, producer, stream, count):
    producer.begin_transaction()
    for _ in range(count):
        key, value, _ = next(stream)
        producer.produce(pulse.topic, value, key)
    producer.flush(30)


def settled(pulse):
    """Waits for the markers: a commit or abort returns before they are in every partition."""
    reader = pulse.broker.consumer(isolation_level="read_uncommitted")
    try:
        def is_stable():
            stable = pulse.broker.end_offsets(pulse.topic)
            return stable == {partition: reader.get_watermark_offsets(
                TopicPartition(pulse.topic, partition), timeout=10)[1] for partition in stable}
        wait_until(is_stable, "the last stable offset to reach the end")
    finally:
        reader.close()


def test_only_committed_records_arrive_and_lag_reaches_zero(pulse, how_many):
    auditor, stream = Auditor(pulse), records(21)
    producer = transactional(pulse)
    sent = 0
    for round in range(how_many(30, 500)):
        send(pulse, producer, stream, 40)
        if round % 3 == 1:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
            sent += 40
    # The last one ends in an abort: behind the last record there are only control records.
    send(pulse, producer, stream, 10)
    producer.abort_transaction(30)
    settled(pulse)
    pulse.wait_caught_up()
    assert sum(pulse.offsets().values()) > sent, "no control records: nothing was tested"
    pulse.wait_for("SELECT lag = 0 FROM pulse.stat_pipeline")
    assert pulse.value("SELECT pulse.wait_until_caught_up('events')")
    assert auditor.read().check()["records"] == sent
    assert pulse.value("SELECT sum(records) FROM pulse.offsets") == sent


def test_open_transaction_is_waited_for_and_not_skipped(pulse):
    auditor, stream = Auditor(pulse), records(22)
    producer = transactional(pulse)
    send(pulse, producer, stream, 50)
    later = [event() for _ in range(20)]
    pulse.produce(later, partition=0)
    pulse.produce([event()], partition=1)
    pulse.produce([event()], partition=2)
    # Up to the last stable offset, which is before the open transaction's first record.
    assert pulse.value("SELECT pulse.wait_until_caught_up('events', '5 seconds')")
    assert pulse.count() == 0
    assert auditor.read().check()["records"] == 0
    producer.commit_transaction(30)
    settled(pulse)
    pulse.wait_caught_up()
    assert auditor.read().check()["records"] == 72


def test_seek_into_an_aborted_transaction_reads_what_is_committed_behind_it(pulse):
    auditor, stream = Auditor(pulse), records(23)
    producer = transactional(pulse)
    send(pulse, producer, stream, 60)
    producer.abort_transaction(30)
    send(pulse, producer, stream, 60)
    producer.commit_transaction(30)
    settled(pulse)
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.seek('events', '5')")
    pulse.wait_for("SELECT sum(records) = 120 FROM pulse.offsets")
    pulse.wait_caught_up()
    assert auditor.read().check(seeked=True)["records"] == 60
