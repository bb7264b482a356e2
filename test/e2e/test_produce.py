"""pulse.produce(): what a transaction leaves is sent when it commits, in order per key, at least once, and says when there
is no room. The judge is an ordinary client that reads the topic."""

import re
import signal
import threading

import psycopg
import pytest
from harness.place import Process, wait_until

WAITING = "SELECT count(*) FROM pulse.outbox WHERE sent_at IS NULL"


@pytest.fixture
def target(broker, topic):
    return broker.create_topic(f"{topic}-out", 3)


def wait_sent(pulse, timeout=60):
    wait_until(lambda: pulse.value(WAITING) == 0, "the outbox to be empty", timeout)


def sent(pulse, topic):
    """Messages by partition, in order; those of one outbox_id only once."""
    messages, seen = [], set()
    for message in pulse.broker.iterate(topic):
        outbox_id = int(dict(message.headers())["pulse.outbox_id"])
        if outbox_id not in seen:
            messages.append(message)
        seen.add(outbox_id)
    return messages


def test_a_record_arrives_as_it_was_produced(pulse, target):
    with pulse.connect() as session:
        ids = [session.execute(f"SELECT pulse.produce(%s, {arguments})", (target,)).fetchone()[0] for arguments in (
            r"""'\x00ff'::bytea, '\xfe'::bytea, '{"source": "shop", "none": null}'""",
            "'text with ü', 'key'", "'{\"a\": 1}'::jsonb, key => 'json'", "NULL, 'tombstone'", "''", "'\\x'::bytea, ''::bytea")]
    wait_sent(pulse)
    found = {int(dict(message.headers())["pulse.outbox_id"]): message for message in pulse.broker.iterate(target)}
    assert [(found[one].value(), found[one].key()) for one in ids] == [
        (b"\x00\xff", b"\xfe"), ("text with ü".encode(), b"key"), (b'{"a": 1}', b"json"), (None, b"tombstone"), (b"", None), (b"", b"")]
    headers = dict(found[ids[0]].headers())
    assert (headers["source"], headers["none"]) == (b"shop", None)
    for outbox_id, partition, offset, queued_us in pulse.query(
            "SELECT outbox_id, kafka_partition, kafka_offset, (extract(epoch FROM queued_at) * 1000000)::bigint FROM pulse.outbox"):
        message = found[outbox_id]
        assert (message.partition(), message.offset(), message.timestamp()[1]) == (partition, offset, queued_us // 1000)
        assert dict(message.headers())["pulse.dedup_key"].decode() == f"outbox/{outbox_id}/{queued_us}"


def test_a_record_and_another_of_a_lost_time_have_one_id_but_not_one_key(pulse, target):
    """Restored to an earlier point in time, the ids of records begin there again."""
    def produce(value):
        pulse.query("SELECT pulse.produce(%s, %s::text)", target, value)

    produce("early")
    wait_sent(pulse)
    pulse.cluster.configure(pulse__brokers="")
    produce("waiting")
    earlier = pulse.cluster.cold_copy()
    produce("lost")
    pulse.cluster.configure(pulse__brokers=pulse.broker.address)
    wait_sent(pulse)
    pulse.cluster.bring_back(earlier)
    produce("other")
    wait_sent(pulse)
    headers = [(dict(message.headers()), message.value().decode()) for message in pulse.broker.iterate(target)]
    assert sorted(value for _, value in headers) == ["early", "lost", "other", "waiting", "waiting"]
    assert sorted({(one["pulse.outbox_id"], value) for one, value in headers}) == [
        (b"1", "early"), (b"2", "waiting"), (b"3", "lost"), (b"3", "other")]
    keys = {(one["pulse.dedup_key"].decode(), value) for one, value in headers}
    assert len({key for key, _ in keys}) == len(keys) == 4
    assert all(re.fullmatch(r"outbox/\d+/\d{16}", key) for key, _ in keys)


def test_only_what_commits_is_sent(pulse, topic):
    target = f"{topic}-later"
    with pulse.connect(autocommit=False) as session:
        session.execute("SELECT pulse.produce(%s, 'kept')", (target,))
        session.execute("SAVEPOINT one")
        session.execute("SELECT pulse.produce(%s, 'taken back')", (target,))
        session.execute("ROLLBACK TO one")
        session.execute("SELECT pulse.produce(%s, 'kept too')", (target,))
        assert pulse.value("SELECT pulse._outbox_depth()") == 0
        session.commit()
        session.execute("SELECT pulse.produce(%s, 'rolled back')", (target,))
        session.rollback()
    assert pulse.value("SELECT pulse._outbox_depth()") == pulse.value(WAITING) == 2  # they wait for their topic
    pulse.broker.create_topic(target)
    wait_sent(pulse)
    assert sorted(message.value() for message in sent(pulse, target)) == [b"kept", b"kept too"]
    wait_until(lambda: pulse.value("SELECT pulse._outbox_depth()") == 0, "the counter to be 0")


def test_a_prepared_transaction_is_sent_when_it_commits(make_pulse, broker, topic, target):
    pulse = make_pulse(broker, topic, max_prepared_transactions=2)
    with pulse.connect() as session:
        session.execute("BEGIN")
        session.execute("SELECT pulse.produce(%s, 'prepared')", (target,))
        session.execute("PREPARE TRANSACTION 'one'")
        session.execute("COMMIT PREPARED 'one'")
    wait_sent(pulse)
    assert [message.value() for message in sent(pulse, target)] == [b"prepared"]
    wait_until(lambda: pulse.value("SELECT pulse._outbox_depth()") == 0, "the counter to be 0")


def test_order_per_key_holds_for_transactions_that_wait_for_each_other(pulse, target, how_many):
    """Each raises a number under a row lock and produces it: what the lock serialized must arrive in that order. Some
    take their transaction id long before, some roll back."""
    keys, each = 5, how_many(150, 2000)
    pulse.query("CREATE TABLE counters (key text PRIMARY KEY, n int NOT NULL DEFAULT 0)")
    pulse.query("CREATE TABLE noise (n int)")
    pulse.query("INSERT INTO counters SELECT 'key-' || n FROM generate_series(1, %s) n", keys)
    failures = []

    def run(seed):
        try:
            with pulse.connect(autocommit=False) as session:
                for number in range(each):
                    if (number + seed) % 3 == 0:
                        session.execute("INSERT INTO noise VALUES (1)")
                    session.execute(
                        "WITH raised AS (UPDATE counters SET n = n + 1 WHERE key = %s RETURNING key, n) "
                        "SELECT pulse.produce(%s, n::text, key) FROM raised", (f"key-{(number * 7 + seed) % keys + 1}", target))
                    if (number + seed) % 11 == 0:
                        session.rollback()
                    else:
                        session.commit()
        except Exception as failure:  # shown below
            failures.append(failure)
    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    wait_sent(pulse)
    arrived = {}
    for message in sent(pulse, target):
        arrived.setdefault(message.key().decode(), []).append(int(message.value()))
    for key, last in pulse.query("SELECT key, n FROM counters"):
        assert arrived[key] == list(range(1, last + 1)), key


def test_a_transaction_keeps_its_order_and_a_long_one_holds_nobody_up(pulse, target):
    with pulse.connect(autocommit=False) as slow:
        slow.execute("SELECT pulse.produce(%s, 'slow', 'key')", (target,))
        pulse.query("SELECT pulse.produce(%s, n::text, 'key') FROM generate_series(1, 3000) n", target)
        wait_sent(pulse)
        slow.commit()
    wait_sent(pulse)
    assert [message.value().decode() for message in sent(pulse, target)] == [str(n) for n in range(1, 3001)] + ["slow"]


@pytest.mark.server(pulse__max_queue_depth=100)
def test_a_full_queue_refuses_and_says_for_how_long(make_pulse, broker, topic):
    pulse = make_pulse(broker, topic)
    target = f"{topic}-not-there"
    pulse.query("SELECT pulse.produce(%s, 'x') FROM generate_series(1, 60)", target)
    pulse.query("SELECT pulse.produce(%s, 'x') FROM generate_series(1, 40)", target)
    with pytest.raises(psycopg.Error) as refused:
        pulse.query("SELECT pulse.produce(%s, 'x')", target)
    assert refused.value.sqlstate == "53400" and re.fullmatch(r"retry after \d+ ms", refused.value.diag.message_hint)
    assert pulse.value("SELECT queue_depth FROM pulse.metrics('events')") == 100
    pulse.cluster.restart()
    wait_until(lambda: pulse.query("SELECT true FROM pulse.stat_pipeline"), "the server")
    with pytest.raises(psycopg.Error) as refused:  # counted again
        pulse.query("SELECT pulse.produce(%s, 'x')", target)
    assert refused.value.sqlstate == "53400"
    [(state, reason)] = wait_until(lambda: pulse.query(
        "SELECT state, reason FROM pulse.stat_sender WHERE source = 'produce' AND state = 'retrying' AND reason LIKE '%%UNKNOWN%%'"),
        "the sender to say why")
    broker.create_topic(target)
    wait_sent(pulse, timeout=120)
    pulse.query("SELECT pulse.produce(%s, 'room again')", target)
    wait_sent(pulse)
    assert len(sent(pulse, target)) == 101
    with pytest.raises(psycopg.Error) as refused:
        pulse.query("SELECT pulse.produce(%s, 'x') FROM generate_series(1, 101)", target)
    assert refused.value.sqlstate == "53400" and "transaction" in refused.value.diag.message_primary


def test_a_topic_that_is_not_there_holds_no_other_up(pulse, target):
    pulse.query("SELECT pulse.produce(%s || '-missing', 'x') FROM generate_series(1, 2000)", target)
    pulse.query("SELECT pulse.produce(%s, n::text) FROM generate_series(1, 100) n", target)
    pulse.wait_for("SELECT count(*) = 100 FROM pulse.outbox WHERE sent_at IS NOT NULL")
    assert pulse.value(WAITING) == 2000


def test_a_record_too_large_for_its_topic_says_so_and_order_holds_round_it(pulse, topic):
    small = pulse.broker.create_topic(f"{topic}-small", 1, max_message_bytes=5000)
    pulse.query("SELECT pulse.produce(%s, CASE WHEN n %% 50 = 0 THEN repeat('x', 6000) ELSE n::text END, 'key') "
                "FROM generate_series(1, 500) n", small)
    pulse.wait_for("SELECT count(*) = 10 FROM pulse.outbox WHERE sent_at IS NULL AND error LIKE '%%MSG_SIZE_TOO_LARGE%%'")
    pulse.wait_for("SELECT count(*) = 490 FROM pulse.outbox WHERE sent_at IS NOT NULL")
    assert [int(message.value()) for message in sent(pulse, small)] == [n for n in range(1, 501) if n % 50]
    assert pulse.query("SELECT waiting, postponed FROM pulse.stat_sender WHERE source = 'produce'") == [(10, 10)]


def test_order_holds_when_a_batch_is_refused_and_no_record_is(pulse, topic):
    """Each record may be sent, not all that the client puts into a batch; what is in the next one comes behind."""
    medium = pulse.broker.create_topic(f"{topic}-medium", 1, max_message_bytes=500_000)
    pulse.query("SELECT pulse.produce(%s, n || repeat(' ', CASE n WHEN 300 THEN 400000 ELSE 1000 END), 'key') "
                "FROM generate_series(1, 900) n", medium)
    wait_sent(pulse)
    assert [int(message.value()) for message in sent(pulse, medium)] == list(range(1, 901))


@pytest.mark.parametrize("point", ["after_send", "before_mark", "before_mark_commits"])
def test_every_committed_record_arrives_whenever_somebody_is_killed(pulse, target, point, how_many):
    """The sender at that point; then sessions in the middle of producing, with kill -9, which restarts everything."""
    committed = []
    pulse.arm(point, "kill")
    for turn in range(how_many(3, 20)):
        try:
            with pulse.connect() as session:
                pid = session.info.backend_pid
                for number in range(30):
                    session.execute("SELECT pulse.produce(%s, %s::text, 'key')", (target, f"{turn}-{number:03d}"))
                    committed.append(f"{turn}-{number:03d}")
                    if number == 25:
                        Process(pid).send(signal.SIGKILL)
        except psycopg.OperationalError:
            pass
        wait_until(lambda: pulse.value("SELECT 1") == 1, "the server")
        wait_sent(pulse)
    assert pulse.fault_fired()
    arrived = [message.value().decode() for message in sent(pulse, target)]
    stored = [row[0] for row in pulse.query("SELECT convert_from(value, 'UTF8') FROM pulse.outbox ORDER BY outbox_id")]
    assert arrived == stored  # a commit whose answer was lost is in both
    assert set(committed) <= set(stored)


def test_many_records_in_one_transaction(pulse, target, how_many):
    count = how_many(20_000, 90_000)
    pulse.query("SELECT pulse.produce(%s, n::text, (n %% 97)::text) FROM generate_series(1, %s::int) n", target, count)
    wait_sent(pulse, timeout=120)
    last = {}
    messages = sent(pulse, target)
    for message in messages:
        key, number = message.key(), int(message.value())
        assert last.get(key, 0) < number
        last[key] = number
    assert len(messages) == count
    wait_until(lambda: pulse.value("SELECT pulse._outbox_depth()") == 0, "the counter to be 0")


def test_sent_records_go_after_seven_days_whoever_locks_one(pulse, target):
    pulse.query("SELECT pulse.produce(%s, n::text) FROM generate_series(1, 1000) n", target)
    wait_sent(pulse)
    with pulse.connect(autocommit=False) as session:
        session.execute("SELECT FROM pulse.outbox ORDER BY outbox_id LIMIT 1 FOR UPDATE")
        pulse.query("UPDATE pulse.outbox SET sent_at = sent_at - interval '8 days' WHERE outbox_id > (SELECT min(outbox_id) + 4 FROM pulse.outbox)")
        session.rollback()
        session.execute("SELECT FROM pulse.outbox ORDER BY outbox_id DESC LIMIT 1 FOR UPDATE")
        pulse.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pulse coordinator'")
        pulse.wait_for("SELECT count(*) = 6 FROM pulse.outbox")
        session.rollback()
    # And it does not wait for a lock on the table.
    with pulse.connect(autocommit=False) as session:
        session.execute("LOCK pulse.outbox")
        pulse.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pulse coordinator'")
        wait_until(lambda: pulse.cluster.backends("pulse coordinator"), "the coordinator")
        pulse.query("SELECT pulse.pause('events')")
    pulse.wait_for("SELECT count(*) = 5 FROM pulse.outbox")


def test_a_round_is_small_whatever_is_large_in_its_records(pulse, broker, target):
    """Keys and headers of half a megabyte, no value: what is in memory at a time stays within a round (4 MB)."""
    pulse.query("SELECT pulse.produce(%s, 'x')", target)
    wait_sent(pulse)  # connected
    broker.freeze()
    pulse.query("SELECT pulse.produce(%s, NULL::bytea, CASE n %% 2 WHEN 0 THEN convert_to(repeat('k', 500000), 'UTF8') END, "
                "CASE n %% 2 WHEN 1 THEN jsonb_build_object('h', repeat('h', 500000)) END) FROM generate_series(1, 40) n", target)
    in_flight = wait_until(lambda: pulse.value("SELECT in_flight FROM pulse.stat_sender WHERE in_flight > 0"), "a round")
    broker.thaw()
    assert in_flight <= 9
    wait_sent(pulse)
    assert len(sent(pulse, target)) == 41


def produce_once_there_is_room(query, *parameters):
    def produced():
        try:
            return query("SELECT pulse.produce(%s, 'x')", *parameters)
        except psycopg.errors.ConfigurationLimitExceeded:
            return None
    wait_until(produced, "room in the outbox", 15)


@pytest.mark.server(pulse__max_queue_depth=100)
def test_rows_that_an_operator_deletes_make_room(make_pulse, broker, topic):
    """One is left, so that the queue is never seen empty."""
    pulse = make_pulse(broker, topic)
    target = f"{topic}-not-there"
    pulse.query("SELECT pulse.produce(%s, 'x') FROM generate_series(1, 100)", target)
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
        pulse.query("SELECT pulse.produce(%s, 'x')", target)
    pulse.query("DELETE FROM pulse.outbox WHERE outbox_id > (SELECT min(outbox_id) FROM pulse.outbox)")
    produce_once_there_is_room(pulse.query, target)
    assert pulse.value("SELECT pulse._outbox_depth()") == pulse.value(WAITING) == 2


@pytest.mark.server(pulse__max_queue_depth=100)
def test_an_emptied_outbox_has_room_where_nothing_is_ever_sent(cluster):
    cluster.query("SELECT pulse.produce('t', 'x') FROM generate_series(1, 100)")
    cluster.query("TRUNCATE pulse.outbox")
    produce_once_there_is_room(cluster.query, "t")
    cluster.query("SELECT pulse.produce('t', 'x') FROM generate_series(1, 99)")
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
        cluster.query("SELECT pulse.produce('t', 'x')")


def test_rows_are_counted_as_of_now_in_an_old_snapshot_too(cluster):
    with cluster.connect(autocommit=False) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM pg_class")
        cluster.query("INSERT INTO pulse.outbox (topic) SELECT 't' FROM generate_series(1, 60)")
        assert old.execute("SELECT pulse._outbox_depth()").fetchone() == (60,)
    assert cluster.value("SELECT pulse._outbox_depth()") == 60


def test_a_database_where_pulse_does_not_run_takes_nothing(cluster):
    cluster.create_database("elsewhere")
    cluster.query("CREATE EXTENSION pulse", dbname="elsewhere")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
        cluster.query("SELECT pulse.produce('t', 'x')", dbname="elsewhere")
    assert "pulse.database" in refused.value.diag.message_hint
    # Nor does what waits there count here.
    cluster.query("INSERT INTO pulse.outbox (topic) SELECT 't' FROM generate_series(1, 5)", dbname="elsewhere")
    assert cluster.value("SELECT pulse._outbox_depth()", dbname="elsewhere") == 5
    assert cluster.value("SELECT pulse._outbox_depth()") == 0


@pytest.mark.topic(partitions=1)
@pytest.mark.server(max_worker_processes=4)  # two launchers, coordinator, worker
def test_no_worker_slot_for_the_sender_is_told(make_pulse, broker, topic):
    pulse = make_pulse(broker, topic, pulse__dlq_topic=broker.create_topic(f"{topic}-dead"), pulse__max_error_ratio=1)
    pulse.worker_pid()
    pulse.query("SELECT pulse.produce('anywhere', 'x')")
    pulse.produce([b"{"])
    wait_until(lambda: pulse.query(
        "SELECT source FROM pulse.stat_sender WHERE waiting = 1 AND state = 'starting' AND reason LIKE '%%background worker slot%%' "
        "AND hint LIKE '%%max_worker_processes%%' ORDER BY source") == [("dead letters",), ("produce",)], "the reason")
    [(status, reason, hint)] = pulse.query("SELECT status, reason, hint FROM pulse.health()")
    assert status == "ok" and "background worker slot" in reason and "max_worker_processes" in hint
