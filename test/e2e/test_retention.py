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


@pytest.mark.server(pulse__expiry_patience="1ms")  # so that the test sees when it was held up
def test_a_reader_holds_it_up_and_is_not_disturbed(pulse):
    ten_days(pulse)
    with pulse.connect(autocommit=False) as reader:
        assert reader.execute("SELECT count(*) FROM raw.events").fetchone() == (200,)
        retain(pulse, "3d")
        for day in (0, 1, 2):  # the pipeline goes on meanwhile
            pulse.produce([event(event_timestamp=at_noon(day)) for _ in range(50)])
            pulse.wait_caught_up()
        wait_until(lambda: "which is in use" in (trouble(pulse)[0] or ""), "the upkeep to have given up", timeout=120)
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


def trouble(pulse, name="events"):
    return pulse.query("SELECT reason, hint FROM pulse.health() WHERE pipeline = %s", name)[0]


def warnings_of(pulse, statement, *parameters, role="postgres"):
    found = []
    with pulse.connect() as session:
        session.execute(f"SET ROLE {role}")
        session.add_notice_handler(lambda notice: found.append((notice.severity, notice.message_primary, bool(notice.message_hint))))
        session.execute(statement, parameters)
    return found


def test_a_table_that_several_pipelines_write_is_left_alone_and_they_say_so(pulse):
    ten_days(pulse)
    pulse.query("SELECT pulse.create_pipeline('second', ARRAY['nothing-there'])")
    shared = ("WARNING", "retention drops nothing: other pipelines write raw.events, too: second", True)
    assert warnings_of(pulse, """SELECT pulse.alter_pipeline('events', '{"retention": "3d"}')""") == [shared]
    wait_until(lambda: trouble(pulse)[0] == shared[1], "the upkeep to have looked", timeout=90)
    assert partitions(pulse) == 10 and "set retention to 0" in trouble(pulse)[1]
    assert warnings_of(pulse, "SELECT pulse.create_pipeline('third', ARRAY['nothing-there'])") == [
        ("WARNING", 'retention of pipeline "events" drops nothing while pipeline "third" writes raw.events, too', True)]
    pulse.cluster.configure(pulse__retention="4d")
    assert warnings_of(pulse, "SELECT pulse.alter_pipeline('third', '{}')") == [
        ("WARNING", "retention drops nothing: other pipelines write raw.events, too: events, second", True)]
    for name in ("second", "third"):
        pulse.query("SELECT pulse.drop_pipeline(%s)", name)
    pulse.cluster.configure(pulse__late_after="6min")
    wait_until(lambda: partitions(pulse) == 4, "six days to be dropped", timeout=90)
    wait_until(lambda: trouble(pulse) == (None, None), "nothing to be in its way", timeout=90)
    log = pulse.log_since()
    assert log.count('WARNING:  pulse pipeline "events": retention drops nothing: other pipelines write raw.events, too: second') == 1
    assert log.count("nothing is in the way of retention any more") == 1
    assert warnings_of(pulse, "SELECT pulse.alter_pipeline('events', '{}')") == []
    pulse.verify()


def test_a_table_whose_partitions_others_make_is_left_alone_and_it_is_said(pulse):
    pulse.query("CREATE TABLE public.mine (event_id text PRIMARY KEY, event_timestamp timestamptz NOT NULL)")
    assert warnings_of(pulse, """SELECT pulse.create_pipeline('mine', ARRAY['nothing-there'], 'public.mine', '{"retention": "3d"}')""") == [
        ("WARNING", "retention drops nothing: pulse does not make the partitions of public.mine: it is not partitioned", True)]
    assert warnings_of(pulse, """SELECT pulse.alter_pipeline('mine', '{"retention": "0"}')""") == []


