"""preview, extract, test_connection: looking at Kafka from a session, with no effect on anything."""

import json
import threading
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from harness.events import SPOILERS
from harness.pipeline import event
from harness.place import Process, free_port, wait_until

ONE_PARTITION = pytest.mark.topic(partitions=1)


def threads(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def hold(pulse, values, **options):
    """Records behind a paused pipeline: there is something to look at that nobody has read."""
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(values, **options)


def in_background(call):
    """Runs it in a thread; its result, or the exception, is in the list once it is through."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except Exception as error:  # whatever it was, the test looks at it
            outcome.append(error)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return outcome


# --- preview and extract


@ONE_PARTITION
@pytest.mark.server(pulse__group_id="looked-at")
def test_preview_shows_what_comes_next_and_consumes_nothing(pulse):
    pulse.produce([event() for _ in range(5)])
    pulse.wait_caught_up()
    wait_until(lambda: pulse.broker.group_offsets("looked-at").get((pulse.topic, 0)) == 5, "the mirror")
    bad = SPOILERS["dup_key"](event())
    hold(pulse, [(b"key", event(user_id="u-5", page_url="/a", price=3)), event(user_id="u-6"), bad, None])
    before = pulse.query("SELECT * FROM pulse.offsets"), pulse.count("pulse.offset_log")

    for _ in range(2):
        rows = pulse.query("SELECT kafka_topic, kafka_partition, kafka_offset, kafka_key, event->>'user_id', error_code "
                           "FROM pulse.preview('events')")
        assert rows == [(pulse.topic, 0, 5, b"key", "u-5", None), (pulse.topic, 0, 6, None, "u-6", None),
                        (pulse.topic, 0, 7, None, None, "dup_key"), (pulse.topic, 0, 8, None, None, "tombstone")]
    shown = pulse.value("SELECT event FROM pulse.preview('events', 1)")
    assert shown["properties"] == {"price": 3} and shown["page_url"] == "/a"
    assert len(pulse.query("SELECT * FROM pulse.preview('events', 2)")) == 2
    assert pulse.query("SELECT * FROM pulse.preview('events', 0)") == []
    assert pulse.value("SELECT abs(extract(epoch FROM now() - kafka_timestamp)) < 600 FROM pulse.preview('events', 1)")
    assert pulse.value("SELECT error_message FROM pulse.preview('events') WHERE error_code = 'dup_key'")

    assert (pulse.query("SELECT * FROM pulse.offsets"), pulse.count("pulse.offset_log")) == before
    assert pulse.broker.group_offsets("looked-at")[pulse.topic, 0] == 5
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert pulse.rows("user_id", "kafka_offset >= 5") == [("u-5",), ("u-6",)]
    assert pulse.letters("error_code") == [("dup_key",), ("tombstone",)]
    assert pulse.query("SELECT * FROM pulse.preview('events')") == []
    pulse.check()


def test_preview_reads_every_partition(pulse):
    counts = [(0, 50), (1, 100), (2, 150)]
    hold(pulse, [])
    for partition, count in counts:
        pulse.produce([event() for _ in range(count)], partition=partition)
    assert pulse.query("SELECT kafka_partition, count(*), min(kafka_offset) FROM pulse.preview('events', 1000) "
                       "GROUP BY 1 ORDER BY 1") == [(partition, count, 0) for partition, count in counts]
    assert pulse.value("SELECT count(*) FROM pulse.preview('events', 50)") == 50


@ONE_PARTITION
def test_preview_of_a_pipeline_that_has_not_started(pulse):
    """Before its first commit nobody has read anything: it begins where start_position says."""
    pulse.produce([event(user_id=f"u-{number}") for number in range(10)])
    pulse.wait_caught_up()
    with pulse.connect(autocommit=False) as session:
        session.execute("CREATE TABLE public.copy (event_id text PRIMARY KEY, user_id text)")
        for position, expected in (("earliest", list(range(10))), ("latest", []), ("7", [7, 8, 9]),
                                   ("-1 hour", list(range(10)))):
            session.execute("SELECT pulse.create_pipeline('copy', ARRAY[%s], 'public.copy', %s)",
                            (pulse.topic, json.dumps({"start_position": position, "unknown_fields": "drop"})))
            found = session.execute("SELECT kafka_offset, event FROM pulse.preview('copy', 100)").fetchall()
            assert [offset for offset, _ in found] == expected, position
            assert [sorted(event) for _, event in found] == [["event_id", "user_id"]] * len(expected)
            session.execute("SELECT pulse.drop_pipeline('copy')")
        session.execute("SELECT pulse.create_pipeline('copy', ARRAY[%s], 'public.copy')", (pulse.topic + "-none",))
        with pytest.raises(errors.UndefinedObject, match="does not exist") as refused:
            session.execute("SELECT * FROM pulse.preview('copy')")
        assert refused.value.diag.message_hint == "Create the topic, or mend the name: pulse never creates topics."


@ONE_PARTITION
def test_extract_reads_the_range(pulse):
    pulse.produce([event(user_id=f"u-{number}") for number in range(100)])
    pulse.wait_caught_up()

    def extract(*bounds):
        marks = ", ".join(["%s"] * len(bounds))
        return [row[0] for row in pulse.query(f"SELECT kafka_offset FROM pulse.extract('events', %s, 0, {marks})",
                                              pulse.topic, *bounds)]
    assert extract(10, 15) == [10, 11, 12, 13, 14]
    assert extract(42) == [42]
    assert extract(42, None) == [42]
    assert extract(97, 1_000_000) == [97, 98, 99]
    assert extract(100, 200) == extract(50, 50) == []
    assert pulse.value("SELECT event->>'user_id' FROM pulse.extract('events', %s, 0, 42)", pulse.topic) == "u-42"
    for bounds, message in (((101, 102), "is not in the log"), ((-1, 5), "out of range"),
                            ((5, 4), "must not be before")):
        with pytest.raises(errors.InvalidParameterValue, match=message):
            extract(*bounds)
    for topic, partition in ((pulse.topic, 1), ("another", 0), (pulse.topic, -1)):
        with pytest.raises(errors.InvalidParameterValue, match="does not read partition"):
            pulse.query("SELECT * FROM pulse.extract('events', %s, %s, 0)", topic, partition)

    pulse.broker.delete_records(pulse.topic, 0, 40)
    with pytest.raises(errors.InvalidParameterValue, match="offset 39 of partition 0") as caught:
        extract(39, 45)
    assert caught.value.diag.message_hint == "It holds the offsets 40 to 99."
    assert extract(40, 42) == [40, 41]


@ONE_PARTITION
def test_preview_names_the_range_when_the_offset_is_lost(pulse):
    hold(pulse, [event() for _ in range(30)])
    pulse.broker.delete_records(pulse.topic, 0, 20)
    with pytest.raises(errors.InvalidParameterValue, match="offset 0 of partition 0") as caught:
        pulse.query("SELECT * FROM pulse.preview('events')")
    assert "20 to 29" in caught.value.diag.message_hint


@ONE_PARTITION
def test_extract_passes_over_transactions_that_were_aborted(pulse):
    producer = pulse.broker.producer(**{"transactional.id": f"look-{pulse.topic}"})
    producer.init_transactions(30)
    for number, end in enumerate(("commit", "abort", "commit")):
        producer.begin_transaction()
        producer.produce(pulse.topic, event(user_id=f"u-{number}"))
        producer.flush(30)
        getattr(producer, f"{end}_transaction")(30)
    rows = pulse.query("SELECT event->>'user_id', kafka_offset FROM pulse.extract('events', %s, 0, 0, 1000)", pulse.topic)
    assert rows == [("u-0", 0), ("u-2", 4)]  # the markers are at 1, 3 and 5
    assert pulse.query("SELECT kafka_offset FROM pulse.extract('events', %s, 0, 1, 4)", pulse.topic) == []


@ONE_PARTITION
def test_hostile_records_can_be_looked_at(pulse):
    values = [spoil(event()) for spoil in SPOILERS.values()] + [b"\xff\xfe", b"", None, b"[" * 100_000, event()]
    hold(pulse, values)
    seen = pulse.query("SELECT kafka_offset, event IS NULL, error_code FROM pulse.preview('events', 1000) ORDER BY 1")
    assert len(seen) == len(values)
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    letters = dict(pulse.letters("kafka_offset, error_code"))
    assert {offset: code for offset, is_reject, code in seen if is_reject} == letters
    assert len(letters) == len(values) - pulse.count()


@ONE_PARTITION
def test_a_large_extract_uses_little_memory(pulse, how_many):
    count = how_many(150_000, 1_000_000)
    pulse.produce_events(count)
    with pulse.connect() as session:
        session.execute("SET work_mem = '1MB'")
        pid = session.info.backend_pid

        def anonymous():
            return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                        if line.startswith("RssAnon"))
        before = anonymous()
        peak = []
        outcome = in_background(lambda: session.execute(
            "SELECT count(*) FROM pulse.extract('events', %s, 0, 0, %s)", (pulse.topic, count)).fetchone()[0])
        wait_until(lambda: peak.append(anonymous()) or outcome, "the extract", timeout=120, interval=0.05)
        assert outcome == [count]
        assert max(peak) - before < 60_000, "kilobytes"


# --- a session that breaks off


def stuck(pulse, session, how):
    """Calls preview while the broker does not answer; how() ends it. The error and the seconds it took."""
    outcome = in_background(lambda: session.execute("SELECT count(*) FROM pulse.preview('events')").fetchall())
    wait_until(lambda: threads(session.info.backend_pid) > 1 or outcome, "the call to begin")
    started = time.monotonic()
    how()
    wait_until(lambda: outcome, "the call to end")
    return outcome[0], time.monotonic() - started


@ONE_PARTITION
def test_cancelled_calls_leave_nothing_behind(pulse):
    hold(pulse, [event() for _ in range(10)])
    with pulse.connect() as session:
        pid = session.info.backend_pid
        session.execute("SELECT * FROM pulse.preview('events')")
        wait_until(lambda: threads(pid) == 1, "the threads of the first call to end")
        descriptors_before = descriptors(pid)
        pulse.broker.freeze()
        for _ in range(3):
            error, seconds = stuck(pulse, session, lambda: pulse.query("SELECT pg_cancel_backend(%s)", pid))
            assert isinstance(error, errors.QueryCanceled), error
            assert seconds < 2
        session.execute("SET statement_timeout = '300ms'")
        error, seconds = stuck(pulse, session, lambda: None)
        assert isinstance(error, errors.QueryCanceled) and "statement timeout" in str(error)
        assert seconds < 3
        session.execute("RESET statement_timeout")
        pulse.broker.thaw()
        assert session.execute("SELECT count(*) FROM pulse.preview('events')").fetchone() == (10,)
        wait_until(lambda: threads(pid) == 1, "every thread to end", timeout=60)
        wait_until(lambda: descriptors(pid) <= descriptors_before, "every descriptor to be closed")


@ONE_PARTITION
def test_calls_are_refused_while_too_many_cancelled_ones_are_closing(pulse):
    hold(pulse, [event()])
    with pulse.connect() as session:
        pid = session.info.backend_pid
        pulse.broker.freeze()
        session.execute("SET statement_timeout = '100ms'")
        for _ in range(40):
            with pytest.raises((errors.QueryCanceled, errors.InsufficientResources)) as caught:
                session.execute("SELECT * FROM pulse.preview('events')")
        assert caught.type is errors.InsufficientResources
        assert threads(pid) < 100
        pulse.broker.thaw()
        session.execute("RESET statement_timeout")
        wait_until(lambda: threads(pid) == 1, "every thread to end", timeout=60)
        assert session.execute("SELECT count(*) FROM pulse.preview('events')").fetchone() == (1,)


@ONE_PARTITION
def test_a_terminated_session_ends_at_once(pulse):
    hold(pulse, [event()])
    for way in ("terminate", "close"):
        session = pulse.connect()
        pid = session.info.backend_pid
        process = Process(pid)
        session.execute("SELECT * FROM pulse.preview('events')")
        pulse.broker.freeze()
        if way == "terminate":
            error, _ = stuck(pulse, session, lambda: pulse.query("SELECT pg_terminate_backend(%s)", pid))
            assert isinstance(error, psycopg.OperationalError)
        else:
            session.execute("SET statement_timeout = '100ms'")
            with pytest.raises(errors.QueryCanceled):
                session.execute("SELECT * FROM pulse.preview('events')")
            session.close()  # while threads are still closing the connection
        process.wait_gone(5)
        pulse.broker.thaw()
    assert pulse.value("SELECT pg_postmaster_start_time() < now()")  # no crash: see no_crash in conftest.py


@ONE_PARTITION
def test_an_error_in_the_middle_leaves_nothing_behind(pulse):
    hold(pulse, [event() for _ in range(2000)])
    with pulse.connect() as session:
        pid = session.info.backend_pid
        with pytest.raises(errors.DivisionByZero):
            session.execute("SELECT 1 / (kafka_offset - 1500) FROM pulse.preview('events', 2000)")
        session.execute("SET temp_file_limit = '64kB'; SET work_mem = '64kB'")
        with pytest.raises(errors.ConfigurationLimitExceeded):
            session.execute("SELECT * FROM pulse.preview('events', 2000)")
        wait_until(lambda: threads(pid) == 1, "every thread to end")


@ONE_PARTITION
def test_who_may_look(pulse):
    hold(pulse, [event()])
    pulse.query("CREATE ROLE analyst")
    calls = ("pulse.preview('events')", f"pulse.extract('events', '{pulse.topic}', 0, 0)", "pulse.test_connection()")
    with pulse.connect() as session:
        session.execute("SET ROLE analyst")
        for call in calls:
            with pytest.raises(errors.InsufficientPrivilege):
                session.execute(f"SELECT * FROM {call}")
        pulse.query("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pulse TO analyst")
        pulse.query("GRANT pg_monitor TO analyst")
        pulse.query("GRANT USAGE ON SCHEMA raw TO analyst")
        for call in calls:
            assert session.execute(f"SELECT * FROM {call}").fetchall()


# --- test_connection


def findings(pulse, arguments=""):
    return {what: (ok, detail, hint) for what, ok, detail, hint in
            pulse.query(f"SELECT what, ok, detail, hint FROM pulse.test_connection({arguments})")}


def test_connection_that_works(pulse):
    pulse.produce([event() for _ in range(9)])
    for arguments in ("", "'events'"):
        found = findings(pulse, arguments)
        assert list(found) == ["settings", "client", "brokers", "cluster", f"topic {pulse.topic}",
                               f"reading {pulse.topic}"]
        assert all(ok and hint is None for ok, _, hint in found.values()), found
        assert pulse.broker.address in found["brokers"][1] and " ms" in found["brokers"][1]
        assert found[f"topic {pulse.topic}"][1] == "3 partitions with 9 offsets"
        assert found["client"][1].startswith("librdkafka 2.")
    with pytest.raises(errors.UndefinedObject):
        findings(pulse, "'nobody'")


def test_connection_names_what_is_wrong(pulse):
    pulse.query("CREATE TABLE public.other (id text PRIMARY KEY)")
    for name, topics, settings in (
            ("missing", ["no-such-topic", pulse.topic], {}),
            ("pattern", [f"^{pulse.topic}$"], {}), ("no_match", ["^no-such-.*"], {}),
            ("refused", [pulse.topic], {"brokers": f"127.0.0.1:{free_port()}"}),
            ("unresolved", [pulse.topic], {"brokers": "no-such-host.invalid:9092"}),
            ("secrets", [pulse.topic], {"secrets_file": "/nowhere"})):
        pulse.query("SELECT pulse.create_pipeline(%s, %s, 'public.other', %s)", name, topics, json.dumps(settings))

    missing = findings(pulse, "'missing'")
    assert missing["topic no-such-topic"][:2] == (False, "UNKNOWN_TOPIC_OR_PART")
    assert "Create the topic" in missing["topic no-such-topic"][2]
    assert missing[f"reading {pulse.topic}"][0], "one missing topic does not hide the others"
    assert findings(pulse, "'pattern'")[f"reading {pulse.topic}"][0]
    assert findings(pulse, "'no_match'")["topics ^no-such-.*"][:2] == (False, "0 topics match")
    refused = findings(pulse, "'refused'")
    assert not refused["brokers"][0] and "Connection refused" in refused["brokers"][1], refused
    assert "Nothing listens there" in refused["brokers"][2]
    unresolved = findings(pulse, "'unresolved'")
    assert not unresolved["brokers"][0] and "resolve" in unresolved["brokers"][1], unresolved
    secrets = findings(pulse, "'secrets'")
    assert list(secrets) == ["settings"] and not secrets["settings"][0] and "/nowhere" in secrets["settings"][1]
    assert pulse.state() in ("running", "idle")


def test_connection_without_brokers(cluster):
    assert cluster.query("SELECT what, ok, detail FROM pulse.test_connection()") == \
        [("settings", False, "pulse.brokers is not set")]
    for call in ("pulse.preview('events')", "pulse.extract('events', 'events', 0, 0)"):
        with pytest.raises(errors.UndefinedObject):
            cluster.query(f"SELECT * FROM {call}")


def test_connection_of_a_broker_that_does_not_answer(pulse):
    pulse.broker.freeze()
    started = time.monotonic()
    found = findings(pulse)
    assert not found["brokers"][0] and found["brokers"][2]
    assert time.monotonic() - started < 15
    with pulse.connect() as session:
        session.execute("SET statement_timeout = '200ms'")
        with pytest.raises(errors.QueryCanceled):
            session.execute("SELECT * FROM pulse.test_connection()")
