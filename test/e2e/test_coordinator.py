"""What the coordinator decides: which partitions there are, which workers run, what it says when they
can't."""

import signal
import uuid

import psycopg
import pytest

from harness import place
from harness.kafka import Broker
from harness.pipeline import event
from harness.place import Process, wait_until
from harness.secure import SCRAM_WORKS

ONE_PARTITION = pytest.mark.topic(partitions=1)
PLAIN = "CREATE TABLE public.{} (event_id text PRIMARY KEY, user_id text, kafka_topic text, " \
        "kafka_partition int, kafka_offset bigint)"


def create(pulse, name, topics, target, settings="{}"):
    pulse.query("SELECT pulse.create_pipeline(%s, %s, %s, %s)", name, topics, target, settings)


def told(pulse, name="events"):
    """state, reason, hint"""
    return pulse.query("SELECT state, reason, hint FROM pulse.stat_pipeline WHERE pipeline = %s", name)[0]


def coordinator(pulse):
    return wait_until(lambda: pulse.cluster.backends("pulse coordinator"), "the coordinator")[0]


# --- answers of the broker ---------------------------------------------------------------------

@ONE_PARTITION
@pytest.mark.parametrize("moment", ["before_probe", "before_start"])
def test_answer_about_a_dropped_pipeline_starts_nothing_of_the_next(pulse, broker, moment):
    """The broker is being asked, or has answered, when the pipeline is dropped and another one with
    its name is made."""
    old = f"old-{uuid.uuid4().hex[:8]}"
    pulse.query("SELECT pulse.drop_pipeline('events')")
    pulse.query(PLAIN.format("plain"))
    create(pulse, "other", [old], "public.plain")
    pulse.wait_for("SELECT reason LIKE '%%does not exist' FROM pulse.stat_pipeline "
                   "WHERE pipeline = 'other'")
    pulse.arm(moment, "stop")
    if moment == "before_probe":
        pulse.wait_fault()
    broker.create_topic(old, 1)
    broker.produce(old, [event(event_id="old")])
    pulse.wait_fault()
    with pulse.connect(autocommit=False) as connection:
        connection.execute("SELECT pulse.drop_pipeline('other')")
        connection.execute("SELECT pulse.create_pipeline('other', %s, 'public.plain')", ([pulse.topic],))
    Process(coordinator(pulse)).send(signal.SIGCONT)
    pulse.produce([event(event_id="new")])
    pulse.wait_for("SELECT count(*) > 0 FROM public.plain")
    assert pulse.query("SELECT event_id FROM public.plain") == [("new",)]
    assert pulse.query("SELECT topic FROM pulse.offsets") == [(pulse.topic,)]
    broker.delete_topic(old)


@ONE_PARTITION
def test_bad_topic_expression_is_named_and_not_taken_for_broker_trouble(pulse):
    """create_pipeline refuses it; a restored table may still hold one."""
    pulse.query("UPDATE pulse.pipelines SET topics = ARRAY['^a\\d'], version = version + 1")
    pulse.wait_state("failed")
    _, reason, hint = told(pulse)
    assert "^a\\d" in reason and "broker" not in reason
    assert "expression" in hint
    pulse.query("UPDATE pulse.pipelines SET topics = ARRAY[%s], version = version + 1", pulse.topic)
    pulse.produce([event()])
    pulse.wait_caught_up()
    pulse.wait_state("running", "idle")


# --- what stands in the way --------------------------------------------------------------------

def test_pipelines_beyond_the_limit_say_so(pulse):
    pulse.query("INSERT INTO pulse.pipelines SELECT 'p' || lpad(n::text, 2, '0'), topics, target, settings, "
                "columns, owner, 'paused' FROM pulse.pipelines, generate_series(0, 63) n")
    pulse.query("UPDATE pulse.pipelines SET desired_state = 'running' WHERE name = 'p63'")
    state, reason, hint = told(pulse, "p63")
    assert state == "starting" and "64" in reason and "Drop" in hint
    pulse.query("DELETE FROM pulse.pipelines WHERE name = 'p00'")
    wait_until(lambda: told(pulse, "p63")[0] in ("running", "idle"), "the pipeline that has room now")


@pytest.mark.server(max_worker_processes=4, pulse__workers=3)  # two launchers, coordinator, one more
def test_partitions_go_to_the_workers_that_found_a_slot(pulse):
    pulse.produce_events(3000)
    pulse.wait_caught_up()
    pulse.check()
    state, reason, hint = told(pulse)
    assert state in ("running", "idle")
    assert "slot" in reason and "max_worker_processes" in hint


