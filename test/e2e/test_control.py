"""The functions and settings that start, stop and change pipelines."""

import time
import uuid
from datetime import datetime, timezone

import psycopg
import pytest

from harness.pipeline import event
from harness.place import wait_until

ONE_PARTITION = pytest.mark.topic(partitions=1)
NO_EXTENSION = pytest.mark.extension(False)
PLAIN = "CREATE TABLE public.{} (event_id text PRIMARY KEY, user_id text, kafka_topic text, " \
        "kafka_partition int, kafka_offset bigint)"


def fails(pulse, sqlstate, sql, *parameters):
    """Runs it and returns what the error says."""
    with pytest.raises(psycopg.Error) as caught, \
            pulse.connect(options="-c statement_timeout=20s") as connection:
        connection.execute(sql, parameters or None)
    diagnosis = caught.value.diag
    assert diagnosis.sqlstate == sqlstate, f"{diagnosis.sqlstate}: {diagnosis.message_primary}"
    return f"{diagnosis.message_primary} / {diagnosis.message_hint}"


def create(pulse, name, topics, target, settings="{}"):
    pulse.query("SELECT pulse.create_pipeline(%s, %s, %s, %s)", name, topics, target, settings)


def state_of(pulse, name):
    return pulse.value("SELECT state FROM pulse.stat_pipeline WHERE pipeline = %s", name)


def wait_lines(pulse, table, count, timeout=30):
    return pulse.wait_for(f"SELECT count(*) = {count} FROM {table}", timeout=timeout)


def workers(pulse, name="events"):
    return pulse.value("SELECT count(*) FROM pulse.stat_worker WHERE pipeline = %s AND pid IS NOT NULL", name)


# --- create, alter, drop -----------------------------------------------------------------------

def test_errors_of_the_functions(pulse):
    new = "SELECT pulse.create_pipeline('new', '{t}', 'raw.events', %s)"
    alter = "SELECT pulse.alter_pipeline('events', %s)"
    for sql in (new, alter):
        for settings, name in (('{"batch_max_rows": 0}', "batch_max_rows"),
                               ('{"batch_max_rows": "many"}', "batch_max_rows"),
                               ('{"batch_max_row": 5}', "batch_max_row"),
                               ('{"topic": "x"}', "topic"),
                               ('{"database": "x"}', "database"),
                               ('{"workers": 0}', "workers"),
                               ('{"workers": "two"}', "workers"),
                               ('{"on_offset_lost": "panic"}', "on_offset_lost"),
                               ('{"counters": "second"}', "counters"),
                               ('{"start_position": "yesterday noon-ish"}', "start_position"),
                               ('{"start_position": "nonsense"}', "start_position"),
                               ('{"max_error_ratio": 2}', "max_error_ratio"),
                               ('{"kafka_options": "plugin.library.paths=/tmp/x.so"}', "plugin.library.paths"),
                               ('{"kafka_options": "group.id=x"}', "group.id"),
                               ('{"kafka_options": "nonsense"}', ""),
                               ('{"mapping": "x"}', "mapping"),
                               ('{"mapping": {"user_id": "no pointer"}}', "user_id"),
                               ('{"partition_by": "year"}', "partition_by"),
                               ('[]', "object")):
            assert name in fails(pulse, "22023", sql, settings)
        assert "no_such" in fails(pulse, "42703", sql, '{"mapping": {"no_such": "/x"}}')
    assert "batch_max_rows" in fails(pulse, "22023", new, '{"batch_max_rows": 0}')
    assert "README" in fails(pulse, "22023", new, '{"batch_max_row": 5}')

    assert "alter_pipeline" in fails(pulse, "42710", "SELECT pulse.create_pipeline('events', '{t}')")
    fails(pulse, "42P01", "SELECT pulse.create_pipeline('new', '{t}', 'public.nothing')")
    fails(pulse, "42809", "SELECT pulse.create_pipeline('new', '{t}', 'live.events_day')")
    fails(pulse, "22023", "SELECT pulse.create_pipeline('new', '{}', 'raw.events')")
    fails(pulse, "22023", "SELECT pulse.create_pipeline('', '{t}', 'raw.events')")
    fails(pulse, "22023", "SELECT pulse.create_pipeline(repeat('n', 64), '{t}', 'raw.events')")
    for topic in ("a b", "a/b", "", "x" * 250, "é", "^(", None):
        fails(pulse, "22023", "SELECT pulse.create_pipeline('new', %s, 'raw.events')", [topic])
    for call in ("alter_pipeline('none', '{}')", "drop_pipeline('none')", "pause('none')", "resume('none')",
                 "stop('none')", "seek('none', 'latest')", "wait_until_caught_up('none')",
                 "decode('none', '')", "verify('none')"):
        fails(pulse, "42704", f"SELECT pulse.{call}")
    assert pulse.query("SELECT name, settings FROM pulse.pipelines") == [("events", {})]
    pulse.produce([event()])
    pulse.wait_caught_up()
    pulse.check()


