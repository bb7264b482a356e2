"""A record larger than the client can receive: the only one that stops its partition, with a state, and a way out."""

import socket
import threading

import psycopg
import pytest
from harness.pipeline import event
from harness.place import wait_until

LIMIT = 60_000_000
LARGE = b'{"x": "' + b"a" * 40_000_000 + b'"}'
pytestmark = pytest.mark.topic(partitions=2, max_message_bytes=LIMIT)


def states(pulse):
    return dict(pulse.query("SELECT partition, state FROM pulse.stat_partition"))


def produce_large(pulse, count=1, partition=0):
    producer = pulse.broker.producer(message_max_bytes=LIMIT, queue_buffering_max_kbytes=1_000_000, batch_num_messages=1)
    for _ in range(count):
        producer.produce(pulse.topic, LARGE, partition=partition)
        assert producer.flush(60) == 0


def skip(pulse, offset, partition=0):
    pulse.query("SELECT pulse.skip('events', %s, %s, %s)", pulse.topic, partition, offset)


def refused(pulse, sqlstate, sql, *parameters):
    with pytest.raises(psycopg.Error) as caught:
        pulse.query(sql, *parameters)
    assert caught.value.sqlstate == sqlstate, caught.value
    return str(caught.value)


def test_partition_waits_for_skip_and_the_others_go_on(pulse):
    pulse.produce([event(event_id="before")], partition=0)
    produce_large(pulse, 2)
    pulse.produce([event(event_id="after")], partition=0)
    wait_until(lambda: states(pulse) == {0: "quarantined", 1: "running"}, "the partition to be left out", 60)
    assert pulse.offsets()[0] == 1
    reason, hint = pulse.query("SELECT reason, hint FROM pulse.stat_pipeline WHERE state = 'quarantined'")[0]
    assert f"partition 0 of topic {pulse.topic}: next offset 1: the record is larger" in reason and "pulse.skip" in hint
    wait_until(lambda: "at offset 1" in pulse.cluster.log_text(), "a line in the log")
    pulse.produce([event(event_id=f"e{number}") for number in range(5)], partition=1)
    pulse.wait_for("SELECT count(*) = 6 FROM raw.events", "the other partition")

    assert "is larger" in refused(pulse, "54000", "SELECT * FROM pulse.preview('events', 100)")
    assert "not the next one" in refused(pulse, "55000", "SELECT pulse.skip('events', %s, 0, 2)", pulse.topic)
    assert states(pulse)[0] in ("running", "quarantined") and pulse.offsets()[0] == 1

    for offset in (1, 2):  # equally long: the client says only once in a while that it cannot receive it
        wait_until(lambda: states(pulse)[0] == "quarantined", "the next one", 60)
        assert pulse.offsets()[0] == offset
        skip(pulse, offset)
    pulse.wait_caught_up()
    assert pulse.rows("event_id", "kafka_partition = 0") == [("before",), ("after",)]
    assert pulse.letters("kafka_offset, error_code, value, kafka_key") == [
        (1, "too_large_to_fetch", None, None), (2, "too_large_to_fetch", None, None)]
    wait_until(lambda: set(states(pulse).values()) == {"running"}, "all to go on")
    pulse.check()


def test_one_that_comes_while_records_are_read(pulse):
    """It is found behind what was fetched with it, with nothing lost before and in both partitions."""
    pulse.wait_caught_up()
    for partition in (0, 1):
        pulse.produce([event() for _ in range(2000)], partition=partition)
        produce_large(pulse, 1, partition)
        pulse.produce([event() for _ in range(2000)], partition=partition)
    wait_until(lambda: set(states(pulse).values()) == {"quarantined"}, "both partitions to be left out", 90)
    assert pulse.offsets() == {0: 2000, 1: 2000} and pulse.count("raw.events") == 4000
    pulse.cluster.restart()
    wait_until(lambda: set(states(pulse).values()) == {"quarantined"}, "the restart to find them again", 90)
    skip(pulse, 2000, 0)
    skip(pulse, 2000, 1)
    pulse.wait_caught_up()
    assert pulse.count("raw.events") == 8000 and pulse.letters("error_code") == [("too_large_to_fetch",)] * 2
    pulse.check()


def test_one_that_retention_deletes_is_a_lost_offset(pulse):
    pulse.produce([event(event_id="before")], partition=0)
    produce_large(pulse)
    pulse.produce([event(event_id="after")], partition=0)
    wait_until(lambda: states(pulse)[0] == "quarantined", "the partition to be left out", 60)
    pulse.broker.delete_records(pulse.topic, 0, 2)
    wait_until(lambda: states(pulse)[0] == "offset_lost", "the coordinator to see that it is gone", 60)
    pulse.query("SELECT pulse.accept_gap('events', %s, 0)", pulse.topic)
    pulse.wait_caught_up()
    assert pulse.rows("event_id") == [("before",), ("after",)] and pulse.letters() == []
    assert pulse.query("SELECT from_offset, to_offset FROM pulse.gaps") == [(1, 2)]


class NoBroker:
    """Answers whatever connects with something that is no Kafka."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.answered = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                self.answered += 1

    def close(self):
        self._listener.close()


@pytest.mark.topic(partitions=1)
def test_what_is_no_broker_makes_no_record_too_large(make_pulse, broker, topic):
    other = NoBroker()
    pulse = make_pulse(broker, topic, pulse__brokers=f"{other.address},{broker.address}")
    pulse.produce([event() for _ in range(20)])
    pulse.wait_caught_up()
    for offset in range(20, 26):
        pulse.query("SELECT pulse.pause('events')")
        pulse.produce([event()])
        skip(pulse, offset)
        pulse.query("SELECT pulse.resume('events')")
        pulse.wait_caught_up()
    assert other.answered > 0
    assert pulse.letters("error_code") == [("skipped",)] * 6
    wait_until(lambda: states(pulse) == {0: "running"}, "the partition to go on")
    pulse.check()
    other.close()
