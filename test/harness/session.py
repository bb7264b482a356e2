"""What `make up`, `produce`, `stats`, `psql`, `logs` and `down` do: one server and one broker that
stay between commands."""

import fcntl
import os
import shutil
import sys
import time
from contextlib import contextmanager

from . import dbt, events, place, truth
from .kafka import Broker
from .place import Failed, wait_until
from .postgres import Cluster, Installation, locked

TOPIC = "events"
DEAD_LETTER_TOPIC = "events_dlq"
PARTITIONS = 3


class Session:
    def __init__(self):
        self.directory = place.private() / "up"
        self.cluster = Cluster(self.directory / "postgres", Installation(), fsync="on",
                               shared_buffers="256MB", max_wal_size="4GB", pulse__database="pulse",
                               pulse__topic=TOPIC)
        self.broker = Broker(self.directory / "kafka")

    def up(self):
        """Starts what is not running. A server that is gets the new build and keeps its data."""
        self.cluster.installation.prepare()
        with locked("session"):
            return self._up()

    def _up(self):
        if not self.broker.running():
            print("== Broker", flush=True)
            if not self.broker.data.exists():
                self.broker.create()
            self.broker.launch()
        fresh = not self.cluster.data.exists()
        print("== PostgreSQL", flush=True)
        if fresh:
            self.cluster.create()
        self.cluster.configure(reload=False, pulse__brokers=self.broker.address)
        self.cluster.restart()
        self.broker.wait_ready()
        self.make_topic(TOPIC)
        self.make_topic(DEAD_LETTER_TOPIC)
        if fresh:
            self.cluster.create_database()
            self.cluster.query("CREATE EXTENSION pulse")
        return self

    def make_topic(self, name):
        if name not in self.broker.topics():
            # Events of other days keep their times as the records' own: no age is too old.
            self.broker.create_topic(name, PARTITIONS, retention_ms=-1)

    def require(self):
        if not self.cluster.running():
            raise Failed("nothing is up: say `make up` or `make demo` first")
        return self

    def down(self):
        with locked("session"):
            self._down()

    def _down(self):
        self.cluster.stop("immediate")
        self.broker.stop(timeout=10)
        self.cluster.destroy()
        shutil.rmtree(self.directory, ignore_errors=True)
        print("stopped, data removed")

    def where(self):
        return (f"  broker    {self.broker.address}   topic {TOPIC}, {PARTITIONS} partitions\n"
                f"  psql      {self.cluster.psql_command()}\n"
                f"  logs      {self.cluster.log}\n"
                f"            {self.broker.log}")

    def psql(self):
        command = self.cluster.psql_command().split()
        if os.environ.get("SQL"):
            command += ["-c", os.environ["SQL"]]
        os.execve(command[0], command, place.environment())

    def logs(self):
        follow = ["-F"] if sys.stdout.isatty() else []
        os.execvp("tail", ["tail", "-n", "40", *follow, str(self.cluster.log),
                           str(self.broker.log)])

    def stats(self):
        while True:
            text = self.cluster.psql("-P", "pager=off", "-x", "-c",
                                     "SELECT * FROM pulse.stat_pipeline") + \
                self.cluster.psql("-P", "pager=off", "-c", "SELECT * FROM pulse.stat_partition")
            if not sys.stdout.isatty():
                print(text, end="")
                return
            print(f"\033[H\033[2J{time.strftime('%H:%M:%S')}  (Ctrl-C ends)\n{text}", flush=True)
            time.sleep(1)

    # --- what the table and the topic say, asked independently of pulse's own views

    def counts(self):
        """(rows, dead letters)"""
        return self.cluster.query(
            "SELECT (SELECT count(*) FROM raw.events), (SELECT count(*) FROM raw.dlq)")[0]

    def behind(self):
        """Records between pulse's offsets and the ends of the partitions."""
        stored = dict(self.cluster.query(
            "SELECT partition, next_offset FROM pulse.offsets "
            "WHERE pipeline = 'events' AND topic = %s", TOPIC))
        ends = self.broker.end_offsets(TOPIC)
        return sum(end - stored.get(partition, 0) for partition, end in ends.items())

    def state(self):
        return self.cluster.query(
            "SELECT state, reason FROM pulse.stat_pipeline WHERE pipeline = 'events'")[0]

    def wait_for_table(self):
        wait_until(lambda: self.cluster.value("SELECT to_regclass('raw.events') IS NOT NULL"),
                   "the pipeline events -> raw.events to be created", 30)


