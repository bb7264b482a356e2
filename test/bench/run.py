"""`make bench`: how fast pulse is, as ratios within one run on one machine (shared machines are noisy:
medians of ROUNDS). Prints a table; nothing in it passes or fails.

  ingest    Kafka -> raw.events with minute, hour and day counters, from resume() until everything is
            committed, against COPY of the same rows from a CSV file into the same table by one backend
  latency   produce() -> commit of the row, from the commit timestamps the server itself kept, at 600 and
            10,000 events a second
  cpu       the same by processor time, which a busy machine disturbs less
  workers   the same ingest with one worker and with two, turn by turn, from four partitions
  letters   a flood of 100 % rejects with the breaker off, against the same records as rows, turn by turn
  memory    the worker's peak of private memory (shared buffers are PostgreSQL's)
  simulate  CALL pulse.simulate() as fast as it can, until every record is in the topic, against librdkafka alone sending
            the same bytes from memory to the same broker (produce_bench.cpp), turn by turn

Arguments: --events N (1,000,000) --rounds N (3) --seconds N of each latency run (20) --only ingest|latency|workers|letters|simulate
"""

import argparse
import os
import resource
import shutil
import statistics
import struct
import sys
import threading
import time

from harness import events, place
from harness.kafka import Broker
from harness.place import wait_until
from harness.postgres import Cluster, Installation

TOPIC = "bench"


