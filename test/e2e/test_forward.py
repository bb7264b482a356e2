"""Dead letters on their way to their topic: each at least once, as it was, whoever dies meanwhile; what cannot be
sent says why and holds nothing else up. The judge is an ordinary client that reads the topic."""

import re
import signal
import threading
import time

import psycopg
import pytest
from harness.events import SPOILERS, stream
from harness.load import trial
from harness.pipeline import event
from harness.place import Process, wait_until

pytestmark = pytest.mark.server(pulse__max_error_ratio=1)

WAITING = "SELECT count(*) FROM raw.dlq WHERE forwarded_at IS NULL"
BAD = SPOILERS["syntax"]


@pytest.fixture
def line(make_pulse, broker, topic):
    """A pipeline with a dead-letter topic that is there: line.dead."""
    return with_dead_topic(make_pulse, broker, topic)


def with_dead_topic(make_pulse, broker, topic, *, pulse=None, **settings):
    dead = broker.create_topic(f"{topic}-dead", 3, **settings)
    pulse = make_pulse(broker, topic, pulse__dlq_topic=dead, **(pulse or {}))
    pulse.dead = dead
    return pulse


def headers_of(message):
    return {name: value for name, value in message.headers() or []}  # of two, the last one counts


def forwarded(pulse, dead=None):
    """dlq_id -> the messages that carry it."""
    found = {}
    for message in pulse.broker.iterate(dead or pulse.dead):
        found.setdefault(int(headers_of(message)["pulse.dlq_id"]), []).append(message)
    return found


def wait_forwarded(pulse, letters=None, timeout=60):
    if letters is not None:
        pulse.wait_for("SELECT count(*) >= %s FROM raw.dlq", timeout=timeout, parameters=(letters,))
    wait_until(lambda: pulse.value(WAITING) == 0, "all letters to be forwarded", timeout)


def prove(pulse, dead=None):
    """Every letter is in the topic, as it was, and nothing else is. Returns how many came more than once."""
    there = forwarded(pulse, dead)
    letters = {row[0]: row[1:] for row in pulse.query(
        "SELECT dlq_id, value, kafka_key, (extract(epoch FROM kafka_timestamp) * 1000)::bigint, kafka_topic, "
        "kafka_partition, kafka_offset, error_code FROM raw.dlq")}
    assert there.keys() == letters.keys()
    for dlq_id, (value, key, timestamp, topic, partition, offset, code) in letters.items():
        for message in there[dlq_id]:
            headers = headers_of(message)
            assert (message.value(), message.key(), message.timestamp()[1]) == (value, key, timestamp)
            assert [headers[f"__connect.errors.{name}"].decode() for name in ("topic", "partition", "offset")] == \
                [topic, str(partition), str(offset)]
            assert headers["pulse.error_code"].decode() == code
            assert headers["pulse.dedup_key"].decode() == f"events/{topic}/0/{partition}/{offset}"
    return sum(len(messages) - 1 for messages in there.values())


def sender(pulse):
    return wait_until(lambda: pulse.cluster.backends("pulse sender"), "the sender")[0]


def stat(pulse, columns="state, reason, hint"):
    return pulse.query(f"SELECT {columns} FROM pulse.stat_sender WHERE pipeline = 'events'")[0]


