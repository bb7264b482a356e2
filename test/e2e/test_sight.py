"""What an operator sees: offsets, views, states, logs, and who may see it."""

import json

import psycopg
import pytest
from confluent_kafka import TopicPartition

from harness.pipeline import event
from harness.place import wait_until

ONE_PARTITION = pytest.mark.topic(partitions=1)
STATES = {"starting", "running", "idle", "paused", "retrying", "stopped", "failed", "offset_lost",
          "topic_changed", "quarantined"}
CODES = {
    "decode": "syntax encoding nul surrogate depth oversize too_large_to_fetch number dup_key not_object empty "
              "tombstone schema_framed_payload",
    "schema": "missing_field type time too_old too_new too_long schema unknown_field",
    "data": "sql_error stage_error",
    "operator": "skipped quarantined",
}


def line(pulse, view, where="true"):
    """The one row of a view as a dict."""
    with pulse.connect() as connection:
        cursor = connection.execute(f"SELECT * FROM pulse.{view} WHERE {where}")
        rows = [dict(zip([c.name for c in cursor.description], row)) for row in cursor.fetchall()]
    assert len(rows) == 1, rows
    return rows[0]


@ONE_PARTITION
def test_numbers_of_the_views(pulse):
    same = event(event_id="same", event_timestamp="2026-11-20T10:00:00Z")
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"reject_newer_than\": 0, \"reject_older_than\": 0}')")
    pulse.produce([event() for _ in range(90)] + [same, same] + [b"{"] * 8)
    pulse.wait_caught_up()

    offsets = line(pulse, "offsets")
    assert {name: offsets[name] for name in ("pipeline", "topic", "partition", "next_offset", "topic_epoch",
                                             "records", "rows", "duplicates", "rejects", "filtered")} == {
        "pipeline": "events", "topic": pulse.topic, "partition": 0, "next_offset": 100, "topic_epoch": 0,
        "records": 100, "rows": 91, "duplicates": 1, "rejects": 8, "filtered": 0}
    wait_until(lambda: line(pulse, "stat_pipeline")["state"] == "idle", "it to have nothing to do")
    pipeline = line(pulse, "stat_pipeline")
    assert (pipeline["pipeline"], pipeline["topics"], pipeline["target"]) == ("events", [pulse.topic], "raw.events")
    assert (pipeline["lag"], pipeline["lag_seconds"], pipeline["workers"], pipeline["reason"]) == (0, 0, 1, None)
    assert (pipeline["records"], pipeline["rows"], pipeline["duplicates"], pipeline["rejects"]) == (100, 91, 1, 8)
    assert pipeline["last_batch_at"] is not None and pipeline["next_retry_at"] is None
    partition = line(pulse, "stat_partition")
    assert (partition["next_offset"], partition["low"], partition["high"], partition["lag"]) == (100, 0, 100, 0)
    worker = line(pulse, "stat_worker")
    assert worker["pid"] == pulse.worker_pid() == partition["worker_pid"]
    assert (worker["records"], worker["rows"], worker["duplicates"], worker["rejects"]) == (100, 91, 1, 8)
    assert worker["batches"] >= 1 and worker["phase"] == "waiting" and worker["queue_records"] == 0
    assert 0 < worker["commit_p50_ms"] <= worker["commit_p99_ms"] < 60_000

    log = pulse.query("SELECT partition, old_offset, new_offset, reason FROM pulse.offset_log")
    assert log == [(0, None, 0, "start")]
    pulse.query("SELECT pulse.seek('events', '95')")
    pulse.wait_caught_up()
    assert pulse.query("SELECT old_offset, new_offset, reason, changed_by FROM pulse.offset_log "
                       "ORDER BY changed_at DESC LIMIT 1") == [(100, 95, "seek", "postgres")]


def test_batch_log_adds_up(pulse):
    for number in range(5):
        pulse.produce_events(2000, bad=0.01, seed=number)
        pulse.wait_caught_up()
    sums = "SELECT sum(records)::int, sum(rows)::int, sum(duplicates)::int, sum(rejects)::int FROM "

    def is_complete():
        """Small batches of one second share a row, which the first batch after it writes."""
        pulse.produce([event()])
        pulse.wait_caught_up()
        return pulse.query(sums + "pulse.batch_log WHERE end_reason = 'committed'") == \
            pulse.query(sums + "pulse.offsets")
    wait_until(is_complete, "the log to hold every batch", interval=0.3)
    assert pulse.value("SELECT sum(records)::int FROM pulse.batch_log") > 10_000
    assert pulse.value("SELECT bool_and(finished_at >= started_at AND batches > 0 AND busy_ms > 0 AND bytes > 0 "
                       "AND pipeline = 'events') FROM pulse.batch_log")


