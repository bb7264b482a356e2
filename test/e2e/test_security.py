"""Passwords and certificates against a broker that asks for them; who sees what, and who may do what."""

import json
import uuid
from pathlib import Path

import psycopg
import pytest

from harness import place
from harness.events import stream
from harness.pipeline import event
from harness.place import wait_until
from harness.secure import MECHANISMS, PASSWORD, SCRAM_WORKS, SecureBroker

ONE_PARTITION = pytest.mark.topic(partitions=1)


@pytest.fixture(scope="module")
def secure_broker():
    broker = SecureBroker(place.private() / f"e2e-broker-{uuid.uuid4().hex[:8]}").create().start()
    yield broker
    broker.destroy()


@pytest.fixture
def broker(secure_broker):
    """The topic fixture makes its topics here, through the plain listener."""
    return secure_broker


@pytest.fixture
def secrets(broker, tmp_path_factory):
    """write(**properties): broker.write_secrets() into a file of the test's own."""
    path = place.private() / f"secrets-{uuid.uuid4().hex[:8]}"

    def write(**properties):
        return broker.write_secrets(path, **properties)

    yield write
    path.unlink(missing_ok=True)


def everything_told(pulse):
    """Whatever somebody with access to the database, the machine's process list or the log can read."""
    told = {"the log": pulse.cluster.log_text()}
    relations = [name for name, in pulse.query(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'pulse'::regnamespace AND relkind IN "
        "('r', 'v') UNION ALL SELECT unnest(ARRAY['pg_settings', 'pg_file_settings', 'pg_stat_activity', "
        "'pg_stat_ssl', 'pg_stat_progress_copy', 'pg_locks', 'pg_prepared_statements', 'raw.dlq', 'raw.events'])")]
    with pulse.connect() as connection:
        for relation in relations:
            told[relation] = str(connection.execute(f"SELECT t::text FROM {relation} t").fetchall())
        told["SHOW ALL"] = str(connection.execute("SHOW ALL").fetchall())
        told["test_connection"] = str(connection.execute("SELECT t::text FROM pulse.test_connection() t").fetchall())
    for pid in place.children(pulse.cluster.postmaster().pid):
        for name in ("cmdline", "environ", "comm"):
            try:
                told[f"{name} of {pid}"] = Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
            except OSError:
                pass  # it has ended
    return told


def check_not_told(pulse, *secrets):
    told = everything_told(pulse)
    assert len(told) > 20
    for secret in secrets:
        assert [where for where, text in told.items() if secret in text] == []


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_records_come_through_tls_and_a_password(make_pulse, broker, topic, secrets, mechanism):
    pulse = make_pulse(broker, topic, pulse__secrets_file=secrets(), **broker.server_settings(mechanism))
    pulse.produce([value for _, value in stream(3000)] + [b"{"])
    pulse.wait_caught_up()
    assert pulse.count() == 3000 and pulse.letters("error_code") == [("syntax",)]
    wait_until(lambda: broker.group_offsets("pulse"), "offsets mirrored through the same door")
    pulse.check()
    check_not_told(pulse, PASSWORD)


@pytest.mark.skipif(SCRAM_WORKS, reason="is for brokers that refuse SCRAM from this librdkafka")
def test_scram_that_new_brokers_refuse_is_explained(make_pulse, broker, topic, secrets):
    pulse = make_pulse(broker, topic, pulse__secrets_file=secrets(), **broker.server_settings("SCRAM-SHA-512"))
    hint = wait_until(lambda: pulse.value("SELECT hint FROM pulse.stat_pipeline WHERE reason LIKE '%%invalid credentials%%'"),
                      "the hint", 60)
    assert "2.6.1" in hint and "PLAIN" in hint
    assert "2.6.1" in pulse.value("SELECT hint FROM pulse.test_connection() WHERE NOT ok")


@ONE_PARTITION
def test_certificates_in_the_file_itself(make_pulse, broker, topic, secrets):
    pem = broker.authority.read_text().replace("\n", "\\n")
    path = secrets(ssl__ca__pem=pem)
    text = path.read_text()
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("ssl.ca.location")))
    pulse = make_pulse(broker, topic, pulse__secrets_file=path, **broker.server_settings())
    pulse.produce([event(event_id="1")])
    pulse.wait_caught_up()
    assert pulse.rows("event_id") == [("1",)]
    check_not_told(pulse, PASSWORD, pem[40:80])