def test_letters_arrive_as_they_were(line):
    [(_, good)] = stream(1)
    sent = [(None if code == "depth" else code.encode(), spoil(good)) for code, spoil in SPOILERS.items()]
    line.produce(sent, headers=[("trace", b"abc"), ("raw", b"\xff\x00"), ("none", None)],
                 timestamp=int(time.time() * 1000) - 3_600_123)
    line.produce([(b"", b"{")], headers=[("pulse.dlq_id", b"not mine"), ("pulse.dedup_key", b"nor this")])
    line.produce([good])
    wait_forwarded(line, len(sent) + 1)
    assert prove(line) == 0
    source = {(message.partition(), message.offset()): message for message in line.broker.iterate(line.topic)}
    for message in [one for messages in forwarded(line).values() for one in messages]:
        headers = headers_of(message)
        origin = source[int(headers["__connect.errors.partition"]), int(headers["__connect.errors.offset"])]
        assert (message.key(), message.value(), message.timestamp()) == (origin.key(), origin.value(), origin.timestamp())
        assert message.headers()[:len(origin.headers())] == origin.headers()
        assert headers["__connect.errors.exception.class.name"].startswith(b"pulse.")
        assert headers["__connect.errors.exception.message"] and headers["__connect.errors.stage"] == b"VALUE_CONVERTER"
        assert headers["__connect.errors.connector.name"] == b"events"
    assert stat(line, "state, waiting, sent") == ("idle", 0, len(sent) + 1)


def test_a_row_that_postgresql_refused_carries_its_sqlstate(line):
    line.query("ALTER TABLE raw.events ADD CHECK (user_id <> 'refused')")
    line.produce([event(user_id="refused")])
    wait_forwarded(line, 1)
    [[message]] = forwarded(line).values()
    headers = headers_of(message)
    assert (headers["pulse.error_code"], headers["pulse.sqlstate"]) == (b"sql_error", b"23514")
    assert headers["__connect.errors.stage"] == b"TASK_PUT"


@pytest.mark.topic(partitions=1)
def test_a_letter_and_another_of_a_lost_time_have_one_id_but_not_one_key(line):
    """Restored to an earlier point in time, the ids of letters begin there again."""
    line.produce([b"{early"] * 2)
    line.query("SELECT pulse.ingest('events', '[{\"event_id\": \"early\"}]')")
    wait_forwarded(line, 3)
    earlier = line.cluster.cold_copy()
    line.produce([b"{late"] * 2)
    wait_forwarded(line, 5)
    line.query("SELECT pulse.ingest('events', '[{\"event_id\": \"lost\"}]')")
    wait_forwarded(line, 6)
    line.cluster.bring_back(earlier, pulse__brokers="")
    line.query("SELECT pulse.ingest('events', '[{\"event_id\": \"other\"}]')")
    line.cluster.configure(pulse__brokers=line.broker.address)
    wait_forwarded(line, 6)

    by_id, by_key = {}, {}
    for message in line.broker.iterate(line.dead):
        headers = headers_of(message)
        letter = (headers.get("__connect.errors.offset"), message.value())
        by_id.setdefault(headers["pulse.dlq_id"], set()).add(letter)
        by_key.setdefault(headers["pulse.dedup_key"].decode(), []).append(letter)
    assert sorted(len(letters) for letters in by_id.values()) == [1, 1, 1, 2, 2, 2], "three ids are taken twice"
    assert all(len(set(letters)) == 1 for letters in by_key.values())
    of_topic = {f"events/{line.topic}/0/0/{offset}": 1 + (offset >= 2) for offset in range(4)}  # the late ones came twice
    assert {key: len(letters) for key, letters in by_key.items() if key in of_topic} == of_topic
    others = by_key.keys() - of_topic
    assert all(re.fullmatch(r"events/ingest/\d+/\d{16}", key) for key in others)
    assert sorted(by_key[key][0][1].decode() for key in others) == [f'{{"event_id": "{name}"}}' for name in ("early", "lost", "other")]


@pytest.mark.server(pulse__dlq_topic="")
def test_without_a_topic_nothing_is_sent_and_later_everything_is(pulse):
    dead = pulse.broker.create_topic(f"{pulse.topic}-later")
    pulse.produce([BAD(event()) for _ in range(20)])
    pulse.wait_caught_up()
    assert pulse.query("SELECT * FROM pulse.stat_sender") == []
    assert pulse.cluster.backends("pulse sender") == []
    pulse.query("SELECT pulse.dlq_discard(ARRAY(SELECT dlq_id FROM raw.dlq LIMIT 5), 'nobody needs them')")
    pulse.query("SELECT pulse.alter_pipeline('events', jsonb_build_object('dlq_topic', %s::text))", dead)
    wait_forwarded(pulse, 20)
    assert prove(pulse, dead) == 0
    status = [headers_of(message[0])["pulse.status"] for message in forwarded(pulse, dead).values()]
    assert sorted(status) == [b"discarded"] * 5 + [b"new"] * 15