@ONE_PARTITION
@pytest.mark.extension(False)
@pytest.mark.parametrize("slots", [2, 3])  # not even the coordinator; no worker
def test_no_slot_at_all_is_told(make_pulse, broker, topic, slots):
    pulse = make_pulse(broker, topic, max_worker_processes=slots)
    pulse.query("CREATE EXTENSION pulse")
    if slots == 2:
        create(pulse, "events", [topic], "raw.events")
    wait_until(lambda: pulse.state() == "starting" and "max_worker_processes" in (told(pulse)[2] or ""),
               "the reason")
    assert told(pulse)[1]


@ONE_PARTITION
@pytest.mark.server(max_worker_processes=6)
def test_more_workers_than_pulse_can_run_are_told(pulse, broker):
    """127 processes for all pipelines together."""
    wide = f"wide-{uuid.uuid4().hex[:8]}"
    broker.create_topic(wide, 32)
    pulse.query(PLAIN.format("plain"))
    for number in range(5):
        create(pulse, f"wide{number}", [wide], "public.plain", '{"workers": 32}')
    wait_until(lambda: any("127" in (told(pulse, f"wide{number}")[1] or "") for number in range(5)),
               "the limit to be told")
    broker.delete_topic(wide)


# --- what takes effect at once -----------------------------------------------------------------

@ONE_PARTITION
@pytest.mark.parametrize("act", ["SELECT pulse.alter_pipeline('events', '{}')", "SELECT pulse.resume('events')"])
def test_repaired_pipeline_does_not_wait_out_its_back_off(pulse, act):
    pulse.query("ALTER TABLE raw.events RENAME COLUMN page_url TO url")
    pulse.produce([event()])
    pulse.wait_state("failed")
    pulse.wait_for("SELECT next_retry_at - clock_timestamp() > interval '7 s' FROM pulse.stat_worker",
                   "a long back-off", timeout=60)
    if "resume" in act:
        pulse.query("ALTER TABLE raw.events RENAME COLUMN url TO page_url")
        # Mending the table itself wakes nobody up.
    began = pulse.value("SELECT clock_timestamp()")
    pulse.query(act)
    pulse.wait_caught_up()
    assert pulse.value("SELECT ingested_at - %s < interval '4 s' FROM raw.events", began)
    assert pulse.state() in ("running", "idle")