def test_seek_refuses_positions_that_are_none(pulse):
    pulse.produce([event() for _ in range(10)])
    pulse.wait_caught_up()
    before = pulse.offsets()
    assert "holds" in fails(pulse, "22023", "SELECT pulse.seek('events', '1000')")
    assert "partition" in fails(pulse, "22023", "SELECT pulse.seek('events', 'earliest', 77)")
    for position in ("nonsense", "", "-nonsense"):
        fails(pulse, "22023", "SELECT pulse.seek('events', %s)", position)
    for position in ("99999999999999999999", "infinity"):
        fails(pulse, "22023", "SELECT pulse.seek('events', %s)", position)
    fails(pulse, "22004", "SELECT pulse.seek('events', NULL)")
    assert pulse.offsets() == before
    pulse.produce([event()])
    pulse.wait_caught_up()
    pulse.check()


@ONE_PARTITION
def test_settings_come_back_with_null(pulse):
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"batch_max_rows\": 10, \"workers\": 3}')")
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"batch_max_rows\": null}')")
    assert pulse.value("SELECT settings FROM pulse.pipelines") == {"workers": 3}
    create(pulse, "nulls", [pulse.topic], "raw.events", '{"batch_max_rows": null, "workers": null}')
    pulse.produce([event()])
    pulse.wait_caught_up()
    wait_until(lambda: state_of(pulse, "nulls") in ("idle", "running"), "the other pipeline")


@ONE_PARTITION
def test_target_of_ones_own_with_a_mapping(pulse):
    pulse.query('CREATE TABLE public."My Table" (id text PRIMARY KEY, "User Id" text NOT NULL, price '
                'numeric(10,2), tags jsonb, at timestamptz, ok boolean, day date, key uuid, kafka_key bytea, '
                'kafka_headers jsonb, properties jsonb, kafka_timestamp timestamptz)')
    create(pulse, "mine", [pulse.topic], 'public."My Table"',
           '{"mapping": {"id": "/event_id", "User Id": "/user/name", "price": "/a~1b/m~0n", "at": "/event_timestamp"}}')
    pulse.produce([b'{"event_id":"1","event_type":"x","user_id":"u","event_timestamp":1767225600123,'
                   b'"user":{"name":"N","age":3},"a/b":{"m~n":12.345},"tags":["a"],"ok":true,"day":"2026-01-02",'
                   b'"key":"6ba7b810-9dad-11d1-80b4-00c04fd430c8"}'], key=b"k\x00\xff", headers=[("h", b"v")])
    wait_lines(pulse, 'public."My Table"', 1)
    row = pulse.query('SELECT id, "User Id", price::text, tags, at::text, ok, day::text, key::text, kafka_key, '
                      'kafka_headers, kafka_timestamp IS NOT NULL FROM public."My Table"')[0]
    assert row == ("1", "N", "12.35", ["a"], "2026-01-01 00:00:00.123+00", True, "2026-01-02",
                   "6ba7b810-9dad-11d1-80b4-00c04fd430c8", b"k\x00\xff", [{"key": "h", "value": "v"}], True)
    rest = pulse.value('SELECT properties FROM public."My Table"')
    assert rest["event_type"] == "x" and rest["user"] == {"name": "N", "age": 3}