@pytest.mark.parametrize("action", ["kill", "fatal", "error"])
@pytest.mark.parametrize("point", ["after_send", "before_mark", "before_mark_commits", "after_mark"])
def test_every_letter_arrives_whenever_the_sender_dies(line, point, action):
    line.produce([BAD(event()) for _ in range(10)])
    wait_forwarded(line, 10)
    line.arm(point, action)
    sent = 10
    def fired():
        nonlocal sent
        if line.fault_fired():
            return True
        line.produce([BAD(event()) for _ in range(50)])
        sent += 50
        return wait_until(lambda: line.fault_fired() or forwarded_all(line), "the sender")  and line.fault_fired()
    wait_until(fired, f"{action} at {point}")
    line.produce([BAD(event()) for _ in range(50)])
    line.wait_for("SELECT true", "the server to be back")
    wait_forwarded(line, sent + 50)
    prove(line)
    line.check()


def forwarded_all(pulse):
    try:
        return pulse.behind() == 0 and pulse.value(WAITING) == 0
    except Exception:  # it was killed between the two
        return False


def test_kills_of_worker_sender_and_broker_lose_no_letter(make_pulse, own_broker, how_many):
    """5 % rejects of all kinds."""
    pulse = with_dead_topic(make_pulse, own_broker, own_broker.create_topic("events"))
    rounds, goal = how_many(2, 12), how_many(6_000, 200_000)
    with trial(pulse, seed=601, rate=how_many(1000, 2000), bad=0.05) as run:
        for _ in range(rounds):
            run.progress()
            since = time.time()
            pulse.kill9_worker()
            run.resumed(since)
            run.progress()
            pulse.crashes_expected = True
            Process(sender(pulse)).send(signal.SIGKILL)
            run.resumed(time.time())
            own_broker.kill9()
            own_broker.start()
            run.resumed(time.time(), timeout=120)
        wait_until(lambda: run.total() >= goal, f"{goal} records", 600)
    wait_forwarded(pulse, 100, timeout=120)
    again = prove(pulse)
    letters = pulse.count("raw.dlq")
    print(f"\n   {letters} letters in the topic, {again} of them more than once")


def test_letters_that_cannot_be_sent_slow_nothing(make_pulse, broker, topic):
    """The topic is not there."""
    pulse = make_pulse(broker, topic, pulse__dlq_topic=f"{topic}-dead")
    pulse.produce_events(5_000, bad=0.2)
    pulse.wait_caught_up()
    letters = pulse.count("raw.dlq")
    assert letters > 500 and pulse.value(WAITING) == letters
    wait_until(lambda: stat(pulse)[0] == "retrying", "state retrying")
    pulse.produce_events(5_000, seed=2, bad=0.2)
    pulse.wait_caught_up()
    pulse.check()
    assert stat(pulse, "waiting, postponed, sent") == (pulse.count("raw.dlq"), 0, 0)
    broker.create_topic(f"{topic}-dead")
    wait_forwarded(pulse, letters + 500, timeout=120)
    assert prove(pulse, f"{topic}-dead") == 0
    wait_until(lambda: pulse.query("SELECT status, reason FROM pulse.health()") == [("ok", None)], "health without a reason")


