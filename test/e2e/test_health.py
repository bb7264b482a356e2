"""What health(), top and metrics say, and the questions to the live counters."""

from datetime import datetime, timedelta, timezone

import pytest
from psycopg import errors

from harness.pipeline import event
from harness.place import wait_until

ONE_PARTITION = pytest.mark.topic(partitions=1)
SLOW = """
    CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END';
    CREATE TRIGGER slow BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION public.slow()
"""


def health(pulse):
    rows = pulse.query("SELECT status, reason, hint, since FROM pulse.health()")
    assert len(rows) == 1
    return rows[0]


def wait_status(pulse, status, timeout=60):
    wait_until(lambda: health(pulse)[0] == status, f"health {status}", timeout)
    return health(pulse)


def at(hour, minute=0, day=1):
    moment = datetime.now(timezone.utc).replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (moment - timedelta(days=day)).isoformat()


@ONE_PARTITION
def test_health_in_one_word(pulse):
    pulse.produce([event() for _ in range(3)])
    pulse.wait_caught_up()
    assert wait_status(pulse, "ok")[1:3] == (None, None)
    for halt in ("pause", "stop"):
        pulse.query(f"SELECT pulse.{halt}('events')")
        assert health(pulse)[:3] == ("stopped", "paused by an operator" if halt == "pause" else "stopped by an operator",
                                     "It goes on with pulse.resume('events').")
    pulse.query("SELECT pulse.resume('events')")
    wait_status(pulse, "ok")

    with pulse.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE raw.events IN ACCESS EXCLUSIVE MODE")
        pulse.produce([event()])
        _, reason, _, since = wait_status(pulse, "stalled")
        assert "lock" in reason and since is not None
    wait_status(pulse, "ok")

    pulse.query("ALTER TABLE raw.events RENAME COLUMN page_url TO elsewhere")
    pulse.produce([event()])
    _, reason, hint, _ = wait_status(pulse, "error")
    assert "page_url" in reason and hint
    pulse.query("ALTER TABLE raw.events RENAME COLUMN elsewhere TO page_url")
    wait_status(pulse, "ok")
    pulse.wait_caught_up()

    pulse.query("SELECT pulse.pause('events')")
    pulse.produce([event() for _ in range(10)])
    pulse.wait_for("SELECT lag = 10 FROM pulse.stat_pipeline")
    pulse.broker.delete_records(pulse.topic, 0, pulse.broker.end_offsets(pulse.topic)[0])
    pulse.query("SELECT pulse.resume('events')")
    assert wait_status(pulse, "error")[1]
    assert pulse.state() == "offset_lost"
    log = pulse.cluster.log_text()
    assert "WARNING:  pulse pipeline \"events\" worker 0 is failed: " in log
    assert f'WARNING:  pulse pipeline "events": partition 0 of topic "{pulse.topic}" is offset_lost at offset ' in log
    assert "WARNING:  pulse pipeline \"events\" worker 0 is retrying" not in log
    pulse.cluster.configure(pulse__brokers="")
    assert wait_status(pulse, "stopped")[1] == "pulse.brokers is not set"


@ONE_PARTITION
@pytest.mark.server(pulse__batch_max_rows=50)
def test_lagging_is_told_from_catching_up(pulse):
    pulse.produce([event()])
    pulse.wait_caught_up()
    pulse.query(SLOW)  # 100 rows a second at most
    producer = pulse.start_producing(8_000, rate=400)
    try:
        _, reason, hint, since = wait_status(pulse, "lagging")
        assert "records behind" in reason and "workers" in hint
        assert pulse.value("SELECT arrivals_per_second > records_per_second FROM pulse.stat_pipeline")
        assert pulse.value("SELECT abs(extract(epoch FROM now() - %s) - (SELECT lag_seconds FROM pulse.stat_pipeline)) < 20", since)
        pulse.cluster.configure(pulse__max_queue_depth=20)
        assert "limit 20" in wait_status(pulse, "backpressured")[1]
        pulse.cluster.configure(pulse__max_queue_depth=100_000)
    finally:
        producer.kill()
    wait_status(pulse, "catching_up")
    pulse.query("DROP TRIGGER slow ON raw.events")
    wait_status(pulse, "ok")


def test_health_of_a_server_without_pulse(make_cluster):
    cluster = make_cluster(shared_preload_libraries="")
    cluster.query("CREATE EXTENSION pulse")
    cluster.query("SELECT pulse.create_pipeline('events', ARRAY['events'])")
    assert cluster.value("SELECT status FROM pulse.health()") in ("catching_up", "stalled", "stopped")
    assert cluster.query("SELECT count(*) FROM pulse.top") == [(1,)]


