"""A topic that was deleted and made again: the same name, another log. Its records are not the old ones."""

import pytest
from harness.pipeline import event

ONE_PARTITION = pytest.mark.topic(partitions=1)


def make_again(pulse, partitions=1):
    pulse.broker.delete_topic(pulse.topic)
    pulse.broker.create_topic(pulse.topic, partitions)


def read_again(pulse):
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    pulse.wait_caught_up()


def ids(pulse):
    return sorted(event_id for event_id, in pulse.rows("event_id"))


LETTERS = "topic_epoch, kafka_offset, value, status"


@ONE_PARTITION
@pytest.mark.parametrize("refilled", [False, True], ids=["smaller", "larger"])
def test_seek_into_a_recreated_topic_keeps_old_and_new_apart(pulse, refilled):
    """Rejects at the offsets of old letters are letters of their own; a row where a letter was resolves nothing; an
    event without a key does not collide with the one at its offset in the old log."""
    pulse.produce([b"old 0", event(event_id=None), b"old 2", b"old 3"])
    pulse.wait_caught_up()
    old_id = f"{pulse.topic}-0-1"
    assert ids(pulse) == [old_id]

    make_again(pulse)
    fresh = [b"new 0", event(event_id=None), event(event_id="new 2")]
    fresh += [event(event_id=f"more {number}") for number in range(3)] if refilled else []
    pulse.produce(fresh)
    read_again(pulse)

    assert pulse.value("SELECT topic_epoch FROM pulse.offsets") == 1
    assert sorted(pulse.query(f"SELECT {LETTERS} FROM raw.dlq")) == [
        (0, 0, b"old 0", "new"), (0, 2, b"old 2", "new"), (0, 3, b"old 3", "new"), (1, 0, b"new 0", "new")]
    more = [f"more {number}" for number in range(3)] if refilled else []
    assert ids(pulse) == sorted([old_id, f"{pulse.topic}.1-0-1", "new 2", *more])
    assert pulse.query("SELECT records, rows, rejects, duplicates FROM pulse.offsets") == [
        (4 + len(fresh), 1 + len(fresh) - 1, 3 + 1, 0)]
    assert "recreated" in pulse.value("SELECT reason FROM pulse.offset_log ORDER BY changed_at DESC LIMIT 1")
    pulse.verify()

    read_again(pulse)  # the same log now: nothing new
    assert pulse.value("SELECT topic_epoch FROM pulse.offsets") == 1
    assert pulse.count("raw.dlq") == 4 and pulse.count() == 3 + len(more)
    pulse.verify()


@ONE_PARTITION
def test_seek_within_the_same_log_keeps_its_epoch(pulse):
    pulse.produce([b"bad", event(event_id=None), event()])
    pulse.wait_caught_up()
    for position in ("earliest", "1", "latest", "earliest"):
        pulse.query("SELECT pulse.seek('events', %s)", position)
        pulse.wait_caught_up()
    pulse.broker.delete_records(pulse.topic, 0, 3)  # the record last written is gone; the log is the same
    read_again(pulse)
    assert pulse.value("SELECT topic_epoch FROM pulse.offsets") == 0
    assert (pulse.count(), pulse.count("raw.dlq")) == (2, 1)
    pulse.verify()


@ONE_PARTITION
@pytest.mark.parametrize("keep", ["", "ALTER TABLE raw.events ADD topic_epoch int", "ALTER TABLE raw.events DROP kafka_timestamp"],
                         ids=["timestamp", "epoch", "neither"])
def test_rejects_at_offsets_of_old_rows_stay_letters(pulse, keep):
    """Rows of the old log say nothing about records of the new one, whatever was read of it before."""
    if keep:
        pulse.query("SELECT pulse.pause('events')")
        pulse.query(keep)
        pulse.query("SELECT pulse.alter_pipeline('events', '{}')")
        pulse.query("SELECT pulse.resume('events')")
    pulse.produce([event() for _ in range(10)])
    pulse.wait_caught_up()
    make_again(pulse)
    pulse.produce([event() for _ in range(5)] + [b"garbage %d" % number for number in range(5)])
    pulse.query("SELECT pulse.seek('events', 'latest')")
    read_again(pulse)
    assert pulse.value("SELECT topic_epoch FROM pulse.offsets") == 1
    assert pulse.count() == 15
    assert pulse.letters("kafka_offset, value") == [(offset, b"garbage %d" % (offset - 5)) for offset in range(5, 10)]
    pulse.verify()
    # Read again they are neither twice there nor gone; nor are they when somebody deleted them.
    read_again(pulse)
    pulse.query("DELETE FROM raw.dlq")
    read_again(pulse)
    assert pulse.count() == 15 and pulse.count("raw.dlq") == 5


@ONE_PARTITION
@pytest.mark.parametrize("keep", ["ingested_at", "kafka_timestamp"], ids=["timestamp", "neither"])
def test_skip_of_a_record_at_the_offset_of_an_old_row_makes_a_letter(pulse, keep):
    if keep == "kafka_timestamp":
        pulse.query("SELECT pulse.pause('events')")
        pulse.query("ALTER TABLE raw.events DROP kafka_timestamp")
        pulse.query("SELECT pulse.alter_pipeline('events', '{}')")
        pulse.query("SELECT pulse.resume('events')")
    pulse.produce([event() for _ in range(3)])
    pulse.wait_caught_up()
    make_again(pulse)
    pulse.produce([event(event_id=f"new {number}") for number in range(4)])
    read_again(pulse)
    pulse.query("SELECT pulse.pause('events')")
    pulse.query("DELETE FROM raw.events WHERE event_id = 'new 1'")
    pulse.query("SELECT pulse.seek('events', '1')")
    pulse.query("SELECT pulse.skip('events', %s, 0, 1)", pulse.topic)
    assert pulse.letters("kafka_offset, error_code") == [(1, "skipped")]
    if keep != "kafka_timestamp":  # by its timestamp a row of the new log is known
        pulse.query("SELECT pulse.skip('events', %s, 0, 2)", pulse.topic)
        assert pulse.letters("kafka_offset, error_code") == [(1, "skipped")]
