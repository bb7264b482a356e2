"""A record that kills the process that works on it is found and kept undecoded after five crashes of
the server at most; its neighbours and the other partitions go on. Whoever is killed from outside is
no suspect."""

import re
from datetime import datetime, timezone

import pytest
from harness.pipeline import event
from harness.place import Process, wait_until

KILL_MYSELF = """
    CREATE FUNCTION public.crash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.user_id = 'poison' THEN
            EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'kill -9 ' || pg_backend_pid());
        END IF;
        RETURN NEW;
    END $$"""

# What stands for the bug, how the poisonous event looks, how many crashes it may take.
DECODE = (None, {"note": "crash-at-decode"}, 3)
BEFORE = ("CREATE TRIGGER crash BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION crash()",
          {"user_id": "poison"}, 3)
AFTER = ("CREATE TRIGGER crash AFTER INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION crash()",
         {"user_id": "poison"}, 5)
DEFERRED = ("CREATE CONSTRAINT TRIGGER crash AFTER INSERT ON raw.events DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION crash()", {"user_id": "poison"}, 5)


def crashes(pulse):
    return len(re.findall(r"was terminated by signal", pulse.cluster.log_text()))


def stream(name, count, poison, fields):
    """Events of one partition; those whose number is in poison carry the fields."""
    return [event(event_id=f"{name}-{number:05d}", **(fields if number in poison else {}))
            for number in range(count)]


def send_while_paused(pulse, values_by_partition):
    pulse.query("SELECT pulse.pause('events')")
    for partition, values in values_by_partition.items():
        pulse.produce(values, partition=partition)
    pulse.query("SELECT pulse.resume('events')")


@pytest.mark.server(pulse__batch_max_rows=400)
@pytest.mark.parametrize("trigger, fields, limit", [DECODE, BEFORE, AFTER, DEFERRED],
                         ids=["decode", "before_trigger", "after_trigger", "deferred_trigger"])
def test_record_that_crashes_is_quarantined(pulse, trigger, fields, limit):
    pulse.crashes_expected = pulse.aborts_expected = True
    if trigger:
        pulse.query(KILL_MYSELF)
        pulse.query(trigger)
    values = {partition: stream(f"p{partition}", 1500, {700} if partition == 1 else (), fields)
              for partition in range(3)}
    send_while_paused(pulse, values)
    pulse.wait_caught_up(timeout=180)
    assert crashes(pulse) == limit
    assert pulse.letters("kafka_partition, kafka_offset, error_class, error_code, value") == \
        [(1, 700, "operator", "quarantined", values[1][700])]
    assert pulse.count() == 3 * 1500 - 1
    pulse.check()
    # Life goes on, also with what comes behind it.
    pulse.produce([event() for _ in range(100)])
    pulse.wait_caught_up()
    assert pulse.count() == 3 * 1500 + 99
    assert crashes(pulse) == limit
    assert pulse.cluster.log_text().count("is quarantined") == 1


@pytest.mark.server(pulse__batch_max_rows=400, pulse__workers=2)
def test_every_poisonous_record_is_found(pulse):
    """Two in one partition, one in another, of another worker."""
    pulse.crashes_expected = True
    pulse.query(KILL_MYSELF)
    pulse.query(BEFORE[0])
    where = {0: {10, 11}, 1: {500}, 2: ()}
    values = {partition: stream(f"p{partition}", 1000, where[partition], BEFORE[1])
              for partition in where}
    send_while_paused(pulse, values)
    pulse.wait_caught_up(timeout=180)
    assert pulse.letters("kafka_partition, kafka_offset, error_code") == [
        (0, 10, "quarantined"), (0, 11, "quarantined"), (1, 500, "quarantined")]
    assert crashes(pulse) <= 3 * 5
    pulse.check()


def test_quarantined_record_read_again_crashes_nobody(pulse):
    pulse.aborts_expected = True
    send_while_paused(pulse, {0: stream("p0", 50, {20}, DECODE[1])})
    pulse.wait_caught_up(timeout=120)
    before = crashes(pulse)
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    pulse.produce([event()], partition=0)
    pulse.wait_caught_up()
    pulse.wait_for("SELECT bool_and(next_offset = highest_offset) FROM pulse.offsets")
    assert crashes(pulse) == before
    assert pulse.letters("kafka_offset, error_code") == [(20, "quarantined")]
    assert pulse.count() == 50
    pulse.verify()


# --- ends that are nobody's fault ----------------------------------------------------------------

SLEEP = """
    CREATE FUNCTION public.dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.user_id = 'slow' AND NOT EXISTS (SELECT FROM public.in_a_hurry) THEN
            PERFORM pg_sleep(600);
        END IF;
        RETURN NEW;
    END $$"""


def terminate(pulse, pid):
    pulse.query("SELECT pg_terminate_backend(%s)", pid)


def crash_another_process(pulse, _pid):
    pulse.crashes_expected = True
    since = pulse.cluster.log_mark()
    with pulse.connect() as bystander:
        Process(bystander.info.backend_pid).send(9)
        pulse.cluster.wait_recovered(since)


def stop_at_once(pulse, _pid):
    pulse.cluster.stop("immediate")
    pulse.cluster.start()