def test_brokers_that_are_gone_are_given_up_for_others(make_pulse, proxied_broker, proxy):
    """Letters are in flight to a broker that does not answer when pulse is led to one that does; what is shown is
    the new connection alone."""
    dead = proxied_broker.create_topic("dead")
    pulse = make_pulse(proxied_broker, proxied_broker.create_topic("events"), pulse__dlq_topic="")
    pulse.query("SELECT pulse.alter_pipeline('events', jsonb_build_object('brokers', %s::text))", proxy.address)
    pulse.produce([BAD(event()) for _ in range(20)])
    pulse.wait_for("SELECT count(*) = 20 FROM raw.dlq")
    proxy.black_hole()
    pulse.query("SELECT pulse.alter_pipeline('events', jsonb_build_object('dlq_topic', %s::text))", dead)
    wait_until(lambda: stat(pulse)[0] == "retrying", "letters to be stuck")
    mark = pulse.cluster.log_mark()
    pulse.query("SELECT pulse.alter_pipeline('events', jsonb_build_object('brokers', %s::text))", proxied_broker.address)
    wait_forwarded(pulse, 20, timeout=120)
    for _ in range(5):
        pulse.produce([BAD(event())])
        wait_forwarded(pulse)
        assert stat(pulse)[0] != "retrying"
    assert pulse.cluster.log_text(mark).count('to topic "dead"') <= 1
    assert len(forwarded(pulse, dead)) == 25
    proxy.clear()


def test_a_letter_too_large_for_its_topic_says_so_and_the_others_go_on(make_pulse, broker, topic):
    pulse = with_dead_topic(make_pulse, broker, topic, max_message_bytes=5000)
    large = BAD(event(page_url="https://example.com/" + "x" * 6000))
    pulse.produce([BAD(event()) for _ in range(30)] + [large] + [BAD(event()) for _ in range(30)] + [large])
    pulse.wait_for("SELECT count(*) = 60 FROM raw.dlq WHERE forwarded_at IS NOT NULL")
    pulse.wait_for("SELECT count(*) = 2 FROM raw.dlq WHERE forwarded_at IS NULL AND forward_attempts > 0")
    assert pulse.query("SELECT DISTINCT octet_length(value) > 5000, forward_error LIKE '%%MSG_SIZE_TOO_LARGE%%', "
                       "forward_after > now() + interval '30 s' FROM raw.dlq WHERE forwarded_at IS NULL") == [(True,) * 3]
    assert stat(pulse, "waiting, postponed, refused") == (2, 2, 2)
    [(status, reason)] = pulse.query("SELECT status, reason FROM pulse.health()")
    assert status == "ok" and "MSG_SIZE_TOO_LARGE" in reason
    shown = dict(pulse.query("SELECT s.field, s.value FROM raw.dlq d, pulse.dlq_show(d.dlq_id) s "
                             "WHERE d.forwarded_at IS NULL"))
    assert "MSG_SIZE_TOO_LARGE" in shown["not forwarded"]
    pulse.produce([BAD(event()) for _ in range(30)])
    pulse.wait_for("SELECT count(*) = 90 FROM raw.dlq WHERE forwarded_at IS NOT NULL")
    broker.alter_topic(pulse.dead, max_message_bytes=100_000)
    pulse.query("UPDATE raw.dlq SET forward_after = now() WHERE forwarded_at IS NULL")
    wait_forwarded(pulse, 92)
    prove(pulse)


@pytest.mark.server(pulse__dlq_topic="nobody-made-this-topic")
def test_a_topic_that_is_not_there_is_waited_for(pulse, broker):
    dead = f"{pulse.topic}-missing"
    pulse.query("SELECT pulse.alter_pipeline('events', jsonb_build_object('dlq_topic', %s::text))", dead)
    pulse.produce([BAD(event()) for _ in range(30)])
    state, reason, hint = wait_until(lambda: stat(pulse)[0] == "retrying" and stat(pulse), "state retrying")
    assert "UNKNOWN_TOPIC" in reason and "Create the topic" in hint
    [(status, reason)] = pulse.query("SELECT status, reason FROM pulse.health()")
    assert status == "ok" and dead in reason
    shown = dict(pulse.query("SELECT s.field, s.value FROM pulse.dlq_show((SELECT min(dlq_id) FROM raw.dlq)) s"))
    assert "UNKNOWN_TOPIC" in shown["not forwarded"]
    mark = pulse.cluster.log_mark()
    broker.create_topic(dead)
    wait_forwarded(pulse, 30, timeout=120)
    assert prove(pulse, dead) == 0
    assert pulse.cluster.log_text(mark).count("sent again") == 1


