"""More than one broker: partitions whose leader is gone, an unclean election, a rolling restart."""

import signal
import time
import uuid

import pytest
from harness import place
from harness.brokers import Brokers
from harness.load import trial
from harness.pipeline import event
from harness.place import wait_until


@pytest.fixture(scope="module")
def three_brokers():
    """For this file alone: three JVMs are much."""
    brokers = Brokers(place.private() / f"e2e-brokers-{uuid.uuid4().hex[:8]}").create().start()
    yield brokers
    brokers.destroy()


@pytest.fixture
def brokers(three_brokers):
    """All three running."""
    return three_brokers.start()


def new_name():
    return f"events-{uuid.uuid4().hex[:8]}"


def send(brokers, topic, partition, count, **fields):
    brokers.produce(topic, [event(**fields) for _ in range(count)], partition=partition)


def partition_states(pulse, pipeline="events"):
    return dict(pulse.query("SELECT partition, state FROM pulse.stat_partition WHERE pipeline = %s", pipeline))


def health(pulse, pipeline="events"):
    return pulse.query("SELECT status, coalesce(reason, '') FROM pulse.health() WHERE pipeline = %s", pipeline)[0]


def rows_of(pulse, partition):
    return pulse.value("SELECT count(*) FROM raw.events WHERE kafka_partition = %s", partition)


def read_what_the_follower_has_not(brokers, pulse, topic):
    """Offsets 0 to 49 of partition 0 are on brokers 1 and 2, 50 to 79 on the leader 1 alone."""
    send(brokers, topic, 0, 50)
    pulse.wait_caught_up()
    brokers[2].stop()
    wait_until(lambda: brokers.in_sync(topic, 0) == [1], "the follower to be out of sync")
    send(brokers, topic, 0, 30)
    pulse.wait_for("SELECT count(*) = 80 FROM raw.events")


def test_a_partition_without_leader_is_named_and_the_others_go_on(brokers, make_pulse):
    topic, neighbour, lonely = new_name(), new_name(), new_name()
    brokers.place_topic(topic, [[1], [2], [3]])
    brokers.place_topic(neighbour, [[1]])
    brokers.place_topic(lonely, [[2]])
    pulse = make_pulse(brokers, topic)
    pulse.query("CREATE TABLE public.other (LIKE raw.events)")
    pulse.query("SELECT pulse.create_pipeline('other', ARRAY[%s], 'public.other', '{}')", neighbour)
    pulse.query("CREATE TABLE public.lonely (LIKE raw.events)")
    pulse.query("SELECT pulse.create_pipeline('lonely', ARRAY[%s], 'public.lonely', '{}')", lonely)
    for partition in range(3):
        send(brokers, topic, partition, 10)
    pulse.wait_caught_up()
    wait_until(lambda: partition_states(pulse, "lonely") == {0: "running"}, "the lonely one to be read")
    pulse.log_since()

    brokers[2].kill9()
    wait_until(lambda: brokers.leader(topic, 1) == -1, "the partition to lose its leader")
    wait_until(lambda: partition_states(pulse)[1] == "retrying", "the partition to say so")
    assert "has no leader" in pulse.value("SELECT reason FROM pulse.stat_partition WHERE partition = 1")
    wait_until(lambda: "partition 1 of topic" in health(pulse)[1], "health to name it")
    assert health(pulse)[0] == "stalled"
    wait_until(lambda: partition_states(pulse, "lonely") == {0: "retrying"}, "one that is alone to say so as well")
    assert health(pulse, "lonely")[0] == "stalled" and "has no leader" in health(pulse, "lonely")[1]
    # Whatever the others are asked for works meanwhile.
    for partition in (0, 2):
        send(brokers, topic, partition, 10)
    send(brokers, neighbour, 0, 5)
    pulse.wait_for("SELECT count(*) = 50 FROM raw.events")
    pulse.wait_for("SELECT count(*) = 5 FROM public.other")
    pulse.wait_for("SELECT sum(high) = 40 AND sum(lag) = 0 FROM pulse.stat_partition WHERE partition IN (0, 2) AND pipeline = 'events'")
    brokers.place_more(topic, [[3]])
    send(brokers, topic, 3, 10)
    pulse.wait_for("SELECT count(*) = 60 FROM raw.events", "the new partition to be found")
    pulse.query("SELECT pulse.seek('events', 'latest', 0)")
    with pytest.raises(Exception, match="partition 1 of topic .* has no leader"):
        pulse.query("SELECT pulse.seek('events', 'latest', 1)")
    assert partition_states(pulse, "other") == {0: "running"} and health(pulse, "other")[0] == "ok"
    assert [state for partition, state in partition_states(pulse).items() if partition != 1 and state == "retrying"] == []

    brokers[2].start()
    wait_until(lambda: brokers.leader(topic, 1) == 2, "the leader to be back")
    send(brokers, topic, 1, 10)
    pulse.wait_caught_up()
    wait_until(lambda: health(pulse) == ("ok", ""), "health to be ok again")
    assert set(partition_states(pulse).values()) == {"running"}
    log = pulse.log_since()
    assert "broker cannot be reached" not in log, "the pipelines were well all the time"
    assert log.count(f'partition 1 of topic "{topic}" cannot be read') == 1
    assert [rows_of(pulse, partition) for partition in range(4)] == [20, 20, 20, 10]
    pulse.verify()