@ONE_PARTITION
def test_wrong_password_is_said_and_mended_by_editing_the_file(make_pulse, broker, topic, secrets):
    wrong = "Wrong-Staple-4402"
    pulse = make_pulse(broker, topic, pulse__secrets_file=secrets(sasl__password=wrong), **broker.server_settings())
    wait_until(lambda: "uthentication failed" in (pulse.reason() or ""), "the reason to be shown", 60)
    assert pulse.state() in ("starting", "retrying")
    check_not_told(pulse, wrong)
    secrets()  # nothing else: no reload
    broker.produce(topic, [event(event_id="1")])
    pulse.wait_caught_up()
    assert pulse.reason() is None and pulse.rows("event_id") == [("1",)]

    # And while it runs: the new password is taken up, and a bad one does not stop what is connected for ever.
    broker.produce(topic, [event(event_id="2")])
    pulse.wait_caught_up()
    secrets(sasl__password=wrong)
    wait_until(lambda: "uthentication failed" in (pulse.reason() or ""), "the reason to be shown", 60)
    broker.produce(topic, [event(event_id="3")])
    secrets()
    pulse.wait_caught_up()
    wait_until(lambda: pulse.reason() is None, "the reason to be gone", 60)
    assert pulse.rows("event_id") == [("1",), ("2",), ("3",)]
    pulse.check()
    check_not_told(pulse, wrong, PASSWORD)


@pytest.mark.server(pulse__max_error_ratio=1)
def test_a_right_that_is_missing_keeps_letters_here_until_it_is_given(make_pulse, broker, topic, secrets):
    dead, out = broker.create_topic(f"{topic}-dead"), broker.create_topic(f"{topic}-out")
    broker.forbid_write(dead)
    pulse = make_pulse(broker, topic, pulse__secrets_file=secrets(), pulse__dlq_topic=dead, **broker.server_settings())
    pulse.produce([b"{"] * 50 + [event(event_id="1")])
    reason, hint = wait_until(lambda: next(iter(pulse.query(
        "SELECT reason, hint FROM pulse.stat_sender WHERE state = 'retrying' AND pipeline = 'events' "
        "AND reason LIKE '%%TOPIC_AUTHORIZATION_FAILED%%'")), None), "the reason to be shown", 60)
    assert "WRITE" in hint
    pulse.wait_caught_up()
    assert pulse.rows("event_id") == [("1",)] and pulse.count("raw.dlq") == 50
    # Records for a topic that may be written go meanwhile, by the same connection.
    pulse.query("SELECT pulse.produce(%s, 'x') FROM generate_series(1, 50)", out)
    pulse.wait_for("SELECT count(*) = 50 FROM pulse.outbox WHERE sent_at IS NOT NULL")
    assert pulse.value("SELECT count(*) FROM raw.dlq WHERE forwarded_at IS NOT NULL") == 0
    assert sum(broker.end_offsets(dead).values()) == 0
    broker.allow_write(dead)
    pulse.wait_for("SELECT count(*) = 50 FROM raw.dlq WHERE forwarded_at IS NOT NULL", timeout=120)
    assert {dict(message.headers())["pulse.dlq_id"].decode() for message in broker.iterate(dead)} == \
        {str(dlq_id) for dlq_id, in pulse.query("SELECT dlq_id FROM raw.dlq")}
    check_not_told(pulse, PASSWORD)


@ONE_PARTITION
def test_a_stranger_s_certificate_is_not_trusted(make_pulse, broker, topic, secrets):
    other = SecureBroker(place.private() / f"e2e-broker-{uuid.uuid4().hex[:8]}")
    place.server_directory(other.directory)
    other.authority = other.directory / "authority.pem"
    other._make_certificates()
    path = secrets(ssl__ca__location=other.authority)
    pulse = make_pulse(broker, topic, pulse__secrets_file=path, **broker.server_settings())
    wait_until(lambda: "certificate verify failed" in (pulse.reason() or ""), "the reason to be shown", 60)
    secrets()
    broker.produce(topic, [event(event_id="1")])
    pulse.wait_caught_up()
    assert pulse.rows("event_id") == [("1",)]
    other.destroy()


