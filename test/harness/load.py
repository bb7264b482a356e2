"""Load and oracles for tests that break things: a producer that outlives its broker, an independent
reader that proves the promise in SQL, and a watcher that proves it from snapshots during the run.

Bad records are keyed `bad:<error code>`, so the reader knows what each must become without decoding
as pulse does.
"""

import functools
import hashlib
import json
import random
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timezone

import psycopg
from confluent_kafka import KafkaException, Producer, TopicPartition

from .events import FUNNEL, SPOILERS
from .place import wait_until

BAD_KEY = b"bad:"
CODES = list(SPOILERS)


def records(seed=1, *, bad=0.015, duplicates=0.01, users=500, days=2.0):
    """Endless (key, value, event_id), the same for the same seed and day. A duplicate is an earlier
    event word for word, under its own key or (one in four) one that leads to another partition;
    event_id is None for what is bad or sent before. Most events are of the last hour, one in
    ten of the last days, so batches touch several day partitions."""
    rnd = random.Random(seed)
    now = time.time()
    recent = []
    number = 0
    while True:
        if recent and rnd.random() < duplicates:
            key, value = rnd.choice(recent)
            yield (b"again-%d" % rnd.randrange(1000) if rnd.random() < 0.25 else key), value, None
            continue
        number += 1
        back = rnd.random() * (days * 86400 if rnd.random() < 0.1 else 3600)
        at = datetime.fromtimestamp(round(now - back, 3), timezone.utc)
        step = rnd.randrange(len(FUNNEL))
        user = rnd.randrange(users)
        event_id = f"{seed}-{number:09d}"
        value = (f'{{"event_id":"{event_id}","user_id":"user-{user}","event_timestamp":'
                 f'"{at.strftime("%Y-%m-%dT%H:%M:%S")}.{at.microsecond // 1000:03d}Z",'
                 f'"event_type":"{FUNNEL[step]}","funnel_step_index":{step},'
                 f'"properties":{{"price":{rnd.randrange(10000) / 100},"n":{number}}}}}').encode()
        if rnd.random() < bad:
            code = rnd.choice(CODES)
            yield BAD_KEY + code.encode(), SPOILERS[code](value), None
            continue
        key = b"user-%d" % user
        if len(recent) < 500:
            recent.append((key, value))
        else:
            recent[rnd.randrange(500)] = (key, value)
        yield key, value, event_id


class Load:
    """A background producer at a steady rate. Waits for a broker that is away; what the broker
    acknowledged is in `acknowledged`."""

    def __init__(self, pulse, seed=1, rate=1000, **options):
        self.pulse = pulse
        self.rate = rate
        self.sent = 0
        self.acknowledged = set()
        self._records = records(seed, **options)
        self._rnd = random.Random(seed)
        self._stop = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def _delivered(self, event_id, error, _message):
        if error is None and event_id is not None:
            self.acknowledged.add(event_id)

    def _producer(self):
        return Producer({"bootstrap.servers": self.pulse.broker.address, "enable.idempotence": True,
                         "log_level": 0, "linger.ms": 2, "queue.buffering.max.messages": 1_000_000,
                         "reconnect.backoff.max.ms": 500, "delivery.timeout.ms": 600_000})

    def _run(self):
        try:
            producer, began = self._producer(), time.monotonic()
            while not self._stop.is_set():
                while self.sent < (time.monotonic() - began) * self.rate:
                    key, value, event_id = next(self._records)
                    try:
                        producer.produce(self.pulse.topic, value, key, on_delivery=functools.partial(
                            self._delivered, event_id))
                        self.sent += 1
                    except BufferError:
                        producer.poll(0.1)
                    except KafkaException:  # a fatal error of the idempotent producer: a new one
                        producer = self._producer()
                producer.poll(0.02)
            assert producer.flush(60) == 0, "the producer could not deliver everything"
        except BaseException as failure:  # shown by stop()
            self._failure = failure

    def stop(self):
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        assert self.acknowledged, "the load sent nothing"