def test_error_codes_are_the_closed_list(pulse):
    found = dict(pulse.query("SELECT error_class, string_agg(error_code, ' ') FROM pulse.error_codes GROUP BY 1"))
    assert {name: set(codes.split()) for name, codes in found.items()} == \
        {name: set(codes.split()) for name, codes in CODES.items()}
    assert pulse.value("SELECT bool_and(length(meaning) > 10 AND length(remedy) > 5) FROM pulse.error_codes")


@ONE_PARTITION
def test_lag_is_shown_while_behind(pulse):
    pulse.produce([event()])
    pulse.wait_caught_up()
    pulse.wait_for("SELECT lag = 0 AND lag_seconds = 0 FROM pulse.stat_pipeline")
    with pulse.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE raw.events IN ACCESS EXCLUSIVE MODE")
        pulse.produce([event() for _ in range(10)])
        pulse.wait_for("SELECT lag = 10 FROM pulse.stat_pipeline")
        first = pulse.value("SELECT lag_seconds FROM pulse.stat_pipeline")
        assert 0 <= first < 60
        pulse.wait_for(f"SELECT lag_seconds > {first} + 1 FROM pulse.stat_pipeline")
        pulse.wait_state("retrying")
    pulse.wait_caught_up()
    pulse.wait_for("SELECT lag = 0 AND lag_seconds = 0 FROM pulse.stat_pipeline")

    pulse.query("SELECT pulse.pause('events')")  # watermarks are kept fresh in every state
    pulse.produce([event() for _ in range(7)])
    pulse.wait_for("SELECT lag = 7 AND lag_seconds > 0 FROM pulse.stat_pipeline")
    assert line(pulse, "stat_pipeline")["state"] == "paused"
    assert line(pulse, "stat_partition")["state"] in STATES


def test_group_offsets_are_mirrored_without_membership(pulse):
    """An ordinary consumer of the group reads on undisturbed, and lag tools see the offsets."""
    group = f"mirror-{pulse.topic}"
    pulse.cluster.configure(pulse__group_id=group)
    pulse.produce_events(3000)
    pulse.wait_caught_up()
    wanted = {(pulse.topic, partition): offset for partition, offset in pulse.offsets().items()}
    wait_until(lambda: pulse.broker.group_offsets(group) == wanted, "the group's offsets to equal ours")
    consumer = pulse.broker.consumer(group_id=group)
    try:
        committed = consumer.committed([TopicPartition(pulse.topic, p) for p in pulse.offsets()], timeout=20)
        assert {(p.topic, p.partition): p.offset for p in committed} == wanted
    finally:
        consumer.close()
    description = pulse.broker.admin.describe_consumer_groups([group])[group].result(30)
    assert list(description.members) == []

    # What is there is never read back.
    pulse.query("SELECT pulse.pause('events')")
    consumer = pulse.broker.consumer(group_id=group)
    try:
        consumer.commit(offsets=[TopicPartition(pulse.topic, p, 1) for p in pulse.offsets()], asynchronous=False)
    finally:
        consumer.close()
    pulse.query("SELECT pulse.resume('events')")
    pulse.produce([event()])
    pulse.wait_caught_up()
    assert pulse.count() == 3001
    pulse.check()


@pytest.mark.server(pulse__group_id="")
def test_without_a_group_nothing_is_mirrored(pulse):
    pulse.produce_events(1000)
    pulse.wait_caught_up()
    groups = {g.group_id for g in pulse.broker.admin.list_consumer_groups().result(30).valid}
    seen = {key for group in groups for key in pulse.broker.group_offsets(group)}
    assert not {key for key in seen if key[0] == pulse.topic}


# --- rights and secrets ------------------------------------------------------------------------

