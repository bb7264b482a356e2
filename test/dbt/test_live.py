"""The models behind a pipeline that runs: nothing that commits later is missed."""

import signal

import pytest
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