def test_top_is_one_screen(pulse):
    pulse.produce([event() for _ in range(50)] + [b"{"])
    pulse.wait_caught_up()
    wait_status(pulse, "ok")
    rows = pulse.query("SELECT item, state, lag, rows, rejects, commit_age FROM pulse.top")
    assert [row[0].split()[0] for row in rows] == ["pipeline", "worker"] + [f"{pulse.topic}/{p}" for p in
                                                                          [row[0].split("/")[1] for row in rows[2:]]]
    assert sorted(row[0].split("/")[1] for row in rows[2:]) == ["0", "1", "2"]
    assert rows[0][2:5] == (0, 50, 1) and 0 <= rows[0][5] < 60
    assert sum(row[3] for row in rows[2:]) == 50
    # A monitor sees it all without a right on the data.
    pulse.query("CREATE ROLE watcher IN ROLE pg_monitor")
    with pulse.connect() as session:
        session.execute("SET ROLE watcher")
        assert len(session.execute("SELECT * FROM pulse.top").fetchall()) == 5
        assert session.execute("SELECT status FROM pulse.health()").fetchone() == ("ok",)
        assert session.execute("SELECT events_accepted, events_rejected, dlq_size, queue_depth FROM "
                               "pulse.metrics('events')").fetchone() == (50, 1, 1, 0)
        assert session.execute("SELECT throughput_per_second >= 0 FROM pulse.metrics('events')").fetchone() == (True,)
        with pytest.raises(errors.UndefinedObject):
            session.execute("SELECT * FROM pulse.metrics('nobody')")
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute("SELECT pulse.daily_count('page_view', current_date)")


# --- counters


@pytest.mark.server(pulse__counters="minute,hour,day,user_day")
def test_questions_to_the_counters(pulse):
    pulse.produce([event(event_timestamp=at(hour, 59), user_id=f"u-{hour % 2}") for hour in (0, 0, 5, 5, 5, 23)]
                  + [event(event_timestamp=at(5), event_type="payment"), event(event_timestamp=at(5, day=2))])
    pulse.wait_caught_up()
    yesterday = at(0)[:10]
    assert pulse.value("SELECT pulse.daily_count('page_view', %s)", yesterday) == 6
    assert pulse.value("SELECT pulse.daily_count('payment', %s)", yesterday) == 1
    assert pulse.value("SELECT pulse.daily_count('nothing', %s)", yesterday) == 0
    assert pulse.query("SELECT hour, count FROM pulse.hourly_counts('page_view', %s)", yesterday) == \
        [(hour, {0: 2, 5: 3, 23: 1}.get(hour, 0)) for hour in range(24)]
    assert pulse.value("SELECT pulse.user_daily_count('u-1', 'page_view', %s)", yesterday) == 4
    with pulse.connect() as session:  # UTC, whatever the session says
        session.execute("SET timezone = 'Pacific/Auckland'")
        assert session.execute("SELECT pulse.daily_count('page_view', %s)", (yesterday,)).fetchone() == (6,)
        assert session.execute("SELECT count FROM pulse.hourly_counts('page_view', %s) WHERE hour = 23",
                               (yesterday,)).fetchone() == (1,)


def counters_are_right(pulse):
    checks = pulse.query("SELECT what, ok FROM pulse.verify('events') WHERE what LIKE 'counters%'")
    assert checks
    return all(ok for _, ok in checks)


def test_counters_are_rebuilt(pulse):
    pulse.produce([event(event_timestamp=at(3, day=day), user_id=f"u-{day}") for day in range(1, 6) for _ in range(10)])
    pulse.wait_caught_up()
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="user_day"):
        pulse.query("SELECT pulse.user_daily_count('u-1', 'page_view', current_date)")
    pulse.query("DELETE FROM raw.events WHERE user_id IN ('u-2', 'u-4')")
    assert not counters_are_right(pulse)
    pulse.query("SELECT pulse.rebuild_counters('events', %s, %s)", at(12, day=2), at(13, day=2))
    assert pulse.value("SELECT pulse.daily_count('page_view', %s)", at(0, day=2)[:10]) == 0
    assert pulse.value("SELECT pulse.daily_count('page_view', %s)", at(0, day=4)[:10]) == 10, "outside the range"
    pulse.query("SELECT pulse.rebuild_counters('events')")
    assert counters_are_right(pulse)

    pulse.query("SELECT pulse.alter_pipeline('events', '{\"counters\": \"minute,hour,day,user_day\"}')")
    pulse.query("SELECT pulse.rebuild_counters('events')")
    assert pulse.value("SELECT pulse.user_daily_count('u-1', 'page_view', %s)", at(0)[:10]) == 10
    assert counters_are_right(pulse)
    with pytest.raises(errors.UndefinedObject):
        pulse.query("SELECT pulse.rebuild_counters('nobody')")
    with pulse.connect(autocommit=False) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="READ COMMITTED"):
            session.execute("SELECT pulse.rebuild_counters('events')")


@pytest.mark.server(pulse__workers=2, pulse__batch_max_rows=200)
def test_counters_are_rebuilt_while_events_flow(pulse, how_many):
    count = how_many(20_000, 400_000)
    producer = pulse.start_producing(count, rate=how_many(4_000, 20_000))
    rebuilt = 0
    while producer.poll() is None or rebuilt < 5:
        pulse.query("SELECT pulse.rebuild_counters('events')")
        pulse.watch_snapshots()
        rebuilt += 1
    pulse.wait_caught_up()
    assert pulse.count() == count
    pulse.check()
