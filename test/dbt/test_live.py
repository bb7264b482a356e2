"""The models behind a pipeline that runs: nothing that commits later is missed, and what the simulator
knows is what they say."""

import signal
import threading

import pytest
from harness import truth
from harness.place import Process, start_time, wait_until


def stopped_worker(pulse):
    pid = pulse.cluster.backends("pulse worker")[0]
    stat = f"/proc/{pid}/stat"
    wait_until(lambda: open(stat, encoding="ascii").read().rsplit(")", 1)[1].split()[0] == "T", "the worker to stop")
    return Process(pid, start_time(pid))


def test_rows_that_commit_after_newer_ones_are_not_skipped(pulse, make_dbt):
    pulse.produce_events(500)
    pulse.wait_caught_up()
    dbt = make_dbt(pulse.cluster)
    dbt.invoke("run")
    assert pulse.count("analytics.int_events_sessionized") == 500
    # A batch is written, but its transaction sleeps before the commit.
    pulse.arm("before_commit", "stop")
    pulse.produce_events(500, seed=2)
    pulse.wait_fault()
    worker = stopped_worker(pulse)
    try:
        # Meanwhile somebody else writes newer rows and commits.
        pulse.query("INSERT INTO raw.events SELECT (jsonb_populate_record(e, jsonb_build_object("
                    "'event_id', 'newer', 'ingested_at', clock_timestamp()))).* FROM raw.events e LIMIT 1")
        dbt.invoke("run")
        assert pulse.count("analytics.int_events_sessionized") == 500, "the horizon was not respected"
    finally:
        worker.send(signal.SIGCONT)
    pulse.wait_caught_up()
    dbt.invoke("build", "--exclude", "test_type:unit")
    assert pulse.count() == 1001
    assert pulse.count("analytics.int_events_sessionized") == 1001
    assert pulse.value("SELECT sum(events) FROM analytics.fct_sessions") == 1001


@pytest.mark.server(pulse__max_error_ratio=1)
def test_letters_are_counted_by_reason_and_fresh_data_is_fresh(pulse, make_dbt):
    pulse.produce_events(300, bad=0.3)
    pulse.wait_caught_up()
    dbt = make_dbt(pulse.cluster)
    dbt.invoke("build", "--exclude", "test_type:unit")
    assert pulse.query("SELECT error_code, letters FROM analytics.fct_dead_letters_daily ORDER BY 1") == \
        pulse.query("SELECT error_code, count(*) FROM raw.dlq GROUP BY 1 ORDER BY 1") != []
    results = dbt.invoke("source", "freshness")
    assert results["source.pulse.pulse.events"]["status"] == "pass"


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_marts_say_what_the_simulator_knows(pulse, make_dbt, how_many, seed):
    """With models built once in the middle of the stream, wherever that is, and once behind its end."""
    pulse.broker.alter_topic(pulse.topic, **{"retention.ms": "-1"})
    dbt = make_dbt(pulse.cluster)
    events = how_many(10_000, 1_000_000)
    with pulse.connect() as connection:
        shop = threading.Thread(target=connection.execute, args=[f"""
            CALL pulse.simulate(events => {events}, users => {events // 20}, duration => '5 days', seed => {seed},
                start_at => date_trunc('hour', now()) - interval '6 days', late => 0.03, duplicates => 0.02,
                malformed => 0.02, out_of_order => 0.05, bots => 0.05)"""])
        shop.start()
        pulse.wait_for("SELECT count(*) > 1000 FROM raw.events", "the stream", 60)
        dbt.invoke("run")
        shop.join()
    pulse.wait_caught_up()
    dbt.invoke("run")
    for what, true_rows, different in truth.compare(pulse.cluster):
        assert true_rows > 0 and different == [], what