def scram_broker(directory):
    """A broker with a second listener, where users have passwords. Returns it and that address."""
    port, controller, secure = (place.free_port() for _ in range(3))
    broker = Broker(directory, **{
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SECURE://127.0.0.1:{secure}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-256",
        "listener.name.secure.scram-sha-256.sasl.jaas.config":
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"})
    broker.create()
    (broker.directory / "ports").write_text(f"{port}\n")
    return broker.start(), f"127.0.0.1:{secure}"


def set_password(broker, password):
    from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
    upsert = UserScramCredentialUpsertion(
        "reader", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), password.encode())
    for future in broker.admin.alter_user_scram_credentials([upsert]).values():
        future.result(30)


@pytest.mark.skipif(not SCRAM_WORKS, reason="the broker refuses SCRAM from this librdkafka")
@pytest.mark.extension(False)
def test_rotated_password_takes_effect_without_a_reload(make_pulse):
    broker, address = scram_broker(place.private() / f"e2e-broker-{uuid.uuid4().hex[:8]}")
    try:
        set_password(broker, "first-secret")
        broker.create_topic("events", 2)
        secrets = place.private() / f"secrets-{uuid.uuid4().hex[:8]}"

        def write(password):
            secrets.write_text(f"sasl.username=reader\nsasl.password={password}\n")
            secrets.chmod(0o600)
            place.give_to_server(secrets)

        write("first-secret")
        pulse = make_pulse(broker, "events", pulse__brokers=address, pulse__secrets_file=secrets,
                           pulse__kafka_options="security.protocol=SASL_PLAINTEXT,sasl.mechanism=SCRAM-SHA-256")
        pulse.query("CREATE EXTENSION pulse")
        pulse.wait_created()
        pulse.produce([event() for _ in range(10)])
        pulse.wait_caught_up()
        worker = pulse.worker_pid()
        secrets.touch()  # the same content: nothing happens

        set_password(broker, "second-secret")
        write("second-secret")
        wait_until(lambda: pulse.worker_pid() != worker, "a worker with the new password", 20)
        broker.stop()
        broker.start()  # who has the old one is no longer let in
        pulse.produce([event() for _ in range(10)])
        pulse.wait_caught_up()
        wait_until(lambda: pulse.state() in ("running", "idle"), "the broker to be back")
        pulse.check()
        log = pulse.cluster.log_text()
        assert "first-secret" not in log and "second-secret" not in log
        secrets.unlink()
    finally:
        broker.destroy()


# --- when it does not get on ---

@ONE_PARTITION
@pytest.mark.server(pulse__batch_timeout="1s", pulse__stall_after="2s")
def test_a_coordinator_that_does_not_move_is_told(pulse):
    pulse.produce([event()])
    pulse.wait_caught_up()
    old = pulse.cluster.freeze(coordinator(pulse))
    try:
        pulse.wait_for("SELECT status = 'stalled' AND reason LIKE 'the coordinator, process %% does not move' FROM pulse.health()")
        pulse.produce([event()])  # workers go on
        pulse.wait_for("SELECT count(*) = 2 FROM raw.events")
    finally:
        old.send(signal.SIGCONT)
    pulse.wait_for("SELECT status = 'ok' FROM pulse.health()")


@ONE_PARTITION
def test_a_coordinator_that_fails_again_and_again_is_told(pulse):
    pulse.produce([event()])
    pulse.wait_caught_up()
    pulse.query("ALTER TABLE pulse.pipelines RENAME COLUMN topics TO elsewhere")
    pulse.wait_for("SELECT status = 'stalled' AND reason LIKE 'the coordinator does not get on: %%' FROM pulse.health()", timeout=60)
    pulse.query("ALTER TABLE pulse.pipelines RENAME COLUMN elsewhere TO topics")
    pulse.wait_for("SELECT status = 'ok' FROM pulse.health()", timeout=90)


# --- what is left behind -----------------------------------------------------------------------

@ONE_PARTITION
def test_no_worker_outlives_the_extension(pulse):
    """The coordinator that would have told it to go was not there."""
    pulse.produce([event()])
    pulse.wait_caught_up()
    old = pulse.cluster.freeze(coordinator(pulse))
    pulse.query("DROP EXTENSION pulse")
    pulse.query("SELECT pg_terminate_backend(%s)", old.pid)
    old.send(signal.SIGCONT)
    old.wait_gone()
    for kind in ("pulse worker", "pulse coordinator"):
        wait_until(lambda kind=kind: not pulse.cluster.backends(kind), f"every {kind} to go away")


@ONE_PARTITION
def test_partitions_share_the_state_of_their_pipeline(pulse):
    def state():
        return pulse.value("SELECT state FROM pulse.stat_partition")
    pulse.produce([event()])
    pulse.wait_caught_up()
    wait_until(lambda: state() == "running", "the partition to run")
    for call, wanted in (("pause", "paused"), ("stop", "stopped")):
        pulse.query(f"SELECT pulse.{call}('events')")
        assert state() == wanted
        pulse.query("SELECT pulse.resume('events')")
        wait_until(lambda: state() == "running", "the partition to run again")
    pulse.query("ALTER TABLE raw.events RENAME COLUMN page_url TO url")
    pulse.produce([event()])
    pulse.wait_state("failed")
    wait_until(lambda: state() == "failed", "the partition to say so")


def test_trouble_of_the_coordinator_bears_its_name(pulse):
    with pulse.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE pulse.pipelines IN ACCESS EXCLUSIVE MODE")
        wait_until(lambda: "pulse coordinator is retrying" in pulse.cluster.log_text(), "the log to say so", 40)
    assert 'pipeline ""' not in pulse.cluster.log_text()


@pytest.mark.server(pulse__partition_slots=3)
@pytest.mark.topic(partitions=5)
def test_partitions_beyond_what_there_is_room_for_are_not_read_and_it_is_said(pulse):
    for partition in range(5):
        pulse.produce([event()], partition=partition)
    pulse.wait_for("SELECT state = 'failed' FROM pulse.stat_pipeline")
    pulse.wait_for("SELECT count(*) = 3 FROM raw.events")
    reason, hint = pulse.query("SELECT reason, hint FROM pulse.stat_pipeline")[0]
    assert "2 partitions are not read: pulse has room for 3 of all pipelines" in reason and "fewer partitions" in hint
    assert pulse.query("SELECT status FROM pulse.health()") == [("error",)]
    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
        pulse.query("SELECT pulse.wait_until_caught_up('events')")
    # Nobody takes the others' partitions away because of it, probe after probe.
    fences = pulse.query("SELECT partition, fence FROM pulse.offsets ORDER BY partition")
    for _ in range(2):
        now = pulse.value("SELECT clock_timestamp()")
        pulse.wait_for("SELECT min(watermarks_at) > %s FROM pulse.stat_partition", parameters=(now,))
    assert len(fences) == 3 and pulse.query("SELECT partition, fence FROM pulse.offsets ORDER BY partition") == fences
    assert pulse.log_since().count("2 partitions are not read") == 1
    pulse.cluster.configure(pulse__partition_slots=5)
    pulse.wait_caught_up()
    assert pulse.count() == 5 and pulse.value("SELECT pulse.wait_until_caught_up('events')")
    pulse.wait_for("SELECT state IN ('running', 'idle') FROM pulse.stat_pipeline")
    pulse.check()
