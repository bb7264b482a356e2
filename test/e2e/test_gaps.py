"""What Kafka no longer holds, and records that must be passed over: nothing is skipped in silence, and every gap has numbers."""

import json
import signal
import threading

import psycopg
import pytest
from harness.pipeline import event
from harness.place import Process, wait_until

ONE_PARTITION = pytest.mark.topic(partitions=1)
GAPS = "SELECT topic_epoch, from_offset, to_offset, reason, accepted_by FROM pulse.gaps ORDER BY recorded_at"


def fails(pulse, sqlstate, sql, *parameters):
    with pytest.raises(psycopg.Error) as caught, \
            pulse.connect(options="-c statement_timeout=20s") as connection:
        connection.execute(sql, parameters or None)
    diagnosis = caught.value.diag
    assert diagnosis.sqlstate == sqlstate, f"{diagnosis.sqlstate}: {diagnosis.message_primary}"
    return f"{diagnosis.message_primary} / {diagnosis.message_hint}"


def events(count, name="e"):
    return [event(event_id=f"{name}{number}") for number in range(count)]


def state(pulse, partition=0):
    return pulse.value("SELECT state FROM pulse.stat_partition WHERE pipeline = 'events' AND partition = %s", partition)


def wait_partition(pulse, wanted, partition=0, timeout=40):
    wait_until(lambda: state(pulse, partition) == wanted, f"partition {partition} to be {wanted}", timeout)


def accept_gap(pulse, partition=0):
    pulse.query("SELECT pulse.accept_gap('events', %s, %s)", pulse.topic, partition)


def lose(pulse, before):
    """Written while the pipeline is paused, deleted before it goes on."""
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(events(50, "later"), partition=0)
    pulse.broker.delete_records(pulse.topic, 0, before)
    pulse.query("SELECT pulse.resume('events')")


# --- records are gone ----------------------------------------------------------------------------

@pytest.mark.topic(partitions=2)
def test_accept_gap_goes_on_where_the_log_begins(pulse):
    for partition in (0, 1):
        pulse.produce(events(10, f"first-{partition}-"), partition=partition)
    pulse.wait_caught_up()
    lose(pulse, 35)
    wait_partition(pulse, "offset_lost")
    assert pulse.count("pulse.gaps") == 0 and pulse.offsets()[0] == 10
    assert "lost nothing" in fails(pulse, "55000", "SELECT pulse.accept_gap('events', %s, 1)", pulse.topic)
    accept_gap(pulse)
    pulse.wait_caught_up()
    assert pulse.query(GAPS) == [(0, 10, 35, "offset lost", "postgres")]
    assert pulse.query("SELECT old_offset, new_offset, reason, changed_by FROM pulse.offset_log ORDER BY changed_at "
                       "DESC LIMIT 1") == [(10, 35, "accept_gap", "postgres")]
    assert pulse.query("SELECT kafka_partition, count(*) FROM raw.events GROUP BY 1 ORDER BY 1") == [(0, 35), (1, 10)]
    pulse.wait_state("running", "idle")
    assert "lost nothing" in fails(pulse, "55000", "SELECT pulse.accept_gap('events', %s, 0)", pulse.topic)
    pulse.check()


@ONE_PARTITION
def test_a_gap_of_records_that_were_read_before_is_none(pulse):
    """After a seek backwards: all that is lost has been read, but for what lies beyond."""
    pulse.produce(events(20))
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.pause('events')")
    pulse.query("SELECT pulse.seek('events', '5')")
    pulse.broker.delete_records(pulse.topic, 0, 12)
    pulse.query("SELECT pulse.resume('events')")
    wait_partition(pulse, "offset_lost")
    accept_gap(pulse)
    pulse.wait_caught_up()
    assert pulse.query(GAPS) == [] and pulse.count() == 20
    pulse.verify()