@contextmanager
def end_to_end_run():
    """While a run lasts nobody else takes its servers for left-overs. A run that is alone first
    removes what earlier ones left whose process was killed before it could clean up."""
    place.BUILD.mkdir(exist_ok=True)
    with open(place.BUILD / ".e2e.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            for directory in place.private().glob("e2e-*"):
                cluster = Cluster(directory, Installation(testing=True))
                if cluster.data.exists():
                    cluster.destroy()
                else:
                    Broker(directory).destroy()
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def produce():
    """`make produce`: numbers come from the environment, as make passes its variables."""
    session = Session().require()
    asked = {name: os.environ[name.upper()] for name in ("bad", "rate", "seed", "users", "start",
                                                         "hours") if os.environ.get(name.upper())}
    # Another seed each time unless one is named: the same one again would be duplicates only.
    asked.setdefault("seed", time.time_ns() % 1_000_000_007)
    topic = os.environ.get("TOPIC") or TOPIC
    session.make_topic(topic)
    sender = events.start_producer(session.broker.address, topic, int(os.environ.get("N") or 100_000), **asked)
    if sender.wait() != 0:
        raise Failed("the producer failed")


def demo(count):
    """From nothing to a table that is proved to hold every event exactly once, and to models that
    are proved to be true."""
    began = time.monotonic()
    session = Session()
    if session.directory.exists():
        print("== Removing what an earlier `make up` or `make demo` left")
        session.down()
        session = Session()
    session.up().wait_for_table()
    ready = time.monotonic()
    print(f"== Up {ready - began:.0f} s after the start:\n{session.where()}")

    print(f"== Producing {count:,} events with an ordinary client, while pulse consumes", flush=True)
    sender = events.start_producer(session.broker.address, TOPIC, count)
    first, lag, previous, shown = time.monotonic(), 1, 0, time.monotonic()
    while sender.poll() is None or lag > 0:
        lag, now = session.behind(), time.monotonic()
        if now - shown >= 2:
            rows, letters = session.counts()
            state, reason = session.state()
            print(f"   {now - first:5.0f} s   {rows:>10,} rows   {letters:>6,} dead letters   "
                  f"{lag:>9,} behind   {(rows - previous) / (now - shown):>8,.0f} rows/s   "
                  f"{state}{': ' + reason if reason else ''}", flush=True)
            previous, shown = rows, now
        if now - first > 120 + count / 2000:
            raise Failed(f"not caught up after {now - first:.0f} s\n"
                         f"{place.tail(session.cluster.log)}")
        time.sleep(0.2)
    if sender.returncode != 0:
        raise Failed("the producer failed")
    took = time.monotonic() - first

    print("== Proof", flush=True)
    rows, letters = session.counts()
    produced = sum(session.broker.end_offsets(TOPIC).values())
    print(session.cluster.psql("-P", "pager=off", "-c", "SELECT * FROM pulse.verify('events')"))
    wrong = session.cluster.value(
        "SELECT count(*) FROM pulse.verify('events') WHERE ok IS NOT TRUE")
    print(f"  produced      {produced:>12,}\n"
          f"  rows          {rows:>12,}\n"
          f"  dead letters  {letters:>12,}\n"
          f"  behind        {lag:>12,}\n"
          f"  caught up in  {took:>12.1f} s   {produced / took:,.0f} events/s, "
          f"client and broker on the same machine\n")
    if wrong or lag or produced != rows + letters:
        raise Failed("FAILED: the figures above do not add up")
    print("Every event is there exactly once.\n")
    tell_story(session, count // 5)
    print("It is still running; try:\n"
          "  make psql       SELECT * FROM live.events_minute ORDER BY bucket DESC LIMIT 5;\n"
          "                  SELECT * FROM analytics.fct_funnel_daily ORDER BY 1 DESC, 2 LIMIT 5;\n"
          "                  SELECT * FROM pulse.dlq_summary();\n"
          "  make produce    another 100,000 (N=… BAD=0.01 mixes in malformed ones)\n"
          "  make stats      what the pipeline is doing\n"
          "  make logs       server and broker\n"
          "  make down       stop and remove everything")


def tell_story(session, count):
    """A week of a shop, simulated, ingested, modelled with dbt, and held against the truth."""
    print(f"== A week of a shop: {count:,} events, some late, twice, malformed or of bots; then dbt's models of them",
          flush=True)
    session.cluster.query(
        f"CALL pulse.simulate(events => {count}, users => {max(count // 20, 1)}, duration => '7 days', seed => 1,"
        " start_at => date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '9 days',"
        " late => 0.02, duplicates => 0.01, malformed => 0.01, out_of_order => 0.05, bots => 0.03)")
    wait_until(lambda: session.behind() == 0, "the simulated events to be ingested", 120 + count / 2000)
    try:
        dbt.environment()
    except Failed as failed:
        print(f"   dbt could not be installed, so there are no models to compare:\n{failed}\n")
        return
    models = dbt.Dbt(session.cluster)
    try:
        models.invoke("run")
    finally:
        models.close()
    print("   what                            true rows   models differ in")
    wrong = 0
    for what, true_rows, different in truth.compare(session.cluster):
        print(f"   {what:<30} {true_rows:>10,}   {len(different) or 'nothing':>16}")
        wrong += len(different)
    if wrong:
        raise Failed("FAILED: the models are not true")
    print("   The truth is in sim.*, the models are in analytics.*\n", flush=True)
