"""Retention: whole days go, the ledger says so, and what went is never counted twice."""

from datetime import datetime, timedelta, timezone

import pytest

from harness.pipeline import event
from harness.place import wait_until

DAYS = range(10)


def at_noon(day):
    """Noon UTC, that many days ago; for today a moment ago."""
    now = datetime.now(timezone.utc)
    return (now if day == 0 else (now - timedelta(days=day)).replace(hour=12)).isoformat(timespec="milliseconds")


def date_of(day):
    return at_noon(day)[:10]


def ten_days(pulse, count=20):
    pulse.produce([event(event_timestamp=at_noon(day), event_id=f"{day}-{number}") for day in DAYS for number in range(count)])
    pulse.wait_caught_up()
    assert pulse.count() == len(DAYS) * count


def retain(pulse, what):
    pulse.query(f"SELECT pulse.alter_pipeline('events', '{{\"retention\": \"{what}\"}}')")


def partitions(pulse):
    return pulse.value("SELECT count(*) FROM pg_inherits WHERE inhparent = 'raw.events'::regclass")


def daily(pulse, day):
    return pulse.value("SELECT pulse.daily_count('page_view', %s)", date_of(day))


def test_old_days_go_and_stay_accounted_for(pulse):
    ten_days(pulse)
    retain(pulse, "3d")
    wait_until(lambda: partitions(pulse) == 4, "six days to be dropped", timeout=90)  # three whole days, and the one that is running out
    assert pulse.count() == 80
    assert pulse.value("SELECT sum(expired_rows)::int FROM pulse.offsets") == 120
    assert pulse.value("SELECT retained_from = (%s::date)::timestamp AT TIME ZONE 'UTC' FROM pulse.pipelines", date_of(3))
    pulse.verify()
    assert [daily(pulse, day) for day in DAYS] == [20] * 10, "counters of dropped days stay"

    # Read again, what went is rejected, what is there is a duplicate, and no counter moves.
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    pulse.wait_caught_up()
    assert pulse.count() == 80
    assert pulse.query("SELECT error_code, count(*) FROM raw.dlq GROUP BY 1") == [("too_old", 120)]
    assert "retention" in pulse.value("SELECT error_message FROM raw.dlq LIMIT 1")
    assert [daily(pulse, day) for day in DAYS] == [20] * 10
    pulse.verify()

    # Also when it is raised again: those days are counted already.
    retain(pulse, "0")
    pulse.produce([event(event_timestamp=at_noon(8)), event(event_timestamp=at_noon(1))])
    pulse.wait_caught_up()
    assert pulse.letters("error_code")[-1] == ("too_old",) and daily(pulse, 1) == 21
    pulse.verify()
    pulse.query("SELECT pulse.rebuild_counters('events')")
    assert [daily(pulse, day) for day in DAYS] == [20, 21] + [20] * 8
    pulse.verify()


def test_old_events_are_rejected_where_there_was_never_a_partition(pulse):
    retain(pulse, "2d")
    pulse.wait_for("SELECT retained_from IS NOT NULL FROM pulse.pipelines")
    pulse.produce([event(event_timestamp=at_noon(day)) for day in (0, 1, 5, 9)])
    pulse.wait_caught_up()
    wait_until(lambda: pulse.letters("error_code") == [("too_old",), ("too_old",)], "two letters")
    assert pulse.count() == 2
    pulse.verify()


def test_a_reader_holds_it_up_and_is_not_disturbed(pulse):
    ten_days(pulse)
    with pulse.connect(autocommit=False) as reader:
        assert reader.execute("SELECT count(*) FROM raw.events").fetchone() == (200,)
        retain(pulse, "3d")
        for day in (0, 1, 2):  # the pipeline goes on meanwhile
            pulse.produce([event(event_timestamp=at_noon(day)) for _ in range(50)])
            pulse.wait_caught_up()
        pulse.wait_for("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pulse upkeep')")
        assert reader.execute("SELECT count(*) FROM raw.events").fetchone() == (350,)
        assert partitions(pulse) == 10
    pulse.cluster.configure(pulse__late_after="6min")  # a reload: looked at again at once
    wait_until(lambda: partitions(pulse) == 4, "six days to be dropped", timeout=90)
    assert pulse.count() == 80 + 150
    pulse.verify()