def test_a_topic_begins_when_all_its_partitions_can_be_read(brokers, make_pulse):
    """Each of them at start_position: none is taken for one that was added later."""
    topic = brokers.place_topic(new_name(), [[1], [2]])
    for partition in range(2):
        send(brokers, topic, partition, 5)
    brokers[2].kill9()
    wait_until(lambda: brokers.leader(topic, 1) == -1, "the partition to lose its leader")
    pulse = make_pulse(brokers, topic, pulse__start_position="latest")
    wait_until(lambda: "partition 1 of topic" in (pulse.reason() or ""), "the pipeline to say what it waits for")
    assert pulse.offsets() == {}
    # Beside one that is read it is told as well.
    whole = brokers.place_topic(new_name(), [[1]])
    send(brokers, whole, 0, 4)
    pulse.query("CREATE TABLE public.beside (LIKE raw.events)")
    pulse.query("SELECT pulse.create_pipeline('beside', %s, 'public.beside', '{\"start_position\": \"earliest\"}')", [whole, topic])
    pulse.wait_for("SELECT count(*) = 4 FROM public.beside")
    wait_until(lambda: f'partition 1 of topic "{topic}"' in (pulse.reason("beside") or ""), "the other to say what it waits for")
    brokers[2].start()
    wait_until(lambda: pulse.offsets() == {0: 5, 1: 5}, "both to begin at their ends")
    pulse.wait_for("SELECT count(*) = 14 FROM public.beside")
    wait_until(lambda: pulse.reason("beside") is None, "nothing to be waited for")
    send(brokers, topic, 1, 3)
    pulse.wait_caught_up()
    assert pulse.count() == 3


@pytest.mark.parametrize("refill", [60, 10], ids=["beyond_our_offset", "below_our_offset"])
def test_a_log_that_an_unclean_election_cut_stops_its_partition(brokers, make_pulse, refill):
    """What was read is gone from the log, and at its offsets are other records, or none."""
    topic = brokers.place_topic(new_name(), [[1, 2], [3, 1]], unclean_leader_election_enable="true", min_insync_replicas=1)
    pulse = make_pulse(brokers, topic)
    read_what_the_follower_has_not(brokers, pulse, topic)

    worker = pulse.cluster.freeze(pulse.worker_pid())  # it looks when all is over: its network was away, say
    brokers[1].kill9()
    brokers[2].start()
    wait_until(lambda: brokers.leader(topic, 0) == 2, "the unclean election")
    send(brokers, topic, 0, refill, user_id="new")
    end = brokers.end_offsets(topic)[0]
    assert end == 50 + refill, "the log was cut at the follower's end"
    worker.send(signal.SIGCONT)

    wait_until(lambda: partition_states(pulse)[0] == "topic_changed", "the partition to stop")
    send(brokers, topic, 1, 10)
    pulse.wait_for("SELECT count(*) = 10 FROM raw.events WHERE kafka_partition = 1", "its neighbour to go on")
    assert pulse.offsets()[0] == 80 and rows_of(pulse, 0) == 80, "nothing is skipped in silence"
    assert health(pulse)[0] == "error" and "partition 0 of topic" in health(pulse)[1]

    pulse.query("SELECT pulse.accept_gap('events', %s, 0)", topic)
    pulse.wait_for("SELECT next_offset = %s FROM pulse.offsets WHERE partition = 0" % end, "the new log to be read")
    assert pulse.value("SELECT count(*) FROM raw.events WHERE user_id = 'new'") == refill, "all of them, once"
    # What both logs have is a duplicate by its event_id; what is in none of them any more stays.
    assert pulse.query("SELECT topic_epoch, records, rows, duplicates FROM pulse.offsets WHERE partition = 0") == [
        (1, 80 + end, 80 + refill, 50)]
    wait_until(lambda: partition_states(pulse) == {0: "running", 1: "running"}, "both to be well")
    pulse.verify()


def test_a_log_that_grew_again_before_anybody_looked_is_another(brokers, make_pulse):
    """The worker sees it end too early; the coordinator, who asks where it begins, is late."""
    topic = brokers.place_topic(new_name(), [[1, 2]], unclean_leader_election_enable="true", min_insync_replicas=1)
    pulse = make_pulse(brokers, topic, pulse__on_offset_lost="latest")
    read_what_the_follower_has_not(brokers, pulse, topic)

    coordinator = pulse.cluster.freeze(pulse.cluster.backends("pulse coordinator")[0])
    brokers[1].kill9()
    brokers[2].start()
    wait_until(lambda: partition_states(pulse)[0] == "offset_lost", "the worker to miss its next record", timeout=60)
    send(brokers, topic, 0, 60, user_id="new")
    coordinator.send(signal.SIGCONT)

    wait_until(lambda: partition_states(pulse)[0] == "topic_changed", "the partition to stop")
    assert pulse.offsets() == {0: 80} and pulse.count("pulse.gaps") == 0, "nothing is skipped, for all on_offset_lost says"
    pulse.query("SELECT pulse.accept_gap('events', %s, 0)", topic)
    pulse.wait_for("SELECT count(*) = 60 FROM raw.events WHERE user_id = 'new'")


def test_a_rolling_restart_under_load_loses_and_doubles_nothing(brokers, make_pulse, how_many):
    topic = brokers.place_topic(new_name(), [[1, 2, 3], [2, 3, 1], [3, 1, 2]], min_insync_replicas=2)
    pulse = make_pulse(brokers, topic)
    with trial(pulse, seed=3, rate=500) as run:
        for _ in range(how_many(1, 10)):
            for node in (1, 2, 3):
                run.progress(at_most=500)
                brokers[node].stop()
                run.progress(at_most=500)  # by the two that are left
                brokers[node].start()
                since = time.time()
                wait_until(lambda: all(brokers.in_sync(topic, partition) == [1, 2, 3] for partition in range(3)),
                           "the replicas to be in sync", timeout=60)
                run.resumed(since)
    assert set(partition_states(pulse).values()) == {"running"}