def private_mb(pid):
    """Resident memory of the process itself, without PostgreSQL's shared buffers."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def cpu_seconds(pid, thread=None):
    """User and system time of a process, or of one of its threads."""
    path = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    with open(path, encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_cpu_seconds():
    """Of the processes that were started here and are over."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class PeakMemory(threading.Thread):
    """Samples a process every 50 ms until finish()."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.over = pid, 0.0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.05):
            self.peak = max(self.peak, private_mb(self.pid))

    def finish(self):
        self.over.set()
        self.join()
        return self.peak


class Arrival(threading.Thread):
    """Looks until a topic holds so many records; at_seconds is when that was."""

    def __init__(self, broker, topic, count):
        super().__init__(daemon=True)
        self.broker, self.topic, self.count, self.began = broker, topic, count, time.monotonic()
        self.start()

    def run(self):
        wait_until(lambda: sum(self.broker.end_offsets(self.topic).values()) >= self.count, "the records", 600, interval=0.1)
        self.at_seconds = time.monotonic() - self.began

    def finish(self):
        self.join()
        return self.at_seconds


class Bench:
    def __init__(self, options):
        self.options = options
        self.directory = place.private() / "bench"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.broker = Broker(self.directory / "kafka")
        self.cluster = Cluster(self.directory / "postgres", Installation(), fsync="on",
                               shared_buffers="512MB", max_wal_size="8GB", checkpoint_timeout="30min",
                               track_commit_timestamp="on", pulse__topic=TOPIC)

    def __enter__(self):
        self.cluster.installation.prepare()
        self.broker.create()
        self.broker.launch()
        self.cluster.create()
        self.broker.wait_ready()
        self.broker.create_topic(TOPIC, 4 if self.options.only == "workers" else 3)
        self.cluster.configure(reload=False, pulse__brokers=self.broker.address,
                               pulse__database="pulse")
        self.cluster.start()
        self.cluster.create_database()
        return self

    def __exit__(self, *_):
        self.cluster.stop("immediate")
        self.broker.stop(timeout=10)
        self.cluster.destroy()
        shutil.rmtree(self.directory, ignore_errors=True)

    def value(self, sql, *parameters):
        return self.cluster.value(sql, *parameters)

    def caught_up(self):
        assert self.value("SELECT pulse.wait_until_caught_up('events', '10 min')")

    def empty_tables(self):
        self.cluster.query("TRUNCATE raw.events, live._events_minute, live._events_hour, live._events_day")
        # As if never read before: otherwise pulse would look for duplicates in every batch.
        self.cluster.query("SELECT pulse.seek('events', 'earliest')")
        self.cluster.query("UPDATE pulse.offsets SET highest_offset = 0")
        self.cluster.query("VACUUM pulse.offsets")
        self.cluster.query("CHECKPOINT")

    def worker(self):
        return wait_until(lambda: self.cluster.backends("pulse worker"), "a worker")[0]

    def fill(self, count, partitions):
        """Sends the events, and lets pulse read them once; returns their mean size in bytes."""
        print(f"producing {count:,} events", flush=True)
        now = time.time()
        start = now - now % 86400 + 60  # all of them within today, as live data nearly always are
        sent = [(key, value) for key, value in
                events.stream(count, start=min(start, now - 3700), hours=1.0)]
        events.send(self.broker.address, TOPIC, sent)
        self.cluster.query("CREATE EXTENSION pulse")
        wait_until(lambda: self.value("SELECT count(*) FROM pulse.offsets") == partitions, "the partitions")
        self.caught_up()
        return sum(len(value) for _, value in sent) / len(sent)

    def ingest(self):
        count = self.options.events
        size = self.fill(count, partitions=3)
        memory = 0.0
        path = self.cluster.data / "bench.csv"
        self.cluster.query(f"COPY (SELECT * FROM raw.events) TO '{path}' (FORMAT csv)")

        rates, copies = [], []
        self.copy_cpu, self.writer_cpu, self.worker_cpu = [], [], []
        for number in range(self.options.rounds):
            copies.append(count / self.copy_once(path))
            rates.append(count / self.ingest_once(count))
            memory = max(memory, self.memory)
            print(f"  round {number + 1}: pulse {rates[-1]:,.0f} rows/s, COPY {copies[-1]:,.0f} rows/s, "
                  f"ratio {rates[-1] / copies[-1]:.2f}", flush=True)
        bad = self.cluster.query("SELECT * FROM pulse.verify('events') WHERE NOT ok")
        assert not [row for row in bad if row[0] != "rows in the target"], bad
        ratio = statistics.median(rate / copy for rate, copy in zip(rates, copies))
        print(f"ingest   {statistics.median(rates):>10,.0f} rows/s ({size:.0f} bytes each)   "
              f"COPY {statistics.median(copies):>10,.0f} rows/s   ratio {ratio:.2f}")
        copy, writer, worker = (statistics.median(seconds) * 1e6 / count for seconds in
                                (self.copy_cpu, self.writer_cpu, self.worker_cpu))
        print(f"cpu      {writer:>10.2f} us a row in the backend that writes (COPY's {copy:.2f}, ratio "
              f"{copy / writer:.2f}), {worker:.2f} us with the reader and librdkafka's threads")
        print(f"memory   {memory:>10,.0f} MB peak of the worker's private memory "
              f"(queue_memory {self.value('SHOW pulse.queue_memory')})", flush=True)

    def copy_once(self, path):
        self.cluster.query("SELECT pulse.pause('events')")
        self.empty_tables()
        with self.cluster.connect() as connection:
            before = cpu_seconds(connection.info.backend_pid)
            began = time.monotonic()
            connection.execute(f"COPY raw.events FROM '{path}' (FORMAT csv)")
            seconds = time.monotonic() - began
            self.copy_cpu.append(cpu_seconds(connection.info.backend_pid) - before)
        return seconds

    def ingest_once(self, count):
        self.empty_tables()
        began = time.monotonic()
        self.cluster.query("SELECT pulse.resume('events')")
        peak = PeakMemory(self.worker())
        self.caught_up()
        seconds = time.monotonic() - began
        self.memory = peak.finish()
        worker = self.worker()
        self.writer_cpu.append(cpu_seconds(worker, worker))
        self.worker_cpu.append(cpu_seconds(worker))
        assert self.value("SELECT count(*) FROM raw.events") == count
        return seconds

    def workers(self):
        """One worker against two. The broker and the checker of the rows share the same processors."""
        count = self.options.events
        self.fill(count, partitions=4)
        rates = {1: [], 2: []}
        for number in range(self.options.rounds):
            for workers in rates:
                self.cluster.query("SELECT pulse.pause('events')")
                self.cluster.query("SELECT pulse.alter_pipeline('events', %s::jsonb)",
                                   f'{{"workers": {workers}}}')
                rates[workers].append(count / self.read_all(workers, count))
            print(f"  round {number + 1}: one worker {rates[1][-1]:,.0f} rows/s, two {rates[2][-1]:,.0f}",
                  flush=True)
        ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2]))
        print(f"workers  {statistics.median(rates[2]):>10,.0f} rows/s with two   "
              f"{statistics.median(rates[1]):>10,.0f} rows/s with one   ratio {ratio:.2f} "
              f"({len(os.sched_getaffinity(0))} processors)", flush=True)

    def read_all(self, workers, count):
        """Seconds from resume() until everything is committed."""
        self.empty_tables()
        began = time.monotonic()
        self.cluster.query("SELECT pulse.resume('events')")
        self.caught_up()
        seconds = time.monotonic() - began
        assert self.value("SELECT count(*) FROM raw.events") == count
        assert self.value("SELECT count(DISTINCT worker) FROM pulse.batch_log WHERE finished_at > now() - "
                          "make_interval(secs => %s)", seconds) >= workers
        return seconds

    def letters(self):
        count = self.options.events
        self.fill(count, partitions=3)
        rates = {"raw.events": [], "raw.dlq": []}
        for number in range(self.options.rounds):
            for table, limit in (("raw.events", "400d"), ("raw.dlq", "1s")):
                self.cluster.query("SELECT pulse.pause('events')")
                self.cluster.query("SELECT pulse.alter_pipeline('events', %s::jsonb)",
                                   f'{{"max_error_ratio": 1, "reject_older_than": "{limit}"}}')
                self.cluster.query("TRUNCATE raw.dlq")
                self.empty_tables()
                began = time.monotonic()
                self.cluster.query("SELECT pulse.resume('events')")
                self.caught_up()
                rates[table].append(count / (time.monotonic() - began))
                assert self.value(f"SELECT count(*) FROM {table}") == count
            print(f"  round {number + 1}: letters {rates['raw.dlq'][-1]:,.0f} a second, rows "
                  f"{rates['raw.events'][-1]:,.0f}", flush=True)
        ratio = statistics.median(bad / good for bad, good in zip(rates["raw.dlq"], rates["raw.events"]))
        print(f"letters  {statistics.median(rates['raw.dlq']):>10,.0f} letters/s   "
              f"{statistics.median(rates['raw.events']):>10,.0f} rows/s   ratio {ratio:.2f}", flush=True)

    def simulate(self):
        """The same seed every time, so that everybody sends the same bytes."""
        count = self.options.events
        self.cluster.query("CREATE EXTENSION IF NOT EXISTS pulse")
        records = self.directory / "records"
        plain = place.BUILD / "bench" / "produce_bench"
        plain.parent.mkdir(parents=True, exist_ok=True)
        place.run("g++", "-O2", "-std=c++20", "-o", plain, place.ROOT / "test/bench/produce_bench.cpp", "-lrdkafka")
        rates, calls, limits, cpu, plain_cpu = [], [], [], [], []
        for number in range(self.options.rounds):
            topics = [f"simulated-{number}", f"plain-{number}"]
            for topic in topics:
                self.broker.create_topic(topic, 3, **{"retention.ms": "-1"})
            with self.cluster.connect() as connection:
                pid = connection.info.backend_pid
                before, began, arrival = cpu_seconds(pid), time.monotonic(), Arrival(self.broker, topics[0], count)
                connection.execute(f"""
                    CALL pulse.simulate(events => {count}, users => {count // 20}, duration => '1 day', seed => 1,
                                        start_at => '2026-01-01 00:00+00', topic => '{topics[0]}')""")
                calls.append(count / (time.monotonic() - began))
                cpu.append(cpu_seconds(pid) - before)
                rates.append(count / arrival.finish())
            if number == 0:
                size = self.keep(topics[0], records)
            before = children_cpu_seconds()
            limits.append(count / float(place.run(plain, self.broker.address, topics[1], records)))
            plain_cpu.append(children_cpu_seconds() - before)
            print(f"  round {number + 1}: simulate {rates[-1]:,.0f} events/s, librdkafka alone {limits[-1]:,.0f}, "
                  f"ratio {rates[-1] / limits[-1]:.2f}", flush=True)
            for topic in topics:
                self.broker.delete_topic(topic)
        ratio = statistics.median(rate / limit for rate, limit in zip(rates, limits))
        print(f"simulate {statistics.median(rates):>10,.0f} events/s ({size:.0f} bytes each)   librdkafka alone "
              f"{statistics.median(limits):>10,.0f} events/s   ratio {ratio:.2f}\n"
              f"         {statistics.median(calls):>10,.0f} events/s until the truth is written, too")
        print(f"cpu      {statistics.median(cpu) * 1e6 / count:>10.2f} us an event in all threads of the backend, "
              f"{statistics.median(plain_cpu) * 1e6 / count:.2f} in those of librdkafka alone", flush=True)

    def keep(self, topic, path):
        """Writes a topic's records as produce_bench.cpp reads them; returns the mean size of a value."""
        count = total = 0
        with open(path, "wb") as file:
            for message in self.broker.iterate(topic):
                for field in (message.key(), message.value()):
                    file.write(struct.pack("=i", -1 if field is None else len(field)) + (field or b""))
                count += 1
                total += len(message.value() or b"")
        assert count == self.options.events, count
        return total / count

    def latency(self, rate):
        if not self.value("SELECT count(*) FROM pg_extension WHERE extname = 'pulse'"):
            self.cluster.query("CREATE EXTENSION pulse")
        wait_until(lambda: self.value("SELECT count(*) FROM pulse.offsets") == 3, "the partitions")
        self.caught_up()
        first = dict(self.cluster.query("SELECT partition, next_offset FROM pulse.offsets"))
        count = rate * self.options.seconds
        sender = events.start_producer(self.broker.address, TOPIC, count, rate=rate, seed=rate,
                                       hours=0.01)
        assert sender.wait() == 0
        self.caught_up()
        # Of the second half, when everything is warm.
        p50, p99, worst, found = self.cluster.query("""
            SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.99) WITHIN GROUP (ORDER BY ms),
                   max(ms), count(*)
              FROM (SELECT extract(epoch FROM pg_xact_commit_timestamp(e.xmin) - e.kafka_timestamp) * 1000 AS ms
                      FROM raw.events e
                      JOIN (SELECT * FROM unnest(%s::int[], %s::bigint[]) AS f(partition, first)) f
                        ON f.partition = e.kafka_partition
                     WHERE e.kafka_offset >= f.first + %s) l
            """, list(first), list(first.values()), count // 6)[0]
        assert found > count // 3, found
        batches = self.value("SELECT sum(batches) FROM pulse.batch_log WHERE finished_at > now() - "
                             "make_interval(secs => %s)", self.options.seconds)
        print(f"latency  {rate:>10,} events/s   p50 {p50:.1f} ms   p99 {p99:.1f} ms   max {worst:.1f} ms   "
              f"({batches} batches)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--only", choices=["ingest", "latency", "workers", "letters", "simulate"])
    options = parser.parse_args()
    with Bench(options) as bench:
        if options.only in ("workers", "letters", "simulate"):
            getattr(bench, options.only)()
            return
        if options.only != "ingest":
            for rate in (600, 10_000):
                bench.latency(rate)
            bench.cluster.query("SELECT pulse.drop_pipeline('events')")
            bench.cluster.query("DROP EXTENSION pulse")
            bench.cluster.query("DROP SCHEMA raw, live CASCADE")
            bench.broker.delete_topic(TOPIC)
            wait_until(lambda: TOPIC not in bench.broker.topics(), "the topic to go")
            bench.broker.create_topic(TOPIC, 3)
        if options.only != "latency":
            bench.ingest()
        if options.only is None:
            bench.simulate()


if __name__ == "__main__":
    sys.exit(main())