def test_several_pipelines_and_topics(pulse, broker):
    prefix = f"many-{uuid.uuid4().hex[:6]}"
    for number in range(3):
        broker.create_topic(f"{prefix}.{number}", 2)
    for table in ("one", "two", "three"):
        pulse.query(PLAIN.format(table))
    create(pulse, "one", [f"{prefix}.0"], "public.one")
    create(pulse, "two", [f"{prefix}.0", f"{prefix}.1"], "public.two")
    create(pulse, "three", [f"^{prefix}\\..*"], "public.three")
    for number in range(3):
        broker.produce(f"{prefix}.{number}", [event(event_id=f"{number}-{n}") for n in range(20)])
    wait_lines(pulse, "public.one", 20)
    wait_lines(pulse, "public.two", 40)
    wait_lines(pulse, "public.three", 60)
    assert pulse.count() == 0

    broker.create_topic(f"{prefix}.later", 1)  # the expression finds it
    broker.produce(f"{prefix}.later", [event(event_id="later")])
    wait_lines(pulse, "public.three", 61)
    assert pulse.value("SELECT count(*) FROM public.three WHERE kafka_topic LIKE %s", f"{prefix}.l%") == 1
    for name in ("one", "two", "three"):
        assert pulse.value("SELECT count(*) FROM pulse.verify(%s) WHERE NOT ok", name) == 0
    for name in ("later", "0", "1", "2"):
        broker.delete_topic(f"{prefix}.{name}")


@ONE_PARTITION
def test_dropped_pipeline_leaves_its_data_and_does_not_come_back(pulse):
    pulse.produce([event(), b"{"])
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.drop_pipeline('events')")
    wait_until(lambda: not pulse.cluster.backends("pulse worker"), "the worker to go away")
    pulse.produce([event()])
    pulse.cluster.restart()
    pulse.wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pulse coordinator')")
    # The coordinator's next look at the tables: it makes this one and not the other.
    pulse.query(PLAIN.format("plain"))
    create(pulse, "plain", [pulse.topic], "public.plain")
    wait_lines(pulse, "public.plain", 2)
    assert pulse.query("SELECT name FROM pulse.pipelines") == [("plain",)]
    assert (pulse.count(), pulse.count("raw.dlq")) == (1, 2)
    assert pulse.query("SELECT pipeline, old_offset, reason FROM pulse.offset_log WHERE pipeline = 'events' "
                       "ORDER BY changed_at DESC LIMIT 1") == [("events", 2, "pipeline dropped")]


@ONE_PARTITION
def test_dropped_and_created_again_with_another_target(pulse):
    """In one transaction: the worker that runs must not go on with what it knows."""
    pulse.produce([event(event_id="1")])
    pulse.wait_caught_up()
    pulse.query(PLAIN.format("other"))
    with pulse.connect(autocommit=False) as connection:
        connection.execute("SELECT pulse.drop_pipeline('events')")
        connection.execute("SELECT pulse.create_pipeline('events', %s, 'public.other')", ([pulse.topic],))
    pulse.produce([event(event_id="2")])
    wait_lines(pulse, "public.other", 2)
    assert pulse.rows("event_id") == [("1",)]


# --- pause, resume, stop -----------------------------------------------------------------------

