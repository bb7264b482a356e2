"""A worker's private memory: bounded by queue_memory and a constant whatever is in the topic, given
back, and the same after hours."""

import base64
import gzip
import json
import os
import random
import statistics
import time
from itertools import repeat

import pytest

from harness.load import Auditor, Load
from harness.memory import MB, PrivateMemory, files, slope, threads
from harness.pipeline import event
from harness.place import wait_until

QUEUE = 64 * MB      # the default of queue_memory
CONSTANT = 128 * MB  # what README states
RESPONSE = 768 * 1024  # what a broker sends at once, unpacked as a whole: README

ONE_PARTITION = pytest.mark.topic(partitions=1)


def large_events(count, size, repeats, seed=1):
    """Events of that size whose text is the same piece so often."""
    rnd = random.Random(seed)
    for number in range(count):
        piece = base64.b64encode(rnd.randbytes(size // repeats * 3 // 4)).decode()
        yield None, event(event_id=f"e-{number:07d}", properties={"text": piece * repeats})


def produce(pulse, records, codec):
    """Sends (key, value) pairs with a client of its own, for its codec."""
    producer = pulse.broker.producer(compression_type=codec, partitioner="random", acks="1")
    count = 0
    for count, (key, value) in enumerate(records, 1):
        while True:
            try:
                producer.produce(pulse.topic, value, key)
                break
            except BufferError:  # the client's queue is full
                producer.poll(0.1)
    assert producer.flush(120) == 0
    return count


def queue_is_full(memory):
    return memory.peak > QUEUE * 3 // 4 and memory.has_stopped_growing()


def backlog_is_bounded(pulse, bound):
    """Resumes, lets no row in until the queue is full, then rows one by one until all are written."""
    pulse.query("CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "PERFORM pg_advisory_xact_lock_shared(1); PERFORM pg_sleep(0.001); RETURN NEW; END $$")
    pulse.query("CREATE TRIGGER slow BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION public.slow()")
    with pulse.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(1)")
        pulse.query("SELECT pulse.resume('events')")
        with PrivateMemory(pulse.worker_pid()) as memory:
            wait_until(lambda: queue_is_full(memory), "the queue to be full", 60, 0.1)
            full = memory.peak
            holder.execute("SELECT pg_advisory_unlock(1)")
            pulse.wait_caught_up(600)
            at_rest = memory.samples[-1][1]
    print(f"\n   private memory: {full / MB:.0f} MB with the queue full, {memory.peak / MB:.0f} MB at "
          f"most, {at_rest / MB:.0f} MB at the end; bound {bound / MB:.0f} MB")
    assert memory.peak <= bound


@pytest.mark.topic(partitions=200)
@pytest.mark.parametrize("codec, repeats", [("lz4", 4), ("gzip", 25)])
def test_backlog_of_large_records_is_bounded(pulse, how_many, codec, repeats):
    """200 partitions, records of 100 kB."""
    pulse.query("SELECT pulse.pause('events')")
    count = produce(pulse, large_events(how_many(1_500, 20_000), 100_000, repeats), codec)
    batch = b"".join(value for _key, value in large_events(10, 100_000, repeats))
    ratio = len(batch) / len(gzip.compress(batch))
    backlog_is_bounded(pulse, QUEUE + CONSTANT + int(RESPONSE * ratio))
    assert pulse.count() == count and pulse.letters() == []
    pulse.check()


def small_events(count):
    """Of 320 bytes: as many as librdkafka takes by number, and as much as it takes by size."""
    template = event(event_id="%07d", properties={"text": ""})
    template = template.replace(b'""', b'"' + b"x" * (320 + 2 - len(template)) + b'"')
    return ((None, template % number) for number in range(count))


WEIGHTLESS = {"tiny": (None, b"{}"), "nothing_but_keys": (b"k" * 200, b"")}


@ONE_PARTITION
@pytest.mark.server(pulse__max_error_ratio=1)
@pytest.mark.parametrize("kind", ["small", *WEIGHTLESS])
def test_backlog_of_many_small_records_is_bounded(pulse, how_many, kind):
    """What librdkafka spends on each is as much as the record, and it counts neither that nor keys.
    Uncompressed: what one response holds is another matter."""
    count, bound = how_many(300_000, 3_000_000), QUEUE + CONSTANT
    pulse.query("SELECT pulse.pause('events')")
    produce(pulse, small_events(count) if kind == "small" else repeat(WEIGHTLESS[kind], count), "none")
    with pulse.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE raw.dlq, live._events_minute IN ACCESS EXCLUSIVE MODE")
        pulse.query("SELECT pulse.resume('events')")
        with PrivateMemory(pulse.worker_pid()) as memory:
            wait_until(lambda: queue_is_full(memory), "the queue to be full", 60, 0.1)
    print(f"\n   private memory: {memory.peak / MB:.0f} MB at most, bound {bound / MB:.0f} MB")
    assert memory.peak <= bound


def flatness(name, memory, counts):
    """Prints and checks what was sampled after the first quarter: its second half against its first."""
    began, ended = memory.samples[0][0], memory.samples[-1][0]
    start, middle = began + (ended - began) / 4, began + (ended - began) * 5 / 8
    late = [sample for sample in memory.samples if sample[0] > start]
    before, after = (statistics.median(size for at, size in late if (at > middle) == is_after)
                     for is_after in (False, True))
    tasks, fds = zip(*[(tasks, fds) for at, tasks, fds in counts if at > start])
    print(f"\n   {name}, {(ended - began) / 60:.1f} minutes: private memory {before / MB:.1f} MB, then "
          f"{after / MB:.1f} MB, at most {memory.peak / MB:.1f} MB, slope {slope(late) * 3600 / MB:+.1f} MB an "
          f"hour; threads {min(tasks)} to {max(tasks)}, files {min(fds)} to {max(fds)}")
    assert after - before < 4 * MB
    assert min(tasks) == max(tasks)
    assert max(fds[-3:]) <= max(fds[:3]) + 20
    assert memory.peak <= QUEUE + CONSTANT


@pytest.mark.soak
def test_memory_is_the_same_after_hours(pulse):
    """Steady load with bad records. Seeks first, each of which makes a new worker, then one worker that
    is given new partitions all the time; one coordinator sees it all. PULSE_FLAT_MINUTES=120 for two hours."""
    seconds = 60 * float(os.environ.get("PULSE_FLAT_MINUTES", "10"))
    auditor, rnd = Auditor(pulse), random.Random(5)
    coordinator = pulse.cluster.backends("pulse coordinator")[0]
    load = Load(pulse, seed=5, rate=500).start()
    began = time.monotonic()

    def progress(counts, pids):
        read = pulse.value("SELECT sum(records) FROM pulse.offsets")
        pulse.wait_for("SELECT sum(records) > %s FROM pulse.offsets", "records to be read", 60, (read + 3000,))
        for pid in pids:
            counts[pid].append((time.monotonic(), threads(pid), files(pid)))

    counts, partitions = {coordinator: []}, 3
    with PrivateMemory(coordinator, interval=0.5) as of_coordinator:
        while time.monotonic() - began < seconds / 5:
            ends = pulse.broker.end_offsets(pulse.topic)
            pulse.query("SELECT pulse.seek('events', %s)", rnd.choice(["-2 minutes", "-5 minutes"]))
            progress(counts, [coordinator])
            # The next one must not go forwards, over records that were never read.
            pulse.wait_for("SELECT bool_and(next_offset >= (%s::jsonb ->> partition::text)::bigint) FROM pulse.offsets",
                           "the records of before to be read", 300, (json.dumps(ends),))
        worker = pulse.worker_pid()
        counts[worker] = []
        with PrivateMemory(worker, interval=0.5) as of_worker:
            while (elapsed := time.monotonic() - began) < seconds:
                progress(counts, [coordinator, worker])
                if elapsed > seconds * partitions / 15:
                    partitions += 1
                    pulse.broker.add_partitions(pulse.topic, partitions)
    load.stop()
    pulse.wait_caught_up(300)
    assert pulse.count("pulse.gaps") == 0, "a seek went forwards"
    flatness("worker", of_worker, counts[worker])
    flatness("coordinator", of_coordinator, counts[coordinator])
    auditor.read(timeout=600).check(seeked=True)