def test_a_pipeline_does_not_read_its_own_letters(make_pulse, broker, topic):
    pulse = make_pulse(broker, topic, pulse__topic=f"^{topic}", pulse__dlq_topic=f"{topic}-dead")
    pulse.dead = broker.create_topic(f"{topic}-dead")
    pulse.produce([BAD(event())])
    state, reason, hint = wait_until(lambda: stat(pulse)[0] == "failed" and stat(pulse), "state failed")
    assert "reads that topic itself" in reason and hint
    assert broker.end_offsets(pulse.dead) == {0: 0, 1: 0, 2: 0}


def test_a_pipeline_whose_brokers_are_away_holds_no_other_up(make_pulse, proxied_broker, proxy):
    dead = proxied_broker.create_topic("dead")
    other, other_dead = proxied_broker.create_topic("other"), proxied_broker.create_topic("other-dead")
    pulse = make_pulse(proxied_broker, proxied_broker.create_topic("events"), pulse__dlq_topic=dead)
    pulse.query("SELECT pulse.create_pipeline('other', ARRAY['other'], 'raw.events', "
                "jsonb_build_object('dlq_topic', '', 'brokers', %s::text))", proxy.address)
    proxied_broker.produce(other, [BAD(event()) for _ in range(20)])
    pulse.wait_for("SELECT count(*) = 20 FROM raw.dlq WHERE pipeline = 'other'")
    proxy.black_hole()
    pulse.query("SELECT pulse.alter_pipeline('other', jsonb_build_object('dlq_topic', %s::text))", other_dead)
    wait_until(lambda: pulse.query("SELECT state, reason FROM pulse.stat_sender WHERE pipeline = 'other' AND in_flight > 0 "
                                   "AND state = 'retrying' AND reason IS NOT NULL AND hint IS NOT NULL"), "letters to be stuck")
    for number in range(3):
        pulse.produce([BAD(event()) for _ in range(20)])
        pulse.wait_for("SELECT count(*) = %s FROM raw.dlq WHERE pipeline = 'events' AND forwarded_at IS NOT NULL",
                       parameters=(20 * (number + 1),))
    assert pulse.value("SELECT count(*) FROM raw.dlq WHERE pipeline = 'other' AND forwarded_at IS NOT NULL") == 0
    proxy.clear()
    wait_forwarded(pulse, 80, timeout=120)
    assert len(forwarded(pulse, dead)) == 60 and len(forwarded(pulse, other_dead)) == 20


def test_a_trigger_that_quotes_letters_brings_their_beginning_into_the_reason_and_no_more(line):
    """A trigger of raw.dlq, which refuses the sender's marks."""
    line.query("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', "
               "convert_from(NEW.value, 'UTF8') USING HINT = convert_from(NEW.value, 'UTF8'); END $$; "
               "CREATE TRIGGER refuse BEFORE UPDATE ON raw.dlq FOR EACH ROW EXECUTE FUNCTION public.refuse()")
    line.produce([b"begins" + b"x" * 300 + b"behind-byte-300"])
    line.wait_for("SELECT bool_or(reason LIKE 'P0001 begins%%' AND hint LIKE 'begins%%') FROM pulse.stat_sender")
    assert "behind-byte-300" not in str(line.query("SELECT reason, hint FROM pulse.stat_sender"))
    assert "behind-byte-300" not in line.cluster.log_text()
    line.query("DROP TRIGGER refuse ON raw.dlq")
    wait_forwarded(line, 1)