@ONE_PARTITION
@pytest.mark.parametrize("fault, says", [
    (lambda path: path.chmod(0o644), "chmod 0600"),
    (lambda path: path.unlink(), "No such file"),
    (lambda path: path.write_text("sasl.password\n"), "line 1: expected key=value"),
    (lambda path: path.write_text("group.id = mine\n"), "group.id"),
    (lambda path: path.write_text("sasl.kerberos.kinit.cmd = /bin/true\n"), "not allowed"),
    (lambda path: path.write_text(f"{PASSWORD}=x\n"), "unknown property"),
], ids=["mode", "missing", "no value", "owned by pulse", "runs a command", "pasted"])
def test_a_bad_secrets_file_is_named_without_its_contents(make_pulse, broker, topic, secrets, fault, says):
    path = secrets()
    fault(path)
    pulse = make_pulse(broker, topic, pulse__secrets_file=path, **broker.server_settings())
    wait_until(lambda: says in (pulse.reason() or ""), "the reason to be shown", 60)
    assert pulse.state() == "failed" and "secrets_file" in pulse.reason().replace("secrets file", "secrets_file")
    check_not_told(pulse, PASSWORD)
    secrets()
    broker.produce(topic, [event(event_id="1")])
    pulse.wait_caught_up()
    assert pulse.rows("event_id") == [("1",)]


# --- options -----------------------------------------------------------------------------------

FORBIDDEN = {
    "plugin.library.paths=/tmp/x.so": "plugin.library.paths",       # dlopen in the server
    "sasl.kerberos.kinit.cmd=/bin/true": "sasl.kerberos.kinit.cmd", # system()
    "ssl.engine.location=/tmp/x": "ssl.engine.location",
    "ssl.ca.location=/etc/shadow": "secrets file",
    "sasl.password=x": "secrets file",
    "internal.termination.signal=9": "internal.termination.signal",
    "debug=all": "debug",
    "group.id=other": "set by pulse itself",
    "bootstrap.servers=elsewhere:1": "set by pulse itself",
    "auto.offset.reset=latest": "set by pulse itself",
    "isolation.level=read_uncommitted": "set by pulse itself",
    "enable.auto.commit=true": "set by pulse itself",
    "no.such.property=1": "no.such.property",
    # librdkafka's own words:
    "security.protocol=TLS": 'Invalid value "TLS" for configuration property "security.protocol"',
    "fetch.min.bytes=0": "fetch.min.bytes",
    "fetch.min.bytes=-1": "fetch.min.bytes",
    "socket.timeout.ms=soon": "socket.timeout.ms",
    "sasl.mechanism=GSSAPI": "SCRAM-SHA-256",
    "socket.timeout.ms=1000, socket.timeout.ms=2000": "given twice",
}


def test_bad_options_are_refused_each_with_its_reason(cluster):
    cluster.query("SELECT pulse.create_pipeline('clicks', '{clicks}')")
    for options, says in FORBIDDEN.items():
        with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
            cluster.query("SELECT pulse.alter_pipeline('clicks', %s)", json.dumps({"kafka_options": options}))
        assert says in caught.value.diag.message_primary, options
        assert "secrets_file" in caught.value.diag.message_hint
    assert cluster.value("SELECT settings FROM pulse.pipelines") == {}


@ONE_PARTITION
def test_bad_options_of_the_server_are_shown_and_nothing_runs(make_pulse, broker, topic):
    pulse = make_pulse(broker, topic, pulse__brokers=broker.address, pulse__kafka_options="debug=all")
    pulse.wait_state("failed")
    assert 'pulse.kafka_options: Kafka property "debug" is not allowed' in pulse.reason()
    pulse.cluster.configure(pulse__kafka_options="")
    broker.produce(topic, [event(event_id="1")])
    pulse.wait_caught_up()
    assert pulse.rows("event_id") == [("1",)]


# --- rights ------------------------------------------------------------------------------------

ATTACKS = {
    "reset": "RESET ROLE",
    "set role": "SET ROLE postgres",
    "session": "SET SESSION AUTHORIZATION postgres",
    "config": "SELECT set_config('role', 'postgres', false)",
    "offsets": "UPDATE pulse.offsets SET next_offset = 0",
    "letters": "DELETE FROM raw.dlq",
    "pause": "SELECT pulse.pause('mine')",
    "drop": "SELECT pulse.drop_pipeline('events')",
    "superuser": "ALTER ROLE app SUPERUSER",
    "file": "COPY public.mine TO '/tmp/pulse-attack'",
    "program": "COPY public.mine TO PROGRAM 'true'",
    "authid": "SELECT rolpassword FROM pg_catalog.pg_authid",
}


