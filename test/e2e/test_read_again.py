"""Records that are read again after a seek, when what they become has changed meanwhile."""

from datetime import datetime, timedelta, timezone

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