class Auditor:
    """The promise, proved from what an ordinary client reads from the topic."""

    def __init__(self, pulse):
        self.pulse = pulse
        self._positions = {}
        self._consumer = None
        pulse.query("CREATE SCHEMA audit")
        pulse.query("CREATE TABLE audit.truth (partition int, at bigint, code text, "
                    "sha bytea, event_id text, user_id text, event_type text, event_timestamp timestamptz)")

    def read(self, timeout=60):
        """Copies what the topic got since the last call into audit.truth."""
        if self._consumer is None:
            self._consumer = self.pulse.broker.consumer(enable_partition_eof=True,
                                                        reconnect_backoff_max_ms=500)
        wanted = {partition: self._positions.get(partition, 0)
                  for partition in range(self.pulse.broker.partitions(self.pulse.topic))}
        self._consumer.assign([TopicPartition(self.pulse.topic, *one) for one in wanted.items()])
        deadline, last_error = time.monotonic() + timeout, None
        with self.pulse.connect(autocommit=False) as connection, \
                connection.cursor().copy("COPY audit.truth FROM STDIN") as copy:
            while wanted:
                assert time.monotonic() < deadline, f"no end of the topic: {wanted} {last_error}"
                for message in self._consumer.consume(5000, timeout=0.1):
                    if message.error() is None:
                        copy.write_row(self._row(message))
                    elif message.error().name() == "_PARTITION_EOF":
                        self._positions[message.partition()] = message.offset()
                        wanted.pop(message.partition(), None)
                    else:
                        last_error = message.error()
        return self

    @staticmethod
    def _row(message):
        key, value = message.key() or b"", message.value()
        sha = None if value is None else hashlib.sha256(value).digest()
        if key.startswith(BAD_KEY):
            return (message.partition(), message.offset(), key[len(BAD_KEY):].decode(), sha,
                    None, None, None, None)
        event = json.loads(value)
        return (message.partition(), message.offset(), None, sha, event["event_id"],
                event["user_id"], event["event_type"], event["event_timestamp"])

    def check(self, *, seeked=False, ends=True):
        """Everything below next_offset is one row, one letter, or a duplicate of a row; the ledger
        and the counters agree; with ends, next_offset is the end of the topic. After a seek the
        ledger has counted records more than once. Returns what was counted."""
        pulse = self.pulse
        with pulse.connect(autocommit=False) as snapshot:
            snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            snapshot.execute("SET LOCAL work_mem = '64MB'")

            def none(what, sql):
                found = snapshot.execute(sql, {"topic": pulse.topic}).fetchmany(5)
                assert found == [], f"{what}: {found}"

            if ends:
                stored = dict(snapshot.execute("SELECT partition, next_offset FROM pulse.offsets "
                                               "WHERE topic = %s", (pulse.topic,)).fetchall())
                assert stored == self._positions, "next_offset is not the end of the topic"
            none("records at or behind next_offset that are rows or letters", """
                SELECT o.partition, o.next_offset, at FROM pulse.offsets o JOIN
                  (SELECT kafka_partition AS partition, kafka_offset AS at FROM raw.events
                   UNION ALL SELECT kafka_partition, kafka_offset FROM raw.dlq) x USING (partition)
                WHERE topic = %(topic)s AND at >= highest_offset""")
            none("rows that differ from what was sent, or were never sent", """
                SELECT e.* FROM raw.events e LEFT JOIN audit.truth t
                  ON t.partition = e.kafka_partition AND t.at = e.kafka_offset
                WHERE t.at IS NULL OR t.code IS NOT NULL
                   OR (e.event_id, e.user_id, e.event_type, e.event_timestamp) IS DISTINCT FROM
                      (t.event_id, t.user_id, t.event_type, t.event_timestamp)""")
            none("events that are missing, or more than once in the table", """
                SELECT event_id, sent, stored FROM
                  (SELECT event_id, count(*) AS sent FROM audit.truth t JOIN pulse.offsets o
                     ON o.partition = t.partition AND o.topic = %(topic)s AND t.at < o.next_offset
                   WHERE code IS NULL GROUP BY 1) s
                FULL JOIN (SELECT event_id, count(*) AS stored FROM raw.events GROUP BY 1) r USING (event_id)
                WHERE stored IS DISTINCT FROM 1 OR sent IS NULL""")
            none("records stored twice", """
                SELECT kafka_partition, kafka_offset FROM raw.events GROUP BY 1, 2 HAVING count(*) > 1""")
            none("letters that are missing, changed, too many or of the wrong code", """
                SELECT t.partition, t.at, t.code, d.kafka_partition, d.kafka_offset, d.error_code FROM
                  (SELECT t.* FROM audit.truth t JOIN pulse.offsets o ON o.partition = t.partition
                     AND o.topic = %(topic)s AND t.at < o.next_offset WHERE code IS NOT NULL) t
                FULL JOIN raw.dlq d ON d.kafka_partition = t.partition AND d.kafka_offset = t.at
                WHERE t.at IS NULL OR d.kafka_offset IS NULL OR d.error_code <> t.code
                   OR sha256(d.value) IS DISTINCT FROM t.sha""")
            if not seeked:
                none("ledgers that differ from a recount", """
                    SELECT o.partition, o.records, o.rows, o.duplicates, o.rejects, t.*
                    FROM pulse.offsets o JOIN
                      (SELECT partition, count(*) AS records, count(code) AS rejects FROM audit.truth
                       GROUP BY 1) t USING (partition)
                    LEFT JOIN (SELECT kafka_partition AS partition, count(*) AS rows FROM raw.events
                               GROUP BY 1) r USING (partition)
                    WHERE topic = %(topic)s AND (o.records, o.rows, o.rejects, o.duplicates) IS DISTINCT FROM
                      (t.records, coalesce(r.rows, 0), t.rejects, t.records - coalesce(r.rows, 0) - t.rejects)
                """)
            none("counters that differ from a recount", WRONG_COUNTERS)
            counted = snapshot.execute(
                "SELECT (SELECT count(*) FROM audit.truth), (SELECT count(*) FROM raw.events), "
                "(SELECT count(*) FROM raw.dlq)").fetchone()
        pulse.verify()
        return dict(zip(("records", "rows", "letters"), counted))