@ONE_PARTITION
def test_triggers_of_a_target_have_the_rights_of_the_role_that_writes_it_and_no_more(make_pulse, broker, topic):
    pulse = make_pulse(broker, topic, pulse__brokers=broker.address)
    pulse.query("CREATE ROLE app NOLOGIN")
    pulse.query("GRANT CREATE, USAGE ON SCHEMA public TO app")
    with pulse.connect() as connection:
        connection.execute("SET ROLE app")
        connection.execute("CREATE TABLE public.mine (event_id text PRIMARY KEY, who text, session text, outcome text)")
        connection.execute("CREATE FUNCTION public.attack() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                           "NEW.who := current_user; "
                           "BEGIN EXECUTE NEW.session; NEW.outcome := 'done as ' || current_user; "
                           "EXCEPTION WHEN OTHERS THEN NEW.outcome := SQLSTATE; END; RETURN NEW; END $$")
        connection.execute("CREATE TRIGGER attack BEFORE INSERT ON public.mine FOR EACH ROW EXECUTE FUNCTION public.attack()")
    pulse.query("SELECT pulse.create_pipeline('mine', %s, 'public.mine', '{\"role\": \"app\"}')", [topic])
    pulse.produce([json.dumps({"event_id": name, "session": sql}).encode() for name, sql in ATTACKS.items()])
    pulse.wait_for(f"SELECT count(*) = {len(ATTACKS)} FROM public.mine", "the attacks to be over")
    outcomes = {name: (who, outcome) for name, who, outcome in
                pulse.query("SELECT event_id, who, outcome FROM public.mine")}
    # 42501: no privilege, or not within a security-restricted operation; 0A000: COPY needs a client there.
    assert outcomes == {name: ("app", "42501") for name in ATTACKS}
    assert pulse.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'") is False
    assert pulse.query("SELECT next_offset FROM pulse.offsets WHERE pipeline = 'mine'") == [(len(ATTACKS),)]


DELEGATED = """
    CREATE ROLE app NOLOGIN;
    GRANT CREATE, USAGE ON SCHEMA public TO app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pulse TO app;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pulse TO app"""
TAKEOVER = """
    CREATE FUNCTION public.attack() RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN ALTER ROLE app SUPERUSER; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END $$;
    CREATE FUNCTION public.attack_in_trigger() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM public.attack(); RETURN NEW; END $$"""


@ONE_PARTITION
def test_who_may_make_pipelines_becomes_no_superuser_by_them(pulse):
    pulse.query(DELEGATED)
    pulse.produce([event(event_id="1")])
    pulse.wait_caught_up()
    refused = []

    def attempt(session, *statement):
        try:
            session.execute(*statement)
        except psycopg.errors.InsufficientPrivilege as error:
            refused.append(error.diag.message_hint)

    with pulse.connect() as session:
        session.execute("SET ROLE app")
        session.execute(TAKEOVER)
        session.execute("CREATE TABLE public.mine (event_id text PRIMARY KEY)")
        session.execute("CREATE TRIGGER attack BEFORE INSERT ON public.mine FOR EACH ROW EXECUTE FUNCTION public.attack_in_trigger()")
        session.execute("SELECT pulse.create_pipeline('mine', %s, 'public.mine')", ([pulse.topic],))
        session.execute("SELECT pulse.add_stage('mine', 'own', 'filter', 'SELECT * FROM batch')")
        attempt(session, "UPDATE pulse.pipelines SET owner = 'postgres', version = version + 1 WHERE name = 'mine'")
        attempt(session, "SELECT pulse.add_stage('events', 'planted', 'filter', 'SELECT * FROM batch WHERE public.attack()')")
        attempt(session, "INSERT INTO pulse.stages (pipeline, name, at_position, kind, body) "
                         "VALUES ('events', 'planted', 1, 'filter', 'SELECT * FROM batch WHERE public.attack()')")
        attempt(session, "SELECT pulse.drop_pipeline('events')")
    pulse.produce([event(event_id="2")])
    pulse.wait_for("SELECT count(*) = 2 FROM public.mine")
    pulse.wait_for("SELECT count(*) = 2 FROM raw.events")
    assert pulse.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'") is False
    assert len(refused) == 4 and all(hint.startswith("Pipelines are changed by members of their owner") for hint in refused)
    # Nor by the role that the server names for all pipelines.
    pulse.cluster.configure(pulse__role="postgres")
    wait_until(lambda: pulse.value("SHOW pulse.role") == "postgres", "the setting to be read")
    with pulse.connect() as session:
        session.execute("SET ROLE app")
        for statement in ("SELECT pulse.alter_pipeline('mine', '{}')", "UPDATE pulse.stages SET body = body",
                          "SELECT pulse.create_pipeline('more', '{more}', 'public.mine')"):
            attempt(session, statement)
    assert len(refused) == 7