@ONE_PARTITION
@pytest.mark.parametrize("policy, rows, end", [("earliest", 10 + 15, 35), ("latest", 10, 60)])
def test_on_offset_lost_goes_on_by_itself_and_notes_the_gap(pulse, policy, rows, end):
    pulse.query("SELECT pulse.alter_pipeline('events', %s)", json.dumps({"on_offset_lost": policy}))
    pulse.produce(events(10))
    pulse.wait_caught_up()
    lose(pulse, 35)
    pulse.wait_for("SELECT count(*) = 1 FROM pulse.gaps")
    pulse.produce([event(event_id="new")])
    pulse.wait_caught_up()
    assert pulse.query(GAPS) == [(0, 10, end, "offset lost", f"on_offset_lost = {policy}")]
    assert pulse.count() == rows + 10 * (policy == "earliest") + 1
    pulse.wait_state("running", "idle")
    pulse.verify()


@ONE_PARTITION
@pytest.mark.server(pulse__on_offset_lost="earliest")
def test_on_offset_lost_tries_again_when_the_offsets_cannot_be_moved(pulse):
    pulse.produce(events(10))
    pulse.wait_caught_up()
    pulse.arm("before_lost_moves", "error")
    lose(pulse, 35)
    pulse.wait_fault()
    pulse.wait_caught_up()
    assert pulse.query(GAPS) == [(0, 10, 35, "offset lost", "on_offset_lost = earliest")]
    assert pulse.count() == 35
    pulse.verify()


@ONE_PARTITION
@pytest.mark.server(pulse__on_offset_lost="earliest")
def test_on_offset_lost_never_takes_a_recreated_topic_for_lost_records(pulse):
    pulse.produce(events(10))
    pulse.wait_caught_up()
    pulse.broker.delete_topic(pulse.topic)
    pulse.broker.create_topic(pulse.topic, 1)
    pulse.produce(events(3, "new"))
    wait_partition(pulse, "topic_changed")
    assert pulse.count("pulse.gaps") == 0 and pulse.count() == 10


@ONE_PARTITION
@pytest.mark.server(pulse__on_offset_lost="earliest")
def test_on_offset_lost_leaves_what_an_operator_seeks_alone(pulse):
    """The coordinator is about to ask where the log begins when somebody seeks."""
    pulse.produce(events(10))
    pulse.wait_caught_up()
    coordinator = Process(pulse.cluster.backends("pulse coordinator")[0])
    launcher = Process(pulse.cluster.backends("pulse launcher")[0])
    failures = []

    def seek():
        try:
            pulse.query("SELECT pulse.seek('events', '45')")
        except psycopg.Error as error:
            failures.append(error)
    seeking = threading.Thread(target=seek)
    try:
        lose(pulse, 35)
        worker = pulse.worker_pid()
        pulse.cluster.freeze(coordinator.pid)  # before the worker has met the broker
        wait_partition(pulse, "offset_lost")
        assert pulse.offsets() == {0: 10}
        pulse.cluster.freeze(launcher.pid)  # nobody starts another worker: the seek need not wait for one
        pulse.query("SELECT pg_terminate_backend(%s)", worker)
        Process(worker).wait_gone()
        seeking.start()
        # Posted: PostgreSQL says that its caller waits.
        pulse.wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%%pulse.seek%%' "
                       "AND wait_event = 'Extension' AND pid <> pg_backend_pid())")
    finally:
        coordinator.send(signal.SIGCONT)
        if seeking.ident:
            seeking.join(30)
        launcher.send(signal.SIGCONT)
    assert failures == []
    pulse.wait_caught_up()
    # What the seek passed over is a gap of the seek's; nothing went back.
    assert pulse.query("SELECT old_offset, new_offset, reason FROM pulse.offset_log WHERE old_offset >= 10 ORDER BY "
                       "changed_at") == [(10, 45, "seek")]
    assert pulse.count() == 10 + 15
    pulse.wait_state("running", "idle")


# --- the topic was made again ----------------------------------------------------------------------

