"""A deploy that breaks every message stops the pipeline instead of filling raw.dlq."""

import psycopg
import pytest

from harness.events import SPOILERS, stream
from harness.pipeline import event

ONE_PARTITION = pytest.mark.topic(partitions=1)
# A batch waits until everything is there; otherwise it takes whatever has arrived, and with fewer
# than error_ratio_min_records seen nothing stops.
# Long enough for all of a test's records to be read, also on a busy machine.
ONE_BATCH = pytest.mark.server(pulse__batch_max_wait="2s")


def broken(count):
    return [event(event_id=f"b-{number}", event_timestamp="yesterday") for number in range(count)]


def produce_while_paused(pulse, values):
    """So that the next batch holds them all, up to its limit."""
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(values)
    pulse.query("SELECT pulse.resume('events')")


def check_stopped(pulse, next_offset, letters):
    """Stopped with a reason that helps, nothing of the batch written, and it stays so."""
    pulse.wait_state("stopped")
    reason, hint = pulse.query("SELECT reason, hint FROM pulse.stat_pipeline")[0]
    assert "50 %" in reason and "time" in reason and "yesterday" in reason
    assert "pulse.resume('events')" in hint
    pulse.wait_for("SELECT NOT EXISTS (SELECT FROM pulse.stat_worker WHERE pid IS NOT NULL)")
    assert pulse.offsets() == {0: next_offset}
    assert pulse.count("raw.dlq") == letters
    assert pulse.value("SELECT desired_state FROM pulse.pipelines") == "stopped"


@ONE_PARTITION
@ONE_BATCH
def test_broken_deploy_stops_within_a_batch_and_resumes_after_the_fix(pulse):
    pulse.produce([event() for _ in range(500)])
    pulse.wait_caught_up()
    produce_while_paused(pulse, broken(5000))
    check_stopped(pulse, 500, 0)

    # Not mended: it stops again, and still nothing is written.
    pulse.query("SELECT pulse.resume('events')")
    check_stopped(pulse, 500, 0)

    # Mended (here: the column takes any text now).
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"max_error_ratio\": 1}')")
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert pulse.count("raw.dlq") == 5000 and pulse.count() == 500
    pulse.check()


@ONE_PARTITION
def test_broken_deploy_into_a_running_stream(pulse):
    """However the broken records fall into batches, fewer letters than error_ratio_min_records
    and the good ones before them are written."""
    pulse.produce([event() for _ in range(800)])
    pulse.wait_caught_up()
    pulse.produce(broken(20_000))
    pulse.wait_state("stopped")
    pulse.wait_for("SELECT NOT EXISTS (SELECT FROM pulse.stat_worker WHERE pid IS NOT NULL)")
    letters = pulse.count("raw.dlq")
    assert letters <= 1000
    assert pulse.offsets() == {0: 800 + letters} and pulse.count() == 800
    pulse.check()


@ONE_PARTITION
@ONE_BATCH
def test_state_survives_a_restart_of_the_server(pulse):
    produce_while_paused(pulse, broken(2000))
    check_stopped(pulse, 0, 0)
    pulse.cluster.restart()
    pulse.wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pulse coordinator')")
    check_stopped(pulse, 0, 0)


@ONE_PARTITION
def test_table_that_refuses_every_row_stops_the_pipeline(pulse):
    """Errors of the data count like any other reject."""
    pulse.query("ALTER TABLE raw.events ADD CHECK (user_id <> 'user-1')")
    produce_while_paused(pulse, [event() for _ in range(3000)])
    pulse.wait_state("stopped")
    reason = pulse.reason()
    assert "sql_error" in reason and "check constraint" in reason
    letters = pulse.count("raw.dlq")
    assert letters <= 1000 and pulse.offsets() == {0: letters}
    pulse.query("ALTER TABLE raw.events DROP CONSTRAINT events_user_id_check")
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert pulse.count() == 3000 - letters
    pulse.check()


def test_five_percent_do_not_stop_it(pulse, how_many):
    count = how_many(20_000, 200_000)
    pulse.produce_events(count, bad=0.05, seed=5)
    pulse.wait_caught_up()
    rows, letters = pulse.count(), pulse.count("raw.dlq")
    assert rows + letters == count and 0.04 * count < letters < 0.06 * count
    assert pulse.state() in ("running", "idle")
    pulse.check()