def test_monitors_see_and_others_do_nothing(pulse):
    pulse.query("CREATE ROLE watcher IN ROLE pg_monitor")
    pulse.query("CREATE ROLE nobody_special")
    views = ("pipelines", "offsets", "offset_log", "gaps", "batch_log", "stat_pipeline", "stat_partition",
             "stat_worker", "stat_replay", "replays", "ingests", "error_codes")
    calls = ("pause('events')", "resume('events')", "stop('events')", "seek('events', 'latest')",
             "alter_pipeline('events', '{}')", "drop_pipeline('events')", "create_pipeline('x', '{t}')",
             "decode('events', '')", "verify('events')", "wait_until_caught_up('events')", "_wake()", "ingest('events', '{}')")
    with pulse.connect() as connection:
        for role in ("watcher", "nobody_special"):
            connection.execute(f"SET ROLE {role}")
            for view in views:
                if role == "watcher" or view == "error_codes":
                    connection.execute(f"SELECT * FROM pulse.{view}").fetchall()
                else:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(f"SELECT * FROM pulse.{view}")
            for call in calls:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(f"SELECT pulse.{call}")
            for table in ("raw.events", "raw.dlq"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(f"SELECT * FROM {table}")
    assert pulse.state() in STATES
    # Only what a worker's INSERT calls, what shows no data, guards that do nothing but raise, and questions to the
    # counters, which are asked with the caller's own rights on schema live, are everybody's.
    public = pulse.query("SELECT p.proname FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) "
                         "a WHERE p.pronamespace = 'pulse'::regnamespace AND a.grantee = 0 ORDER BY 1")
    assert {name for name, in public} <= {"_at_record", "_batch", "_error_codes", "ingest_horizon", "daily_count",
                                          "hourly_counts", "user_daily_count", "_require_counter",
                                          "_require_rights", "_require_trusted", "_refuse_unknown", "_is_superuser"}
    assert pulse.query("SELECT proname FROM pg_proc WHERE prosecdef AND proname IN "
                       "('daily_count', 'hourly_counts', 'user_daily_count')") == []
    assert pulse.query("SELECT proname FROM pg_proc WHERE pronamespace = 'pulse'::regnamespace AND prosecdef "
                       "AND NOT coalesce(proconfig::text, '') LIKE '%search_path%'") == []


@ONE_PARTITION
def test_secrets_show_nowhere(pulse):
    secret = "hunter2-geheim"
    path = pulse.cluster.directory / "secrets"
    path.write_text(f"# for the test\nsasl.password={secret}\nsasl.username=me\n")
    path.chmod(0o600)
    from harness import place
    place.give_to_server(path)
    pulse.cluster.configure(pulse__secrets_file=str(path))
    pulse.produce([event()])
    pulse.wait_caught_up()
    path.write_text(f"sasl.password={secret}\nsasl.nonsense={secret}\n{secret}\n")
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"batch_max_rows\": 77}')")
    wait_until(lambda: pulse.state() == "failed", "the bad file to be refused")
    reason = pulse.reason()
    assert "secrets" in reason.lower()
    shown = [reason]
    for relation, in pulse.query("SELECT format('pulse.%I', c.relname) FROM pg_class c WHERE relnamespace = "
                                 "'pulse'::regnamespace AND relkind IN ('r', 'v')"):
        shown.append(json.dumps(pulse.query(f"SELECT t::text FROM {relation} t")))
    for query in ("SELECT s::text FROM pg_settings s", "SELECT a::text FROM pg_stat_activity a"):
        shown.append(json.dumps(pulse.query(query)))
    shown.append(pulse.cluster.log_text())
    assert [text[:200] for text in shown if secret in text] == []
    path.write_text(f"sasl.password={secret}\n")
    pulse.produce([event()])
    pulse.wait_caught_up()


# --- what Kafka no longer holds ----------------------------------------------------------------

@pytest.mark.topic(partitions=2)
def test_lost_offset_stops_its_partition_alone(pulse):
    for partition in (0, 1):
        pulse.produce([event(event_id=f"{partition}-{number}") for number in range(10)], partition=partition)
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.pause('events')")
    for partition in (0, 1):
        pulse.produce([event(event_id=f"{partition}-{number}") for number in range(10, 60)], partition=partition)
    pulse.broker.delete_records(pulse.topic, 0, 35)
    pulse.query("SELECT pulse.resume('events')")

    lost = "topic = %s AND partition = 0" % f"'{pulse.topic}'"
    pulse.wait_for(f"SELECT state = 'offset_lost' FROM pulse.stat_partition WHERE {lost}")
    wait_until(lambda: pulse.offsets()[1] == 60, "the other partition to go on")
    partition = line(pulse, "stat_partition", lost)
    assert (partition["next_offset"], partition["low"], partition["high"]) == (10, 35, 60)
    assert "10" in partition["reason"]
    pipeline = line(pulse, "stat_pipeline")
    assert pipeline["state"] == "offset_lost" and "partition 0" in pipeline["reason"]
    assert pulse.offsets() == {0: 10, 1: 60} and pulse.count("pulse.gaps") == 0

    # It stays so over a restart, and new records change nothing.
    pulse.produce([event(event_id="new-0")], partition=0)
    pulse.produce([event(event_id="new-1")], partition=1)
    pulse.cluster.restart()
    wait_until(lambda: pulse.offsets()[1] == 61, "the other partition to go on")
    pulse.wait_for(f"SELECT state = 'offset_lost' FROM pulse.stat_partition WHERE {lost}")
    assert pulse.offsets()[0] == 10

    pulse.query("SELECT pulse.seek('events', 'earliest', 0)")
    pulse.wait_caught_up()
    assert pulse.query("SELECT topic, partition, from_offset, to_offset, reason, accepted_by FROM pulse.gaps") == [
        (pulse.topic, 0, 10, 35, "seek", "postgres")]
    pulse.wait_state("running", "idle")
    assert pulse.query("SELECT kafka_partition, count(*) FROM raw.events GROUP BY 1 ORDER BY 1") == \
        [(0, 10 + 25 + 1), (1, 61)]
    pulse.verify()