@ONE_PARTITION
@pytest.mark.parametrize("fresh", [4, 30], ids=["smaller", "larger"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "paused"])
def test_a_recreated_topic_stops_and_starts_anew_when_accepted(pulse, fresh, running):
    pulse.produce(events(10, "old") + [b"bad"])
    pulse.wait_caught_up()
    if not running:
        pulse.query("SELECT pulse.pause('events')")
    pulse.broker.delete_topic(pulse.topic)
    if running:  # seen while it is away: what is refilled faster than anybody looks is not
        wait_partition(pulse, "retrying")
    pulse.broker.create_topic(pulse.topic, 1)
    pulse.produce(events(fresh - 1, "new") + [b"bad"])
    if not running:
        pulse.query("SELECT pulse.resume('events')")
    wait_partition(pulse, "topic_changed")
    pulse.wait_state("topic_changed")
    assert "accept_gap" in pulse.value("SELECT hint FROM pulse.stat_pipeline")
    assert (pulse.count(), pulse.count("raw.dlq"), pulse.count("pulse.gaps")) == (10, 1, 0)
    pulse.cluster.restart()  # it stays so
    wait_partition(pulse, "topic_changed")
    assert pulse.offsets() == {0: 11}

    accept_gap(pulse)
    pulse.wait_caught_up()
    assert pulse.query(GAPS) == [(0, 11, None, "topic recreated", "postgres")]
    assert pulse.query("SELECT topic_epoch, next_offset, highest_offset FROM pulse.offsets") == [(1, fresh, fresh)]
    assert pulse.count() == 10 + fresh - 1
    assert pulse.query("SELECT topic_epoch, value FROM raw.dlq ORDER BY 1") == [(0, b"bad"), (1, b"bad")]
    pulse.wait_state("running", "idle")
    pulse.verify()


@ONE_PARTITION
def test_a_worker_that_starts_knows_its_last_record_again(pulse):
    """Behind the markers of transactions and when retention has passed the record, it is the same topic."""
    producer = pulse.broker.producer(transactional_id=f"t-{pulse.topic}")
    producer.init_transactions()
    for commit in (True, False):
        producer.begin_transaction()
        for value in events(5, str(commit)):
            producer.produce(pulse.topic, value)
        producer.flush(30)
        producer.commit_transaction() if commit else producer.abort_transaction()
    # The broker writes the marker of the abort when it likes: until then it names an end before it.
    pulse.wait_for("SELECT (fp_offset, next_offset) = (4, 12) FROM pulse.offsets")
    pulse.terminate_worker()
    pulse.produce([event(event_id="next")])
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.pause('events')")
    pulse.broker.delete_records(pulse.topic, 0, 13)
    pulse.query("SELECT pulse.resume('events')")
    pulse.produce([event(event_id="last")])
    pulse.wait_caught_up()
    assert pulse.count() == 7 and pulse.count("pulse.gaps") == 0
    pulse.wait_state("running", "idle")
    pulse.verify()


def test_partitions_added_under_load_are_read_from_their_beginning(pulse):
    sender = pulse.start_producing(20_000)
    pulse.wait_for("SELECT count(*) > 2000 FROM raw.events")
    pulse.broker.add_partitions(pulse.topic, 6)
    producer = pulse.broker.producer()
    for number in range(3000):
        producer.produce(pulse.topic, event(), partition=3 + number % 3)
    assert producer.flush(60) == 0 and sender.wait() == 0
    pulse.wait_for("SELECT count(*) = 6 FROM pulse.offsets", timeout=60)
    pulse.wait_caught_up()
    assert pulse.count() == 23_000 and pulse.count("pulse.gaps") == 0
    assert pulse.query("SELECT DISTINCT new_offset, reason FROM pulse.offset_log WHERE partition >= 3") == [
        (0, "new partition")]
    pulse.check()


# --- skip --------------------------------------------------------------------------------------

LETTERS = "kafka_offset, error_class, error_code, value, kafka_key, kafka_headers, error_message"