def test_a_replay_passes_over_no_letter_that_is_being_marked(line):
    """The sender stands still with its marks written and not committed: the replay waits for it."""
    line.query("ALTER TABLE raw.events ADD CONSTRAINT closed CHECK (false) NOT VALID")
    line.arm("before_mark_commits", "stop")
    line.produce([event() for _ in range(100)])
    line.wait_fault()
    stopped = Process(sender(line))
    line.wait_for("SELECT count(*) = 100 FROM raw.dlq")
    line.query("ALTER TABLE raw.events DROP CONSTRAINT closed")
    answers = []

    def replay():
        with line.connect() as session:
            answers.append(session.execute("CALL pulse.dlq_replay()").fetchone())
    replaying = threading.Thread(target=replay)
    replaying.start()
    try:
        line.wait_for("SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", "the replay to wait")
    finally:
        line.disarm()
        stopped.send(signal.SIGCONT)
        replaying.join()
    assert answers == [(100, 0, 0)]
    wait_forwarded(line)
    prove(line)


def test_a_replay_passes_over_no_letter_that_is_being_postponed(make_pulse, broker, topic):
    pulse = with_dead_topic(make_pulse, broker, topic, max_message_bytes=5000)
    pulse.query("ALTER TABLE raw.events ADD CONSTRAINT closed CHECK (false) NOT VALID")
    pulse.arm("before_mark_commits", "stop")
    pulse.produce([event(page_url="https://example.com/" + "x" * 6000)])
    pulse.wait_fault()
    stopped = Process(sender(pulse))
    pulse.query("ALTER TABLE raw.events DROP CONSTRAINT closed")
    answers = []

    def replay():
        with pulse.connect() as session:
            answers.append(session.execute("CALL pulse.dlq_replay()").fetchone())
    replaying = threading.Thread(target=replay)
    replaying.start()
    try:
        wait_until(lambda: answers or pulse.value("SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"),
                   "the replay to wait")
    finally:
        pulse.disarm()
        stopped.send(signal.SIGCONT)
        replaying.join()
    assert answers == [(1, 0, 0)]


def test_a_refused_letter_that_a_replay_holds_is_refused_once(make_pulse, broker, topic):
    pulse = with_dead_topic(make_pulse, broker, topic, max_message_bytes=5000)
    pulse.cluster.configure(pulse__dlq_topic="")
    pulse.wait_for("SELECT current_setting('pulse.dlq_topic') = ''")
    pulse.produce([BAD(event(page_url="https://example.com/" + "x" * 6000)), BAD(event())])
    pulse.wait_caught_up()
    with pulse.connect(autocommit=False) as session:
        session.execute("SELECT FROM raw.dlq WHERE octet_length(value) > 5000 FOR UPDATE")
        pulse.cluster.configure(pulse__dlq_topic=pulse.dead)
        pulse.wait_for("SELECT count(*) = 1 FROM raw.dlq WHERE forwarded_at IS NOT NULL")
        for _ in range(20):  # each of them a round
            before = pulse.value("SELECT sent FROM pulse.stat_sender WHERE pipeline = 'events'")
            pulse.produce([BAD(event())])
            pulse.wait_for("SELECT sent > %s FROM pulse.stat_sender WHERE pipeline = 'events'", parameters=(before,))
        session.rollback()
    pulse.wait_for("SELECT count(*) = 1 FROM raw.dlq WHERE forward_attempts = 1")
    assert stat(pulse, "refused, postponed") == (1, 1)
    assert len(forwarded(pulse)) == 21


def test_a_sender_whose_letters_are_held_does_not_spin(line):
    """More than it keeps in mind: it waits for the replay, and takes no processor for that."""
    count = 12_000
    line.query("ALTER SYSTEM SET pulse.dlq_topic = ''")
    line.query("SELECT pg_reload_conf()")
    line.produce([b"{"] * count)
    line.wait_caught_up()
    with line.connect(autocommit=False) as session:
        session.execute("SELECT FROM raw.dlq FOR UPDATE")
        line.query("ALTER SYSTEM RESET pulse.dlq_topic")
        line.query("SELECT pg_reload_conf()")
        wait_until(lambda: sum(line.broker.end_offsets(line.dead).values()) >= 10_000, "letters in the topic")
        process, began = Process(sender(line)), time.monotonic()
        used = process.cpu_seconds()
        wait_until(lambda: time.monotonic() - began > 3, "three seconds to be over")
        assert process.cpu_seconds() - used < 0.2 * (time.monotonic() - began)
        session.rollback()
    wait_forwarded(line, count)