def test_killed_while_it_drops(pulse):
    ten_days(pulse)
    pulse.arm("before_expiry_commits", "kill", passes=2)
    retain(pulse, "3d")
    pulse.wait_fault()
    wait_until(lambda: partitions(pulse) == 4, "the rest to be dropped after the restart", timeout=90)
    assert pulse.value("SELECT sum(expired_rows)::int FROM pulse.offsets") == 120
    assert pulse.count() == 80
    pulse.produce_events(500)
    pulse.wait_caught_up()
    pulse.verify()


@pytest.mark.server(pulse__workers=2, pulse__batch_max_rows=100)
def test_days_are_dropped_under_load_in_every_snapshot(pulse):
    """The ledger fits the table in each snapshot while days go and events come, old ones too. (verify
    says 40001 when the drop came between its snapshot and its lock: wait_until looks again.)"""
    ten_days(pulse, count=200)
    producer = pulse.start_producing(20_000, rate=2_000)
    for keep in (8, 6, 4, 2, 1):
        retain(pulse, f"{keep}d")
        pulse.produce([event(event_timestamp=at_noon(day)) for day in DAYS])
        wait_until(lambda: pulse.verify() or partitions(pulse) <= keep + 1, f"{keep + 1} days to be left", timeout=90)
    assert producer.wait(60) == 0
    pulse.wait_caught_up()
    pulse.verify()
    assert pulse.state() in ("running", "idle")


def test_what_others_arranged_is_left_alone(pulse):
    """A partition with partitions of its own, and a table that several pipelines write."""
    ten_days(pulse)
    pulse.query("SELECT pulse.create_pipeline('second', ARRAY['nothing-there'])")
    retain(pulse, "3d")
    pulse.wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pulse upkeep'")
    pulse.produce([event()])
    pulse.wait_caught_up()
    assert partitions(pulse) == 10
    pulse.query("SELECT pulse.drop_pipeline('second')")
    pulse.cluster.configure(pulse__late_after="6min")
    wait_until(lambda: partitions(pulse) == 4, "six days to be dropped", timeout=90)


def test_settled_letters_go_and_others_stay(pulse):
    pulse.produce([b"{"] * 6 + [event()])
    pulse.wait_caught_up()
    ids = [row[0] for row in pulse.query("SELECT dlq_id FROM raw.dlq ORDER BY dlq_id")]
    pulse.query("SELECT pulse.dlq_discard(%s, 'of the test')", ids[:4])
    pulse.query("UPDATE raw.dlq SET resolved_at = now() - interval '2 days' WHERE dlq_id = ANY (%s)", ids[:3])
    pulse.query("UPDATE raw.dlq SET status = 'parked', first_seen_at = now() - interval '2 days' WHERE dlq_id = %s", ids[4])
    pulse.query("""SELECT pulse.alter_pipeline('events', '{"dlq_retention": "1d"}')""")
    wait_until(lambda: pulse.value("SELECT count(*) FROM raw.dlq") == 3, "three letters to be deleted", timeout=90)
    assert pulse.letters("dlq_id, status") == [(ids[3], "discarded"), (ids[4], "parked"), (ids[5], "new")]
    pulse.verify()
    assert pulse.value("SELECT sum(purged)::int FROM pulse.replays") == 3


@pytest.mark.topic(partitions=1)
def test_the_ledger_of_replays_is_added_up_after_seven_days(pulse):
    pulse.produce([b"{"] * 5)
    pulse.wait_caught_up()
    ids = [row[0] for row in pulse.query("SELECT dlq_id FROM raw.dlq ORDER BY dlq_id")]
    for number, letter in enumerate(ids[:4]):
        pulse.query("SELECT pulse.dlq_replay_as(%s, %s)", letter, event(event_id=str(number)))
    pulse.query("UPDATE pulse.replays SET changed_at = changed_at - interval '8 days' WHERE ctid <> (SELECT max(ctid) FROM pulse.replays)")
    pulse.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pulse coordinator'")
    pulse.wait_for("SELECT array_agg(replayed ORDER BY changed_at) = '{3,1}' FROM pulse.replays")
    pulse.verify()