@pytest.mark.topic(partitions=1)
@pytest.mark.server(pulse__batch_max_rows=400)
@pytest.mark.parametrize("end", [terminate, crash_another_process, stop_at_once])
def test_who_is_ended_by_others_is_no_suspect(pulse, end):
    """Four times in a row, always at the same record."""
    pulse.query("CREATE TABLE public.in_a_hurry (at timestamptz)")
    pulse.query(SLEEP)
    pulse.query("CREATE TRIGGER dawdle BEFORE INSERT ON raw.events FOR EACH ROW "
                "EXECUTE FUNCTION dawdle()")
    send_while_paused(pulse, {0: stream("p0", 50, {20}, {"user_id": "slow"})})
    ended = set()
    asleep = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pulse worker' AND wait_event = 'PgSleep'"
    for _ in range(4):
        pid = wait_until(lambda: {pid for pid, in pulse.query(asleep)} - ended, "the slow record", 60)
        ended |= pid
        end(pulse, pid.pop())
    wait_until(lambda: {pid for pid, in pulse.query(asleep)} - ended, "the slow record", 60)
    pulse.query("INSERT INTO public.in_a_hurry VALUES (now())")
    terminate(pulse, pulse.worker_pid())
    pulse.wait_caught_up()
    assert pulse.letters() == [] and pulse.count() == 50
    assert "died at the record" not in pulse.cluster.log_text()
    pulse.check()


@pytest.mark.topic(partitions=1)
@pytest.mark.server(pulse__batch_max_rows=400, max_prepared_transactions=1)
def test_kills_while_a_record_waits_for_a_lock_do_not_condemn_it(pulse, how_many):
    """A prepared transaction holds its key, and whenever the worker has been waiting for it, it is killed (not
    in the millisecond that it gives a suspect: that would be a death in flight like any other)."""
    pulse.crashes_expected = True
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    values = stream("p0", 50, {20}, {"event_timestamp": now})
    pulse.produce([event(event_timestamp=now)], partition=0)  # so that the day's partition is there
    pulse.wait_caught_up()
    with pulse.connect(autocommit=False) as holder:
        holder.execute("INSERT INTO raw.events (event_id, event_type, user_id, event_timestamp) "
                       "VALUES ('p0-00020', 'x', 'x', %s)", (now,))
        holder.execute("PREPARE TRANSACTION 'holder'")
    pulse.produce(values, partition=0)
    waits = ("SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'pulse worker'"
             " AND NOT l.granted AND l.waitstart < clock_timestamp() - interval '100 milliseconds'")
    killed = set()
    for _ in range(how_many(5, 60)):
        pid = wait_until(lambda: {pid for pid, in pulse.query(waits)} - killed, "a worker that waits", 60)
        killed |= pid
        since = pulse.cluster.log_mark()
        Process(pid.pop()).send(9)
        pulse.cluster.wait_recovered(since)
    pulse.query("ROLLBACK PREPARED 'holder'")
    pulse.wait_caught_up()
    assert pulse.letters() == [] and pulse.count() == 51
    assert "quarantined" not in pulse.cluster.log_text()
    pulse.check()


@pytest.mark.topic(partitions=1)
@pytest.mark.server(pulse__batch_max_rows=400)
def test_two_kills_at_one_record_do_not_condemn_it(pulse):
    pulse.query("CREATE TABLE public.in_a_hurry (at timestamptz)")
    pulse.query(SLEEP)
    pulse.query("CREATE TRIGGER dawdle BEFORE INSERT ON raw.events FOR EACH ROW "
                "EXECUTE FUNCTION dawdle()")
    send_while_paused(pulse, {0: stream("p0", 50, {20}, {"user_id": "slow"})})
    pulse.crashes_expected = True
    killed = set()
    asleep = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pulse worker' AND wait_event = 'PgSleep'"
    for _ in range(2):
        pid = wait_until(lambda: {pid for pid, in pulse.query(asleep)} - killed, "the slow record", 60)
        killed |= pid
        since = pulse.cluster.log_mark()
        Process(pid.pop()).send(9)
        pulse.cluster.wait_recovered(since)
    wait_until(lambda: {pid for pid, in pulse.query(asleep)} - killed, "the slow record", 60)
    pulse.query("INSERT INTO public.in_a_hurry VALUES (now())")
    terminate(pulse, pulse.worker_pid())
    pulse.wait_caught_up()
    assert pulse.letters() == [] and pulse.count() == 50
    assert pulse.cluster.log_text().count("died at the record at offset 20") == 2
    pulse.check()


@pytest.mark.topic(partitions=1)
@pytest.mark.server(pulse__batch_max_rows=400)
def test_record_that_went_through_is_no_suspect_any_more(pulse):
    """Two kills at it, then it is written: from now on the worker waits for locks as it did before."""
    pulse.query("CREATE TABLE public.in_a_hurry (at timestamptz)")
    pulse.query(SLEEP)
    pulse.query("CREATE TRIGGER dawdle BEFORE INSERT ON raw.events FOR EACH ROW "
                "EXECUTE FUNCTION dawdle()")
    send_while_paused(pulse, {0: stream("p0", 50, {20}, {"user_id": "slow"})})
    pulse.crashes_expected = True
    killed = set()
    asleep = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pulse worker' AND wait_event = 'PgSleep'"
    for _ in range(2):
        pid = wait_until(lambda: {pid for pid, in pulse.query(asleep)} - killed, "the slow record", 60)
        killed |= pid
        since = pulse.cluster.log_mark()
        Process(pid.pop()).send(9)
        pulse.cluster.wait_recovered(since)
    wait_until(lambda: {pid for pid, in pulse.query(asleep)} - killed, "the slow record", 60)
    pulse.query("INSERT INTO public.in_a_hurry VALUES (now())")
    terminate(pulse, pulse.worker_pid())
    pulse.wait_caught_up()
    with pulse.connect(autocommit=False) as holder:
        holder.execute("SELECT FROM pulse.offsets FOR UPDATE")
        pulse.produce([event()], partition=0)
        pulse.wait_for("SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted "
                       "AND a.backend_type = 'pulse worker' AND l.waitstart < clock_timestamp() - interval '300 ms')",
                       "a worker that waits patiently")
    pulse.wait_caught_up()
    assert pulse.letters() == [] and pulse.count() == 51
    pulse.check()