def test_a_replay_that_holds_letters_holds_no_others_up(line):
    line.query("SELECT pulse.pause('events')")
    line.produce([BAD(event()) for _ in range(20)])
    with line.connect(autocommit=False) as session:
        line.query("ALTER SYSTEM SET pulse.dlq_topic = ''")
        line.query("SELECT pg_reload_conf()")
        line.query("SELECT pulse.resume('events')")
        line.wait_caught_up()
        held = [row[0] for row in session.execute("SELECT dlq_id FROM raw.dlq ORDER BY 1 LIMIT 5 FOR UPDATE").fetchall()]
        line.query("ALTER SYSTEM RESET pulse.dlq_topic")
        line.query("SELECT pg_reload_conf()")
        line.wait_for("SELECT count(*) = 15 FROM raw.dlq WHERE forwarded_at IS NOT NULL")
        assert line.query("SELECT count(*) FROM raw.dlq WHERE forwarded_at IS NULL AND dlq_id = ANY (%s)", held) == [(5,)]
    wait_forwarded(line, 20)
    assert prove(line) == 0


@pytest.mark.server(pulse__dlq_topic="")
def test_fast_stop_with_letters_in_flight(make_pulse, proxied_broker, proxy, how_many):
    dead = proxied_broker.create_topic("dead")
    pulse = make_pulse(proxied_broker, proxied_broker.create_topic("events"), pulse__brokers=proxy.address)
    took = []
    for stop in range(how_many(2, 30)):
        pulse.produce([BAD(event()) for _ in range(200)])
        pulse.wait_for("SELECT count(*) = %s FROM raw.dlq", parameters=(200 * (stop + 1),))
        if stop % 2 == 0:
            proxied_broker.freeze()
        else:
            proxy.black_hole()
        pulse.cluster.configure(pulse__dlq_topic=dead)
        wait_until(lambda: pulse.query("SELECT in_flight FROM pulse.stat_sender WHERE in_flight > 0"), "letters in flight")
        began = time.monotonic()
        pulse.cluster.stop("fast")
        took.append(time.monotonic() - began)
        proxied_broker.thaw()
        proxy.clear()
        pulse.cluster.configure(pulse__dlq_topic="")
        pulse.cluster.start()
    pulse.cluster.configure(pulse__dlq_topic=dead)
    wait_forwarded(pulse, timeout=120)
    assert max(took) < 2, took
    assert "terminated by signal" not in pulse.cluster.log_text()
    prove(pulse, dead)


def test_the_sender_sends_what_it_is_given_in_large(line, how_many):
    """More than a round, with payloads that do not fit into one."""
    count = how_many(3_000, 30_000)
    line.produce([BAD(event(page_url="x" * (20_000 if number % 10 == 0 else 10))) for number in range(count)])
    wait_forwarded(line, count, timeout=120)
    assert prove(line) == 0


def test_letters_that_are_gone_from_the_table_are_no_trouble(line):
    """Deleted between sending and marking."""
    line.arm("before_mark", "stop")
    line.produce([BAD(event()) for _ in range(30)])
    line.wait_fault()
    stopped = Process(sender(line))
    line.wait_for("SELECT count(*) = 30 FROM raw.dlq")
    there = sum(line.broker.end_offsets(line.dead).values())
    assert there > 0
    line.query("DELETE FROM raw.dlq")
    line.disarm()
    stopped.send(signal.SIGCONT)
    line.produce([BAD(event())])
    wait_forwarded(line, 1)
    assert len(forwarded(line)) == there + 1