@ONE_PARTITION
@pytest.mark.server(pulse__error_ratio_min_records=10)
def test_payloads_come_into_letters_and_no_further(pulse):
    """What PostgreSQL says of a value quotes all of it."""
    pulse.query("CREATE TYPE public.mood AS ENUM ('glad', 'sad'); CREATE TABLE public.moods (event_id text PRIMARY KEY, mood public.mood)")
    pulse.query("SELECT pulse.create_pipeline('moods', %s, 'public.moods', '{\"max_error_ratio\": 1}')", [pulse.topic])
    pulse.query("SELECT pulse.stop('events')")
    value = "begins\n" + "x" * 300 + "behind-byte-300" + "x" * 10_000
    pulse.produce([json.dumps({"event_id": str(i), "mood": value}).encode() for i in range(40)])
    pulse.wait_for("SELECT count(*) = 40 FROM raw.dlq")
    assert pulse.value("SELECT bool_and(error_message LIKE '%%behind-byte-300%%') FROM raw.dlq")
    pulse.query("SELECT pulse.alter_pipeline('moods', '{\"max_error_ratio\": 0.1}')")
    pulse.produce([json.dumps({"event_id": str(i), "mood": value}).encode() for i in range(40, 80)])
    pulse.wait_for("SELECT state = 'stopped' FROM pulse.stat_pipeline WHERE pipeline = 'moods'")
    reason = pulse.value("SELECT reason FROM pulse.pipelines WHERE name = 'moods'")
    assert 'sql_error: invalid input value for enum public.mood: "begins\\nxxx' in reason and len(reason) < 400
    # And an error that stops it: of a trigger, which quotes what it likes.
    pulse.query("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION '%', NEW.event_id USING ERRCODE = '42000', DETAIL = NEW.event_id, HINT = NEW.event_id; END $$; "
                "CREATE TRIGGER refuse BEFORE INSERT ON public.moods FOR EACH ROW EXECUTE FUNCTION public.refuse(); "
                "SELECT pulse.alter_pipeline('moods', '{\"max_error_ratio\": 1}')")
    pulse.query("SELECT pulse.seek('moods', 'latest')")
    pulse.query("SELECT pulse.resume('moods')")
    pulse.produce([json.dumps({"event_id": value[:1500]}).encode()])
    pulse.wait_for("SELECT state = 'failed' AND reason LIKE '42000 begins%%' AND hint LIKE 'begins%%' "
                   "FROM pulse.stat_pipeline WHERE pipeline = 'moods'")
    assert "behind-byte-300" not in pulse.cluster.log_text()
    assert "behind-byte-300" not in str(pulse.query("SELECT reason, hint FROM pulse.pipelines UNION ALL "
                                                    "SELECT reason, hint FROM pulse.stat_pipeline"))


OWNED = ("raw.dlq", "live._events_minute", "live._events_hour", "live._events_day", "live._user_day")
WATCH = """
    CREATE TABLE public.seen (writer text, of_table text, operation text);
    GRANT INSERT ON public.seen TO PUBLIC;
    CREATE FUNCTION public.watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM public.attack();
        INSERT INTO public.seen VALUES (current_user, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, TG_OP);
        RETURN coalesce(NEW, OLD); END $$"""


