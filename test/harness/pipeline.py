"""What a test holds in its hand: one server, one topic, and the pipeline between them."""

import json
import signal
import uuid
from collections import Counter
from datetime import datetime, timezone

from . import events, place
from .place import Process, wait_until

COUNTERS = """
    WITH counted AS (
        SELECT date_trunc('{unit}', event_timestamp, 'UTC') AS bucket, event_type, count(*) AS n
        FROM raw.events GROUP BY 1, 2
    )
    SELECT bucket, event_type, live.count, counted.n
    FROM live.events_{unit} AS live FULL JOIN counted USING (bucket, event_type)
    WHERE coalesce(live.count, 0) <> coalesce(counted.n, 0)
    ORDER BY 1, 2
"""


def event(**fields):
    """A good event as bytes; keyword arguments replace fields, and None leaves one out."""
    whole = {"event_id": str(uuid.uuid4()), "event_type": "page_view", "user_id": "user-1",
             "event_timestamp": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
             **fields}
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


class Pulse:
    """The pipeline `events` of one cluster. Where a method takes no table it means raw.events."""

    name = "events"

    def __init__(self, cluster, broker, topic):
        self.cluster = cluster
        self.broker = broker
        self.topic = topic
        self.crashes_expected = False  # by kill -9
        self.aborts_expected = False  # by abort() or PANIC
        self._fault_token = None
        self._log_mark = 0

    # --- sending

    def produce(self, values, **options):
        """Sends values (bytes, str, None) or (key, value) pairs; see Broker.produce."""
        self.broker.produce(self.topic, values, **options)

    def produce_events(self, count, **options):
        """Sends that many seeded events (options of events.stream) and returns how many."""
        return events.send(self.broker.address, self.topic, events.stream(count, **options))

    def start_producing(self, count, **options):
        """The same in a process of its own, for load while something else happens."""
        return events.start_producer(self.broker.address, self.topic, count, **options)

    # --- SQL

    def query(self, sql, *parameters):
        return self.cluster.query(sql, *parameters)

    def value(self, sql, *parameters):
        return self.cluster.value(sql, *parameters)

    def connect(self, **options):
        return self.cluster.connect(**options)

    def rows(self, columns="*", where="true"):
        return self.query(f"SELECT {columns} FROM raw.events WHERE {where} "
                          "ORDER BY kafka_partition, kafka_offset")

    def count(self, table="raw.events"):
        return self.value(f"SELECT count(*) FROM {table}")

    def letters(self, columns="*"):
        return self.query(f"SELECT {columns} FROM raw.dlq ORDER BY kafka_partition, kafka_offset")

    def offsets(self):
        """partition -> next offset, as stored."""
        return dict(self.query("SELECT partition, next_offset FROM pulse.offsets "
                               "WHERE pipeline = %s AND topic = %s", self.name, self.topic))

    def state(self):
        return self.value("SELECT state FROM pulse.stat_pipeline WHERE pipeline = %s", self.name)

    def reason(self, pipeline=None):
        return self.value("SELECT reason FROM pulse.stat_pipeline WHERE pipeline = %s", pipeline or self.name)

    # --- waiting

    def wait_for(self, sql, what=None, timeout=30, parameters=()):
        """Until the first column of a query is true. A server in recovery counts as not yet."""
        return wait_until(lambda: self.value(sql, *parameters), what or sql, timeout)

    def wait_state(self, *states, timeout=30):
        return wait_until(lambda: self.state() in states and self.state(),
                          f"state {' or '.join(states)}", timeout)

    def wait_created(self, timeout=30):
        """Until the launcher has made the pipeline and its tables."""
        self.wait_for("SELECT to_regclass('raw.events') IS NOT NULL AND EXISTS "
                      "(SELECT FROM pulse.pipelines WHERE name = %s)", "the pipeline to be created",
                      timeout, (self.name,))

    def behind(self):
        stored, ends = self.offsets(), self.broker.end_offsets(self.topic)
        return sum(max(end - stored.get(partition, 0), 0) for partition, end in ends.items())

    def wait_caught_up(self, timeout=60):
        """Until the stored offsets are at the ends the broker itself names."""
        try:
            wait_until(lambda: self.behind() == 0, "the pipeline to catch up", timeout, 0.05)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; stored {self.offsets()}, ends "
                               f"{self.broker.end_offsets(self.topic)}, state {self.state()}, "
                               f"reason {self.reason()}") from None

    # --- trouble

    def worker_pid(self, timeout=30):
        return wait_until(lambda: self.cluster.backends("pulse worker"), "a worker", timeout)[0]

    def kill9_worker(self):
        """kill -9 of a worker while it runs. PostgreSQL then restarts all its processes."""
        self.crashes_expected = True
        process = Process(self.worker_pid())
        process.send(signal.SIGKILL)
        process.wait_gone()
        return process.pid

    def terminate_worker(self):
        """pg_terminate_backend of a worker: no crash, it is just gone."""
        pid = self.worker_pid()
        self.query("SELECT pg_terminate_backend(%s)", pid)
        return pid

    def kill9_server(self):
        """kill -9 of the postmaster, and a start."""
        self.crashes_expected = True
        self.cluster.kill9()
        self.cluster.start()

    def arm(self, point, action, *, once=True, passes=1):
        """Arms a fault point (error, fatal, kill, stop) of a test build. With once it fires in the
        first process that gets there, and never again, whatever restarts in between. A process
        reads the setting when it next has nothing to do: what it was about to do comes first."""
        token = ""
        if once:
            token = self.cluster.directory / f"fault-{uuid.uuid4().hex[:8]}"
            token.touch()
            place.give_to_server(token)
        self._fault_token = token
        if action == "kill":
            self.crashes_expected = True
        self.cluster.configure(pulse__fault=f"{point}:{action}:{passes}", pulse__fault_token=token)

    def fault_fired(self):
        assert self._fault_token, "no fault is armed"
        return not self._fault_token.exists()

    def wait_fault(self, timeout=30):
        wait_until(self.fault_fired, "the fault to fire", timeout)

    def disarm(self):
        self.cluster.configure(pulse__fault="", pulse__fault_token="")

    # --- proof

    def verify(self):
        """pulse's own proof must be clean."""
        checks = self.query("SELECT what, topic, partition, expected, found, ok "
                            "FROM pulse.verify(%s)", self.name)
        assert checks, "verify() checked nothing"
        assert [check for check in checks if not check[5]] == []

    def check(self, duplicates=0, filtered=0):
        """The promise, proved without pulse's help against what an independent client reads from
        the topic: each record is one row, or one letter with the same bytes, or one of the expected
        duplicates and filtered ones; never two, never none. Then counters against a recount, and
        verify()."""
        with self.connect(autocommit=False) as snapshot:
            snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            stored = dict(snapshot.execute("SELECT partition, next_offset FROM pulse.offsets WHERE "
                                           "pipeline = %s AND topic = %s",
                                           (self.name, self.topic)).fetchall())
            rows = Counter(snapshot.execute("SELECT kafka_partition, kafka_offset FROM raw.events "
                                            "WHERE kafka_topic = %s", (self.topic,)).fetchall())
            letters = {(partition, offset): (value, code) for partition, offset, value, code in snapshot.execute(
                "SELECT kafka_partition, kafka_offset, value, error_code FROM raw.dlq "
                "WHERE kafka_topic = %s AND status <> 'replayed'",  # those are rows, or duplicates of rows
                (self.topic,)).fetchall()}
            wrong_counters = [(unit, *line) for unit in ("minute", "hour", "day")
                              for line in snapshot.execute(COUNTERS.format(unit=unit)).fetchall()]
        truth = {(message.partition(), message.offset()): message.value()
                 for message in self.broker.iterate(self.topic)
                 if message.offset() < stored.get(message.partition(), 0)}
        low = self.broker.low_offsets(self.topic)
        written = {where for where in rows.keys() | letters.keys() if where[1] >= low[where[0]]}

        assert [where for where, times in rows.items() if times > 1] == [], "rows that are doubled"
        assert sorted(rows.keys() & letters.keys()) == [], "both a row and a dead letter"
        assert sorted(written - truth.keys())[:20] == [], "never produced, or beyond the offset"
        missing = sorted(truth.keys() - written)
        assert len(missing) == duplicates + filtered, \
            f"{len(missing)} records are neither row nor letter, first {missing[:20]}"
        for where, (value, code) in letters.items():
            kept = None if code == "too_large_to_fetch" else truth.get(where)  # never seen by pulse
            assert where not in truth or value == kept, f"bytes of letter {where} changed"
        assert wrong_counters == [], "counters and a recount differ"
        self.verify()

    def watch_snapshots(self):
        """One look from the middle of a run: in a snapshot, counters must equal rows and no row
        may lie beyond its partition's offset."""
        with self.connect(autocommit=False) as snapshot:
            snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            assert snapshot.execute(COUNTERS.format(unit="minute")).fetchall() == []
            assert snapshot.execute(
                "SELECT kafka_partition, max(kafka_offset), next_offset FROM raw.events JOIN "
                "pulse.offsets ON topic = kafka_topic AND partition = kafka_partition "
                "WHERE pipeline = %s GROUP BY 1, 3 HAVING max(kafka_offset) >= next_offset",
                (self.name,)).fetchall() == []

    def log_since(self):
        """The server's log since the last call."""
        text = self.cluster.log_text(self._log_mark)
        self._log_mark += len(text)
        return text