@ONE_PARTITION
def test_pause_commits_the_batch_in_flight_and_outlives_everything(pulse):
    pulse.query("CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "PERFORM pg_sleep(0.05); RETURN NEW; END $$")
    pulse.query("CREATE TRIGGER slow BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION public.slow()")
    pulse.produce([event() for _ in range(40)])
    pulse.wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pulse worker' "
                   "AND wait_event = 'PgSleep')", "a batch to be in flight")
    with pulse.connect(autocommit=False) as caller:
        caller.execute("SELECT pulse.pause('events')")
        assert pulse.cluster.backends("pulse worker") == []  # it returned when they were gone
        assert pulse.count() > 0 and pulse.count() == pulse.offsets()[0]
        caller.rollback()
    done = pulse.count()
    pulse.produce([event()])
    assert (pulse.state(), workers(pulse)) == ("paused", 0)
    pulse.query("SELECT pulse.pause('events')")  # again is fine
    pulse.cluster.restart()
    pulse.wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pulse coordinator')")
    pulse.wait_for("SELECT lag > 0 FROM pulse.stat_pipeline")  # watermarks stay fresh while paused
    assert (pulse.state(), pulse.count()) == ("paused", done)
    pulse.query("DROP TRIGGER slow ON raw.events")
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert pulse.count() == 41
    pulse.check()


@ONE_PARTITION
def test_stop_rolls_the_batch_in_flight_back(pulse):
    pulse.query("CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "PERFORM pg_sleep(20); RETURN NEW; END $$")
    pulse.query("CREATE TRIGGER slow BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION public.slow()")
    pulse.produce([event() for _ in range(5)])
    pulse.wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pulse worker' "
                   "AND wait_event = 'PgSleep')", "a batch to be in flight")
    began = time.monotonic()
    pulse.query("SELECT pulse.stop('events')")
    assert time.monotonic() - began < 10
    assert (pulse.state(), pulse.count(), pulse.offsets()) == ("stopped", 0, {0: 0})
    assert pulse.cluster.backends("pulse worker") == []
    pulse.query("DROP TRIGGER slow ON raw.events")
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert pulse.count() == 5
    pulse.check()


@ONE_PARTITION
def test_wait_until_caught_up(pulse):
    wait = "SELECT pulse.wait_until_caught_up('events', %s)"
    for number in range(20):
        pulse.produce([event()])
        assert pulse.value(wait, "30 s") is True
        assert pulse.count() == number + 1
    for call in ("pause", "stop"):
        pulse.query(f"SELECT pulse.{call}('events')")
        assert "resume" in fails(pulse, "55000", wait, "30 s")
        pulse.query("SELECT pulse.resume('events')")
        assert pulse.value(wait, "30 s") is True
    with pulse.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE raw.events IN ACCESS EXCLUSIVE MODE")
        pulse.produce([event()])
        assert pulse.value(wait, "200 ms") is False
    assert pulse.value(wait, "30 s") is True
    with pulse.connect(autocommit=False) as reader:  # reads shared memory, not the caller's snapshot
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1 FROM raw.events").fetchall()
        pulse.produce([event()])
        assert reader.execute(wait, ("30 s",)).fetchone() == (True,)


@ONE_PARTITION
@pytest.mark.parametrize("lock, command", [
    ("SELECT pulse.alter_pipeline('events', '{\"batch_max_rows\": 10}')", "SELECT pulse.pause('events')"),
    ("SELECT pulse.alter_pipeline('events', '{\"batch_max_rows\": 10}')", "SELECT pulse.resume('events')"),
    ("SELECT pulse.alter_pipeline('events', '{\"batch_max_rows\": 10}')", "SELECT pulse.resume('events', force => true)"),
    ("SELECT FROM pulse.offsets FOR UPDATE", "SELECT pulse.resume('events', force => true)"),
    ("SELECT FROM pulse.offsets FOR UPDATE", "SELECT pulse.seek('events', 'earliest')"),
    ("SELECT FROM pulse.offsets FOR UPDATE", "SELECT pulse.skip('events', kafka_topic, 0, 2) FROM raw.events LIMIT 1")])
def test_command_behind_a_lock_of_its_own_caller_is_refused(pulse, lock, command):
    """The coordinator waits for the caller's row, the caller for the coordinator. Its other work goes on."""
    pulse.produce([event(event_id="1"), event(event_id="2")])
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce([event(event_id="3")])
    with pulse.connect(autocommit=False, options="-c statement_timeout=30s") as caller:
        caller.execute(lock)
        with pytest.raises(psycopg.Error) as caught:
            caller.execute(command)
        assert caught.value.sqlstate == "55P03"
    assert pulse.state() == "paused"
    pulse.query("SELECT pulse.resume('events')")
    pulse.produce([event(event_id="4")])
    pulse.wait_caught_up()
    assert pulse.count() == 4
    pulse.check()