WRONG_COUNTERS = """
    WITH minutes AS MATERIALIZED (
        SELECT date_trunc('minute', event_timestamp, 'UTC') AS bucket, event_type, count(*) AS n
        FROM raw.events GROUP BY 1, 2),
    recount AS (
        SELECT 'minute' AS unit, bucket, event_type, n FROM minutes
        UNION ALL SELECT 'hour', date_trunc('hour', bucket, 'UTC'), event_type, sum(n) FROM minutes GROUP BY 2, 3
        UNION ALL SELECT 'day', date_trunc('day', bucket, 'UTC'), event_type, sum(n) FROM minutes GROUP BY 2, 3),
    counters AS (
        SELECT 'minute' AS unit, * FROM live.events_minute UNION ALL
        SELECT 'hour', * FROM live.events_hour UNION ALL SELECT 'day', * FROM live.events_day)
    SELECT unit, bucket, event_type, count, n FROM counters FULL JOIN recount USING (unit, bucket, event_type)
    WHERE count IS DISTINCT FROM n"""

# One line per partition: what its offsets row says beside what is there.
LEDGER = """
    SELECT o.partition, o.next_offset, o.records, o.rows, o.duplicates, o.rejects,
           coalesce(e.n, 0), coalesce(e.once, 0), greatest(e.last, d.last), coalesce(d.n, 0)
    FROM pulse.offsets o
    LEFT JOIN (SELECT kafka_partition AS partition, count(*) AS n, count(DISTINCT kafka_offset) AS once,
                      max(kafka_offset) AS last FROM raw.events GROUP BY 1) e USING (partition)
    LEFT JOIN (SELECT kafka_partition AS partition, count(*) AS n, max(kafka_offset) AS last
               FROM raw.dlq GROUP BY 1) d USING (partition)
    WHERE pipeline = %s ORDER BY 1"""