@ONE_PARTITION
@pytest.mark.server(pulse__counters="Minute, HOUR,day,user_day")
def test_triggers_of_letters_and_counters_have_the_rights_of_their_table_s_owner(pulse):
    pulse.produce([event(event_id="1")])
    pulse.wait_caught_up()
    pulse.query("CREATE ROLE app NOLOGIN; GRANT USAGE ON SCHEMA raw, live TO app; GRANT CREATE, USAGE ON SCHEMA public TO app")
    for table in OWNED:
        pulse.query(f"ALTER TABLE {table} OWNER TO app")
    with pulse.connect() as session:
        session.execute("SET ROLE app")
        session.execute(TAKEOVER)
        session.execute(WATCH)
        for table in OWNED:
            session.execute(f"CREATE TRIGGER watch BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION public.watch()")
    pulse.produce([b"{", b"[", event(event_id="2"), event(event_id="5", user_id=None), b'{"event_id": "3"}'])
    pulse.wait_caught_up()
    assert pulse.count() == 2 and pulse.count("raw.dlq") == 4
    # From a superuser's session: its own statements, and those of a replay.
    pulse.query("SELECT pulse.ingest('events', %s)", '[{"event_id": "4"}]')
    pulse.query("ALTER TABLE raw.events ALTER COLUMN user_id SET DEFAULT 'nobody'")
    pulse.query("CALL pulse.dlq_replay()")
    first, = pulse.query("SELECT min(dlq_id) FROM raw.dlq")[0]
    for statement in (f"SELECT pulse.dlq_discard('{{{first}}}', 'of no use')", f"SELECT pulse.dlq_replay_as({first}, '{{}}')",
                      "SELECT pulse.dlq_purge('0')", "SELECT pulse.rebuild_counters('events')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
            pulse.query(statement)
        assert "would have the rights of a superuser" in caught.value.diag.message_primary
    # An operator's, who is none, has always written with his own.
    pulse.query("CREATE ROLE operator IN ROLE app; GRANT USAGE ON SCHEMA pulse TO operator; "
                "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pulse TO operator")
    with pulse.connect() as session:
        session.execute("SET ROLE operator")
        session.execute("SELECT pulse.dlq_discard(%s, 'of no use')", ([first],))
        # But not where a function would do it with the rights of the extension's owner.
        for statement in ("SELECT pulse._forget_counts('events', 'public.other', false)",
                          "SELECT pulse._adopt_counts('events', 'raw.events', 'day', NULL, NULL, NULL, NULL)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
                session.execute(statement)
            assert caught.value.diag.message_hint.startswith("Give the table to the owner of the extension")
    # And the records read again.
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    pulse.wait_caught_up()
    pulse.check()
    assert {writer for writer, in pulse.query("SELECT DISTINCT writer FROM public.seen")} == {"app", "operator"}
    assert {table for table, in pulse.query("SELECT DISTINCT of_table FROM public.seen")} == set(OWNED)
    assert pulse.query("SELECT operation FROM public.seen WHERE of_table = 'raw.dlq' AND writer = 'app' GROUP BY 1 ORDER BY 1") \
        == [("INSERT",), ("UPDATE",)]
    assert pulse.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'") is False


PLANTED = """
    CREATE SCHEMA raw;
    GRANT USAGE ON SCHEMA raw TO PUBLIC;
    CREATE FUNCTION raw.attack() RETURNS text LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RAISE LOG 'attacked as %', current_user; RETURN 'events'; END $$;
    CREATE VIEW raw.dlq AS SELECT 1::bigint AS dlq_id, raw.attack() AS pipeline, NULL::bytea AS kafka_key, NULL::bytea AS value,
        NULL::jsonb AS kafka_headers, 'new' AS status, now() AS first_seen_at, NULL::timestamptz AS forwarded_at,
        NULL::text AS forward_error, NULL::timestamptz AS forward_after, 't' AS kafka_topic WHERE raw.attack() <> '';
    GRANT SELECT ON raw.dlq TO PUBLIC"""


@ONE_PARTITION
@pytest.mark.extension(False)
def test_what_a_stranger_planted_as_raw_dlq_is_not_run(make_pulse, broker, topic):
    """Whoever may create schemas was there before pulse was."""
    dead = broker.create_topic(f"{topic}-dead")
    pulse = make_pulse(broker, topic, pulse__dlq_topic=dead)
    pulse.query("CREATE ROLE app; GRANT CREATE ON DATABASE pulse TO app; CREATE ROLE watcher IN ROLE pg_monitor")
    with pulse.connect() as connection:
        connection.execute("SET ROLE app")
        connection.execute(PLANTED)
        connection.execute("SELECT FROM raw.dlq")
    assert pulse.cluster.log_text().count("attacked as app") > 0
    pulse.query("CREATE EXTENSION pulse")
    # A pipeline that was there before somebody dropped raw.
    pulse.query("INSERT INTO pulse.pipelines (name, topics, target, columns, owner, desired_state) "
                "VALUES ('events', ARRAY[%s], 'raw.events', '{}', 'postgres', 'stopped')", topic)
    pulse.query("SELECT pulse.produce(%s, 'x')", dead)  # makes coordinator and sender look round
    pulse.wait_for("SELECT count(*) = 1 FROM pulse.outbox WHERE sent_at IS NOT NULL")
    with pulse.connect() as connection:
        connection.execute("SET ROLE watcher")
        connection.execute("SELECT * FROM pulse.stat_sender")
        connection.execute("SELECT * FROM pulse.health()")
        connection.execute("SELECT * FROM pulse.metrics('events')")
    assert "attacked as postgres" not in pulse.cluster.log_text()