def test_partitions_of_a_table_that_is_not_its_owner_s_stay_and_it_says_so(pulse):
    """Who may make pipelines, and insert into a table, may not drop it by them."""
    pulse.query("CREATE ROLE boss; CREATE ROLE app; GRANT CREATE ON SCHEMA public TO boss; "
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pulse TO app; "
                "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pulse TO app")
    with pulse.connect() as session:
        session.execute("SET ROLE boss")
        session.execute("CREATE TABLE public.theirs (event_id text, event_timestamp timestamptz, PRIMARY KEY (event_id, event_timestamp)) "
                        "PARTITION BY RANGE (event_timestamp)")
        session.execute("CREATE TABLE public.long_ago PARTITION OF public.theirs FOR VALUES FROM ('2001-01-01Z') TO ('2001-01-02Z')")
        session.execute("INSERT INTO public.theirs VALUES ('1', '2001-01-01 12:00Z')")
        session.execute("GRANT SELECT, INSERT ON public.theirs TO app")
    stranger = ("WARNING", 'retention drops nothing: public.theirs belongs to "boss", whose rights the pipeline\'s owner "app" has not', True)
    assert warnings_of(pulse, """SELECT pulse.create_pipeline('mine', %s, 'public.theirs', '{"retention": "1min"}')""",
                       [pulse.topic], role="app") == [stranger]
    wait_until(lambda: trouble(pulse, "mine")[0] == stranger[1], "the upkeep to have looked", timeout=90)
    assert pulse.count("public.theirs") == 1 and "a member of that role" in trouble(pulse, "mine")[1]
    # Whoever could drop it himself may.
    pulse.query("GRANT boss TO app")
    pulse.cluster.configure(pulse__late_after="6min")
    pulse.wait_for("SELECT to_regclass('public.long_ago') IS NULL", "the partition to be dropped", timeout=90)
    wait_until(lambda: trouble(pulse, "mine") == (None, None), "nothing to be in its way", timeout=90)


def test_a_partition_with_partitions_of_its_own_stays_with_all_that_are_younger(pulse):
    ten_days(pulse)
    day = f"raw.events_{date_of(8).replace('-', '')}"
    pulse.query(f"ALTER TABLE raw.events DETACH PARTITION {day}")
    pulse.query(f"ALTER TABLE {day} RENAME TO put_away")
    pulse.query(f"CREATE TABLE {day} PARTITION OF raw.events FOR VALUES FROM ('{date_of(8)}Z') TO ('{date_of(7)}Z') PARTITION BY HASH (event_id)")
    retain(pulse, "3d")
    wait_until(lambda: partitions(pulse) == 9, "the ninth day to be dropped", timeout=90)
    wait_until(lambda: trouble(pulse)[0] is not None, "it to be said", timeout=90)
    assert trouble(pulse)[0] == f"retention drops nothing: partition {day.removeprefix('raw.')} is partitioned itself, or foreign"
    assert partitions(pulse) == 9


@pytest.mark.server(pulse__expiry_patience="1ms")
def test_who_holds_it_up_is_told_once_and_that_it_is_over(pulse):
    ten_days(pulse)
    with pulse.connect(autocommit=False) as reader:
        reader.execute("SELECT count(*) FROM raw.events")
        retain(pulse, "3d")
        oldest = f"events_{date_of(9).replace('-', '')}"
        said = f"retention cannot drop partition {oldest}, which is in use; process ids: {reader.info.backend_pid}"
        for look in range(2):
            pulse.cluster.configure(pulse__late_after=f"{6 + look}min")  # a reload: looked at again at once
            wait_until(lambda: trouble(pulse)[0] == said, "the reader to be named", timeout=120)
        assert "pg_terminate_backend" in trouble(pulse)[1]
    pulse.cluster.configure(pulse__late_after="8min")
    wait_until(lambda: partitions(pulse) == 4, "six days to be dropped", timeout=90)
    wait_until(lambda: trouble(pulse) == (None, None), "nothing to be in its way", timeout=90)
    log = pulse.log_since()
    assert log.count(said) == log.count(f'WARNING:  pulse pipeline "events": {said}') == 1 and log.count("nothing is in the way of retention any more") == 1
    pulse.verify()


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
def test_killed_while_letters_go(pulse):
    pulse.produce([b"{"] * 6)
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.dlq_discard(array_agg(dlq_id), 'of the test') FROM raw.dlq WHERE kafka_offset < 4")
    pulse.query("UPDATE raw.dlq SET resolved_at = now() - interval '2 days' WHERE status = 'discarded'")
    pulse.arm("before_letters_expire", "kill")
    pulse.query("""SELECT pulse.alter_pipeline('events', '{"dlq_retention": "1d"}')""")
    pulse.wait_fault()
    pulse.disarm()
    wait_until(lambda: pulse.value("SELECT count(*) FROM raw.dlq") == 2, "four letters to be deleted after the restart", timeout=90)
    assert pulse.value("SELECT sum(purged)::int FROM pulse.replays") == 4
    pulse.verify()


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