def look(connection, name="events", gapless=True):
    """One REPEATABLE READ snapshot of a pipeline that was never seeked: every record below
    next_offset is accounted for, nothing is there twice or beyond, counters equal rows. With gapless
    the topic has no offset without a record. Returns partition -> next offset."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        ledger = connection.execute(LEDGER, (name,)).fetchall()
        wrong = connection.execute(WRONG_COUNTERS).fetchmany(5)
    for line in ledger:
        partition, next_offset, records_, rows, duplicates, rejects, found, once, last, letters = line
        assert found == once, f"records stored twice: {line}"
        assert last is None or last < next_offset, f"a record beyond next_offset: {line}"
        assert (rows, rejects) == (found, letters), f"the ledger differs from the tables: {line}"
        assert records_ == rows + duplicates + rejects, f"a record not accounted for: {line}"
        assert not gapless or records_ == next_offset, f"a record skipped: {line}"
    assert wrong == [], f"counters differ from rows: {wrong}"
    return {line[0]: line[1] for line in ledger}


class Watch:
    """Looks at snapshots during a run, about every half second, in a thread of its own."""

    def __init__(self, pulse, interval=0.5, gapless=True):
        self.pulse = pulse
        self.interval = interval
        self.gapless = gapless
        self.looks = 0
        self.moves = 0
        self._offsets = {}
        self._failure = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def _run(self):
        connection, pause = None, 0.0
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                if connection is None:
                    connection = self.pulse.connect()
                offsets = look(connection, self.pulse.name, self.gapless)
                back = {partition: (self._offsets[partition], offset)
                        for partition, offset in offsets.items()
                        if offset < self._offsets.get(partition, 0)}
                assert back == {}, f"next_offset went back: {back}"
                self.looks += 1
                self.moves += offsets != self._offsets
                self._offsets = offsets
            except psycopg.OperationalError:  # the server is being killed
                connection = None
            except BaseException as failure:
                self._failure = failure
                return
            # Never more than a third of a core, however large the table has grown.
            pause = max(self.interval, 2 * (time.monotonic() - began)) if connection else 0.05

    def check(self):
        if self._failure is not None:
            raise self._failure

    def stop(self):
        self._stop.set()
        self._thread.join()
        self.check()
        assert self.looks >= 2 and self.moves >= 2, \
            f"watched nothing: {self.looks} looks, {self.moves} of them saw progress"


class Trial:
    """A run under load: progress() waits for more records, resumed() measures how long it took."""

    def __init__(self, pulse, seed, rate, **options):
        self.pulse = pulse
        self.rnd = random.Random(seed)
        self.auditor = Auditor(pulse)
        self.load = Load(pulse, seed, rate, **options)
        self.watch = Watch(pulse)
        self.times = []

    def total(self):
        return self.pulse.value("SELECT sum(next_offset) FROM pulse.offsets WHERE pipeline = %s",
                                self.pulse.name) or 0

    def progress(self, at_least=100, at_most=1500, timeout=60):
        """Until a random number of further records is committed: the moment of the next fault."""
        wanted = self.total() + self.rnd.randint(at_least, at_most)

        def reached():
            self.watch.check()
            return self.total() >= wanted
        wait_until(reached, f"{wanted} committed records", timeout)

    def resumed(self, since, timeout=60):
        """Until every partition had a batch committed after `since` (time.time())."""
        at = datetime.fromtimestamp(since, timezone.utc)
        self.pulse.wait_for("SELECT min(updated_at) > %s FROM pulse.offsets WHERE pipeline = %s",
                            "every partition to go on after the fault", timeout, (at, self.pulse.name))
        self.times.append(time.time() - since)

    def summary(self):
        times = sorted(self.times)
        if not times:
            return ""
        return (f"{len(times)} faults, resumed after {times[len(times) // 2]:.1f} s (median), "
                f"{times[-1]:.1f} s (longest)")


@contextmanager
def trial(pulse, seed=1, rate=1000, **options):
    """with trial(pulse) as run: break things. At the end the load stops, the pipeline catches up,
    and every record is accounted for."""
    run = Trial(pulse, seed, rate, **options)
    pulse.wait_for("SELECT count(*) > 0 FROM pulse.offsets", "partitions")
    run.load.start()
    run.watch.start()
    try:
        yield run
    except BaseException:
        run.load._stop.set()
        run.watch._stop.set()
        raise
    run.load.stop()
    pulse.wait_caught_up()
    run.watch.stop()
    counted = run.auditor.read(timeout=600).check()
    stored = {event_id for event_id, in pulse.query("SELECT event_id FROM raw.events")}
    lost = sorted(run.load.acknowledged - stored)
    assert lost == [], f"{len(lost)} acknowledged events are nowhere, first {lost[:20]}"
    print(f"\n   {counted['records']} records -> {counted['rows']} rows, {counted['letters']} letters; "
          f"{run.watch.looks} snapshots; {run.summary()}")
