"""Records that are read again after a seek, when what they become has changed meanwhile."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from harness.pipeline import event


def hours_ago(hours):
    return (datetime.now(timezone.utc) - timedelta(hours=hours)).isoformat(timespec="milliseconds")


def read_again(pulse):
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    assert pulse.value("SELECT pulse.wait_until_caught_up('events', '30 s')")


def test_a_row_whose_record_is_rejected_now_stays_one_row(pulse):
    pulse.produce([event(user_id=f"user-{number}", event_timestamp=hours_ago(2)) for number in range(30)])
    pulse.wait_caught_up()
    assert pulse.count() == 30
    pulse.query("""SELECT pulse.alter_pipeline('events', '{"reject_older_than": "1h", "max_error_ratio": 1}')""")
    read_again(pulse)
    assert pulse.count() == 30
    assert pulse.letters() == []
    assert pulse.value("SELECT sum(duplicates) FROM pulse.offsets") == 30
    assert [row for row in pulse.query("SELECT * FROM pulse.verify('events')") if not row[-1]] == []


def test_a_letter_whose_record_is_accepted_now_becomes_a_row_and_is_resolved(pulse):
    pulse.query("""SELECT pulse.alter_pipeline('events', '{"reject_older_than": "1h", "max_error_ratio": 1}')""")
    pulse.produce([event(user_id="late", event_timestamp=hours_ago(2)), event(user_id="fresh")])
    pulse.wait_caught_up()
    assert pulse.letters("error_code, status") == [("too_old", "new")]
    pulse.query("""SELECT pulse.alter_pipeline('events', '{"reject_older_than": null}')""")
    read_again(pulse)
    assert sorted(pulse.rows("user_id")) == [("fresh",), ("late",)]
    assert pulse.letters("error_code, status, resolved_at IS NOT NULL") == [("too_old", "replayed", True)]
    assert [row for row in pulse.query("SELECT * FROM pulse.verify('events')") if not row[-1]] == []


def reject_what_is_old(pulse, **settings):
    pulse.query("SELECT pulse.alter_pipeline('events', %s)",
                json.dumps({"reject_older_than": "1h", "max_error_ratio": 1, **settings}))


@pytest.mark.topic(partitions=1)
def test_rows_of_rejected_records_are_looked_for_once_not_with_every_batch(pulse):
    pulse.produce([event(event_timestamp=hours_ago(2)) for _ in range(200)])
    pulse.wait_caught_up()
    scans = "SELECT sum(seq_scan)::int FROM pg_stat_user_tables WHERE schemaname = 'raw' AND relname LIKE 'events_%%'"
    pulse.query("SELECT pulse.pause('events')")
    reject_what_is_old(pulse, batch_max_rows=5)
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    before, _ = pulse.value(scans), pulse.log_since()
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.pause('events')")  # a worker that leaves has reported its statistics
    days = pulse.value("SELECT count(*)::int FROM pg_inherits WHERE inhparent = 'raw.events'::regclass")
    assert pulse.log_since().count("to find the rows of records that are rejected now") == 1
    assert pulse.value(scans) - before == days  # of forty batches
    assert pulse.count() == 200 and pulse.letters() == []
    assert [row for row in pulse.query("SELECT * FROM pulse.verify('events')") if not row[-1]] == []


def test_a_letter_that_was_deleted_comes_back_when_its_record_is_read_again(pulse):
    """Neither a row nor a letter is there: read again and rejected again, it is a letter again."""
    pulse.produce([event(event_timestamp=hours_ago(2)) for _ in range(10)] + [b"not json"] * 5)
    pulse.wait_caught_up()
    pulse.query("DELETE FROM raw.dlq")
    reject_what_is_old(pulse)
    read_again(pulse)
    assert pulse.count() == 10
    assert pulse.letters("error_code") == [("syntax",)] * 5


@pytest.mark.topic(partitions=1)
def test_rows_are_looked_for_with_the_rights_of_the_writer(pulse):
    pulse.query("CREATE ROLE writer NOLOGIN")
    pulse.query("GRANT USAGE ON SCHEMA raw TO writer")
    pulse.query("GRANT INSERT, SELECT (event_id, event_timestamp) ON raw.events TO writer")
    pulse.produce([event(event_timestamp=hours_ago(2))])
    pulse.wait_caught_up()
    reject_what_is_old(pulse, role="writer")
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    pulse.wait_state("failed")
    assert "permission denied" in pulse.reason()
    pulse.query("GRANT SELECT ON raw.events TO writer")
    pulse.wait_caught_up()
    assert pulse.count() == 1 and pulse.letters() == []