# --- workers and settings ----------------------------------------------------------------------

@pytest.mark.topic(partitions=4)
def test_workers_share_the_partitions(pulse):
    def shares():
        return sorted(pulse.value("SELECT array_agg(n ORDER BY n) FROM (SELECT count(*) AS n FROM "
                                  "pulse.stat_partition WHERE worker_pid IN (SELECT pid FROM pulse.stat_worker) "
                                  "GROUP BY worker_pid) t") or [])

    sender = pulse.start_producing(40_000)
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"workers\": 2}')")
    wait_until(lambda: workers(pulse) == 2 and shares() == [2, 2], "two workers with two partitions each")
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"workers\": null}')")
    wait_until(lambda: workers(pulse) == 1 and shares() == [4], "one worker with all")
    pulse.cluster.configure(pulse__workers=4)
    wait_until(lambda: workers(pulse) == 4 and shares() == [1, 1, 1, 1], "four workers")
    pulse.cluster.configure(pulse__workers=9)
    assert sender.wait() == 0
    pulse.wait_caught_up()
    assert workers(pulse) <= 4  # never more than partitions
    assert pulse.count() == 40_000
    pulse.check()


@ONE_PARTITION
def test_settings_by_reload(pulse):
    pulse.cluster.configure(pulse__max_message_bytes=1024)
    pulse.wait_for("SHOW pulse.max_message_bytes")
    large = event(note="n" * 2000)

    def is_refused():
        pulse.produce([large])
        pulse.wait_caught_up()
        return pulse.count("raw.dlq") > 0
    wait_until(is_refused, "the limit to hold", interval=0.2)
    assert {code for code, in pulse.letters("error_code")} == {"oversize"}
    pulse.cluster.configure(pulse__group_id="another-group")
    pulse.produce([event()])
    pulse.wait_caught_up()
    wait_until(lambda: pulse.broker.group_offsets("another-group") == {(pulse.topic, 0): pulse.offsets()[0]},
               "offsets to be mirrored to the other group")


# --- when things appear and disappear ----------------------------------------------------------

def seconds_until_running(pulse, began):
    pulse.wait_for("SELECT coalesce((SELECT state IN ('running', 'idle') FROM pulse.stat_pipeline WHERE "
                   "pipeline = 'events'), false)", "the pipeline to run", timeout=20)
    return time.monotonic() - began


@NO_EXTENSION
def test_runs_within_two_seconds_after_create_extension(pulse):
    pulse.produce([event()])
    began = time.monotonic()
    pulse.query("CREATE EXTENSION pulse")
    took = seconds_until_running(pulse, began)
    pulse.wait_for("SELECT count(*) = 1 FROM raw.events")
    print(f"ran {took:.2f} s after CREATE EXTENSION")
    assert took < 2


def test_runs_within_two_seconds_after_brokers_are_set(make_cluster, broker, topic):
    pulse = make_pulse_idle(make_cluster, broker, topic)
    broker.produce(topic, [event()])
    assert pulse.query("SELECT * FROM pulse.pipelines") == []
    began = time.monotonic()
    pulse.cluster.configure(pulse__brokers=broker.address)
    took = seconds_until_running(pulse, began)
    print(f"ran {took:.2f} s after pulse.brokers was set")
    pulse.wait_for("SELECT count(*) = 1 FROM raw.events")
    assert took < 2
    pulse.check()


def make_pulse_idle(make_cluster, broker, topic, **settings):
    from harness.pipeline import Pulse
    cluster = make_cluster(pulse__database="pulse", pulse__topic=topic, **settings)
    cluster.query("CREATE EXTENSION pulse")
    return Pulse(cluster, broker, topic)