@ONE_PARTITION
def test_skip_makes_the_record_that_holds_things_up_a_letter(pulse):
    """A row whose trigger never ends: halved down to the one record, retried for ever, until somebody skips it."""
    pulse.query("CREATE FUNCTION public.hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.event_id = 'hangs' "
                "THEN PERFORM pg_sleep(600); END IF; RETURN NEW; END $$")
    pulse.query("CREATE TRIGGER hang BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION public.hang()")
    pulse.query("""SELECT pulse.alter_pipeline('events', '{"batch_timeout": "1s"}')""")
    bad = event(event_id="hangs")
    pulse.produce(events(5))
    pulse.produce([bad], key=b"k", headers=[("h", b"v")])
    pulse.produce(events(5, "behind"))
    wait_until(lambda: "offset 5 of partition 0" in (pulse.reason() or ""), "the record to be named", 90)
    assert pulse.count() == 5
    pulse.query("SELECT pulse.skip('events', %s, 0, 5)", pulse.topic)
    pulse.wait_caught_up()
    assert pulse.letters(LETTERS) == [(5, "operator", "skipped", bad, b"k", [{"key": "h", "value": "v"}],
                                       "skipped by postgres")]
    assert pulse.count() == 10
    assert pulse.query("SELECT old_offset, new_offset, reason FROM pulse.offset_log ORDER BY changed_at DESC LIMIT 1") \
        == [(5, 6, "skip")]
    pulse.check()


@ONE_PARTITION
def test_skip_of_paused_of_later_and_of_wrong_records(pulse):
    pulse.produce(events(3))
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(events(5, "more"))
    skip = "SELECT pulse.skip('events', %s, 0, %s)"
    assert "next_offset 3" in fails(pulse, "55000", skip, pulse.topic, 2)
    assert "no record" in fails(pulse, "22023", skip, pulse.topic, 8)
    fails(pulse, "22023", "SELECT pulse.skip('events', %s, 1, 3)", pulse.topic)
    fails(pulse, "22023", "SELECT pulse.skip('events', 'no-such', 0, 3)")
    fails(pulse, "42704", "SELECT pulse.skip('none', %s, 0, 3)", pulse.topic)
    pulse.query(skip, pulse.topic, 3)  # the next one: at once
    assert pulse.letters("kafka_offset, error_code") == [(3, "skipped")] and pulse.offsets() == {0: 4}
    pulse.query(skip, pulse.topic, 6)  # a later one: when it is read
    assert pulse.offsets() == {0: 4}
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert pulse.letters("kafka_offset, error_code") == [(3, "skipped"), (6, "skipped")]
    assert pulse.count() == 6
    pulse.check()


@ONE_PARTITION
def test_skip_of_a_record_that_is_a_row_already_is_a_duplicate(pulse):
    pulse.produce(events(3))
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.pause('events')")
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    pulse.query("SELECT pulse.skip('events', %s, 0, 0)", pulse.topic)
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert (pulse.count(), pulse.letters()) == (3, [])
    assert pulse.query("SELECT records, rows, duplicates, rejects FROM pulse.offsets") == [(6, 3, 3, 0)]
    pulse.check()


@ONE_PARTITION
def test_skip_looks_with_the_rights_of_the_writer(pulse):
    """As the worker does: the owner may be hidden the rows that the role of the pipeline sees."""
    pulse.produce(events(3))
    pulse.wait_caught_up()
    pulse.query("CREATE ROLE writer NOLOGIN")
    pulse.query("GRANT USAGE ON SCHEMA raw TO writer")
    pulse.query("GRANT INSERT, SELECT (event_id, event_timestamp) ON raw.events TO writer")
    pulse.query("""SELECT pulse.alter_pipeline('events', '{"role": "writer"}')""")
    pulse.query("SELECT pulse.pause('events')")
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    skip = "SELECT pulse.skip('events', %s, 0, 0)"
    assert "permission denied" in fails(pulse, "42501", skip, pulse.topic)
    assert pulse.offsets() == {0: 0}
    pulse.query("GRANT SELECT ON raw.events TO writer")
    pulse.query(skip, pulse.topic)
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert (pulse.count(), pulse.letters()) == (3, [])
    pulse.check()