def test_purge_leaves_letters_that_wait(make_pulse, broker, topic):
    pulse = with_dead_topic(make_pulse, broker, topic)
    pulse.query("SELECT pulse.pause('events')")
    pulse.arm("before_mark", "stop")
    pulse.query("SELECT pulse.resume('events')")
    pulse.produce([BAD(event()) for _ in range(10)])
    pulse.wait_fault()
    pulse.query("SELECT pulse.dlq_discard(ARRAY(SELECT dlq_id FROM raw.dlq), 'all of them')")
    assert pulse.value("SELECT pulse.dlq_purge('0 s')") == 0
    pulse.disarm()
    Process(sender(pulse)).send(signal.SIGCONT)
    wait_forwarded(pulse, 10)
    assert pulse.value("SELECT pulse.dlq_purge('0 s')") == 10


def test_purge_leaves_letters_that_wait_whatever_is_wrong(make_pulse, broker, topic):
    """One is too large for the topic, then the topic is taken away: the others still are to be forwarded."""
    pulse = with_dead_topic(make_pulse, broker, topic, max_message_bytes=5000)
    pulse.produce([BAD(event(page_url="x" * 6000))])
    pulse.wait_for("SELECT count(*) = 1 FROM raw.dlq WHERE forward_error IS NOT NULL")
    missing = f"{topic}-missing"
    pulse.query("SELECT pulse.alter_pipeline('events', jsonb_build_object('dlq_topic', %s::text))", missing)
    pulse.produce([BAD(event()) for _ in range(10)])
    wait_until(lambda: stat(pulse)[0] == "retrying", "state retrying")
    pulse.query("SELECT pulse.dlq_discard(ARRAY(SELECT dlq_id FROM raw.dlq), 'all of them')")
    assert pulse.value("SELECT pulse.dlq_purge('0 s')") == 1  # that one Kafka has refused
    # A topic that the pipeline reads is never going to have them, nor is none.
    pulse.query("SELECT pulse.alter_pipeline('events', jsonb_build_object('dlq_topic', %s::text))", topic)
    wait_until(lambda: stat(pulse)[0] == "failed", "state failed")
    pulse.query("DELETE FROM raw.dlq WHERE dlq_id > (SELECT min(dlq_id) + 4 FROM raw.dlq)")
    assert pulse.value("SELECT pulse.dlq_purge('0 s')") == 5


def test_the_sender_comes_back_when_it_is_terminated(line):
    line.produce([BAD(event())])
    wait_forwarded(line, 1)
    for number in range(3):
        line.query("SELECT pg_terminate_backend(%s)", sender(line))
        line.produce([BAD(event())])
        wait_forwarded(line, number + 2)
    prove(line)


def test_it_is_gone_with_the_extension_and_back_with_it(line):
    line.produce([BAD(event())])
    wait_forwarded(line, 1)
    sender(line)
    line.query("DROP EXTENSION pulse")
    wait_until(lambda: not line.cluster.backends("pulse sender"), "the sender to leave")
    line.query("CREATE EXTENSION pulse")
    line.query("SELECT pulse.create_pipeline('events', ARRAY[%s])", line.topic)
    line.produce([BAD(event())])
    wait_forwarded(line, 2)
    assert sorted(forwarded(line)) == [row[0] for row in line.query("SELECT dlq_id FROM raw.dlq ORDER BY 1")]


def test_a_dead_letter_topic_has_a_name_that_kafka_takes(pulse):
    for bad in ("two words", "..", "x" * 250):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
            pulse.query("SELECT pulse.alter_pipeline('events', jsonb_build_object('dlq_topic', %s::text))", bad)
        assert "249" in refused.value.diag.message_hint
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            pulse.query(f"ALTER SYSTEM SET pulse.dlq_topic = '{bad}'")
    for good in ("", "x" * 249, "a.b_c-1"):
        pulse.query("SELECT pulse.alter_pipeline('events', jsonb_build_object('dlq_topic', %s::text))", good)