def test_without_brokers_nothing_holds_the_database(pulse):
    assert "brokers" in pulse.value("SELECT name FROM pg_settings WHERE name = 'pulse.brokers'")
    pulse.cluster.configure(pulse__brokers="")
    wait_until(lambda: not pulse.cluster.backends("pulse worker") and
               not pulse.cluster.backends("pulse coordinator"), "everything to let go")
    assert pulse.state() == "idle" and "brokers" in pulse.reason()
    assert "brokers" in fails(pulse, "55000", "SELECT pulse.pause('events')")
    pulse.cluster.query('CREATE DATABASE copy TEMPLATE pulse', dbname="postgres")
    pulse.cluster.query('DROP DATABASE pulse', dbname="postgres")
    mark = pulse.cluster.log_mark()
    pulse.cluster.configure(pulse__brokers=pulse.broker.address)  # the database is missing
    pulse.cluster.query('ALTER DATABASE copy RENAME TO pulse', dbname="postgres")
    pulse.produce([event()])
    wait_until(lambda: pulse.count() == 1, "it to run in the database that came back")
    assert "FATAL" not in pulse.cluster.log_text(mark)


def test_broker_comes_later_and_goes_and_comes(make_pulse, own_broker):
    topic = own_broker.create_topic("later", 1)
    own_broker.kill9()
    pulse = make_pulse(own_broker, topic)
    pulse.wait_state("starting")
    wait_until(lambda: "broker" in (pulse.reason() or ""), "the reason to be known")
    own_broker.start()
    pulse.produce([event()])
    pulse.wait_caught_up()
    pulse.wait_state("running", "idle")
    own_broker.kill9()
    pulse.wait_state("retrying")
    assert "broker" in pulse.reason()
    own_broker.start()
    pulse.produce([event()])
    pulse.wait_caught_up()
    pulse.wait_state("running", "idle")
    pulse.check()


def test_topic_comes_later_and_partitions_are_added(make_pulse, broker):
    name = f"later-{uuid.uuid4().hex[:8]}"
    pulse = make_pulse(broker, name)
    wait_until(lambda: pulse.state() == "starting" and name in (pulse.reason() or ""), "the reason")
    began = time.monotonic()
    broker.create_topic(name, 1)
    broker.produce(name, [event(event_id="1")])
    pulse.wait_for("SELECT count(*) = 1 FROM raw.events")
    assert time.monotonic() - began < 30
    broker.add_partitions(name, 4)
    producer = broker.producer()  # a new one knows the new partitions
    producer.produce(name, event(event_id="2"), partition=3)
    assert producer.flush(30) == 0
    began = time.monotonic()
    pulse.wait_for("SELECT count(*) = 2 FROM raw.events", timeout=35)
    assert time.monotonic() - began < 30
    pulse.wait_for("SELECT count(*) = 4 FROM pulse.offsets")
    assert pulse.query("SELECT partition, new_offset, reason FROM pulse.offset_log ORDER BY 1") == [
        (0, 0, "start"), (1, 0, "new partition"), (2, 0, "new partition"), (3, 0, "new partition")]
    pulse.check()


@ONE_PARTITION
@pytest.mark.server(pulse__start_position="latest")
def test_start_position(pulse):
    topic = pulse.broker.create_topic(f"start-{uuid.uuid4().hex[:8]}", 1)
    when = int(time.time()) * 1000 - 60_000  # old timestamps would fall to the topic's retention
    fifth = datetime.fromtimestamp(when / 1000 + 5, timezone.utc).isoformat()
    for number in range(10):
        pulse.broker.produce(topic, [event(event_id=str(number))], timestamp=when + number * 1000)
    wanted = {"latest": 0, "earliest": 10, "7": 3, fifth: 5}
    for number, (position, rows) in enumerate(wanted.items()):
        pulse.query(PLAIN.format(f"t{number}"))
        settings = "{}" if position == "latest" else f'{{"start_position": "{position}"}}'
        create(pulse, f"p{number}", [topic], f"public.t{number}", settings)
    pulse.wait_for("SELECT count(*) = 4 FROM pulse.offsets WHERE pipeline LIKE 'p_'")
    pulse.broker.produce(topic, [event(event_id="new")])
    for number, rows in enumerate(wanted.values()):
        wait_lines(pulse, f"public.t{number}", rows + 1)
    assert pulse.count("pulse.gaps") == 0
    pulse.broker.delete_topic(topic)