@ONE_PARTITION
@pytest.mark.server(pulse__max_error_ratio=1)
def test_ratio_one_never_stops(pulse):
    codes = [code for code in SPOILERS if code != "type"]
    good = [value for _, value in stream(3000, seed=2)]
    produce_while_paused(pulse, [SPOILERS[codes[number % len(codes)]](value)
                                 for number, value in enumerate(good)])
    pulse.wait_caught_up()
    assert pulse.count("raw.dlq") == 3000 and pulse.count() == 0
    assert pulse.value("SELECT count(DISTINCT error_code) FROM raw.dlq") == len(codes)
    pulse.check()


@ONE_PARTITION
@pytest.mark.server(pulse__error_ratio_min_records=100, pulse__max_error_ratio=0.2)
def test_limits_are_settings(pulse):
    produce_while_paused(pulse, broken(15) + [event() for _ in range(85)])
    pulse.wait_caught_up()
    assert pulse.count("raw.dlq") == 15
    produce_while_paused(pulse, broken(30) + [event() for _ in range(70)])
    pulse.wait_state("stopped")
    assert "20 %" in pulse.reason()
    assert pulse.count("raw.dlq") == 15 and pulse.offsets() == {0: 100}


@ONE_PARTITION
def test_records_read_again_do_not_count(pulse):
    """Bad records that were accepted once are judged no second time when they are read again."""
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"max_error_ratio\": 1}')")
    pulse.produce(broken(1500) + [event()])
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"max_error_ratio\": null}')")
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    pulse.wait_caught_up()
    pulse.produce([event()])
    pulse.wait_caught_up()
    assert pulse.count("raw.dlq") == 1500 and pulse.count() == 2
    pulse.verify()


OFF_UNTIL = "SELECT topic, partition, breaker_off_until FROM pulse.stat_partition"


@ONE_PARTITION
@ONE_BATCH
@pytest.mark.server(pulse__batch_max_rows=2000)
def test_force_accepts_the_rejects_of_that_moment_and_no_later_ones(pulse):
    produce_while_paused(pulse, [event()] + broken(5000))
    check_stopped(pulse, 0, 0)
    # Killed in the middle of what was accepted: what an operator allowed once holds.
    pulse.arm("after_letters", "kill", passes=2)
    pulse.query("SELECT pulse.resume('events', force => true)")
    assert pulse.query(OFF_UNTIL) == [(pulse.topic, 0, 5001)]
    pulse.wait_fault()
    pulse.wait_caught_up()
    assert pulse.count("raw.dlq") == 5000 and pulse.count() == 1
    assert pulse.query(OFF_UNTIL) == [(pulse.topic, 0, None)]
    assert pulse.query("SELECT old_offset, new_offset, reason FROM pulse.offset_log WHERE reason LIKE 'rejects%'") == \
        [(0, 0, "rejects accepted up to 5001")]
    pulse.verify()

    produce_while_paused(pulse, broken(3000))
    check_stopped(pulse, 5001, 5000)
    pulse.query("SELECT pulse.resume('events', true)")
    pulse.wait_caught_up()
    assert pulse.count("raw.dlq") == 8000
    pulse.check()


@pytest.mark.topic(partitions=3)
def test_force_while_it_runs_and_without_a_broker(pulse, how_many):
    """Accepted ahead of the trouble: the pipeline never stops."""
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(broken(6000))
    pulse.query("SELECT pulse.resume('events', force => true)")
    pulse.wait_caught_up()
    assert pulse.count("raw.dlq") == 6000 and pulse.state() in ("running", "idle")
    pulse.query("SELECT pulse.pause('events')")
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"brokers\": \"127.0.0.1:1\"}')")
    with pytest.raises(psycopg.errors.ConnectionException):
        pulse.query("SELECT pulse.resume('events', force => true)")
    assert pulse.value("SELECT desired_state FROM pulse.pipelines") == "paused"
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"brokers\": null}')")
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    pulse.check()