@ONE_PARTITION
def test_drop_extension_while_running_and_create_it_again(pulse):
    sender = pulse.start_producing(20_000)
    pulse.wait_for("SELECT count(*) > 1000 FROM raw.events")
    mark = pulse.cluster.log_mark()
    pulse.query("DROP EXTENSION pulse")
    wait_until(lambda: not pulse.cluster.backends("pulse worker") and
               not pulse.cluster.backends("pulse coordinator"), "everything to go away")
    log = pulse.cluster.log_text(mark)
    assert "ERROR" not in log and "FATAL" not in log and "WARNING" not in log, log
    rows = pulse.count()
    assert rows > 1000 and sender.wait() == 0

    pulse.query("CREATE EXTENSION pulse")
    # Over tables of an earlier installation it waits and says what for.
    pulse.wait_for("SELECT EXISTS (SELECT FROM pulse.stat_pipeline WHERE state = 'starting')", "it to say so")
    reason, hint = pulse.query("SELECT reason, hint FROM pulse.stat_pipeline")[0]
    assert "earlier installation" in reason and "create_pipeline" in hint
    assert pulse.count() == rows
    create(pulse, "events", [pulse.topic], "raw.events")
    pulse.wait_caught_up()
    assert pulse.count() == 20_000
    assert pulse.value("SELECT sum(count)::int FROM live.events_day") == 20_000
    assert pulse.value("SELECT duplicates FROM pulse.offsets") == rows


def test_extension_in_another_database(pulse):
    pulse.cluster.create_database("elsewhere")
    with pulse.cluster.connect(dbname="elsewhere") as connection:
        notices = []
        connection.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
        connection.execute("CREATE EXTENSION pulse")
        assert notices == [("WARNING", 'pulse runs in database "pulse" of this server: no pipeline of this one will')]
    with pytest.raises(psycopg.Error) as caught:
        pulse.cluster.query("SELECT pulse.pause('events')", dbname="elsewhere")
    assert caught.value.sqlstate == "55000" and "pulse.database" in caught.value.diag.message_hint
    assert pulse.cluster.query("SELECT * FROM pulse.pipelines", dbname="elsewhere") == []
    pulse.cluster.query("DROP DATABASE elsewhere", dbname="postgres")
    pulse.produce([event()])
    pulse.wait_caught_up()
    pulse.check()


def test_not_preloaded_is_a_warning_and_55000(make_cluster):
    cluster = make_cluster(shared_preload_libraries="")
    notices = []
    with cluster.connect() as connection:
        connection.add_notice_handler(lambda notice: notices.append(
            (notice.severity, notice.message_primary, notice.message_hint)))
        connection.execute("CREATE EXTENSION pulse")
        assert [n for n in notices if n[0] == "WARNING" and "shared_preload_libraries" in n[1] and n[2]]
        connection.execute("SELECT pulse.create_pipeline('events', '{t}')")
        for call in ("pause('events')", "resume('events')", "stop('events')", "seek('events', 'latest')",
                     "skip('events', 't', 0, 0)", "wait_until_caught_up('events')"):
            with pytest.raises(psycopg.Error) as caught:
                connection.execute(f"SELECT pulse.{call}")
            assert caught.value.sqlstate == "55000", call
        # What needs no process works.
        assert connection.execute("SELECT error_code FROM pulse.decode('events', '')").fetchone() == ("empty",)
        assert connection.execute("SELECT state FROM pulse.stat_pipeline").fetchone()[0] == "idle"
        assert connection.execute("SELECT count(*) FROM pulse.stat_worker").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM pulse.stat_partition").fetchone() == (0,)
        connection.execute("DROP EXTENSION pulse")
