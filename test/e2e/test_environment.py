"""The server runs out of something, or somebody stands in the way. Whole batches are retried, nothing
goes to the dead letters for it, and when it is over the pipeline goes on without a hand."""

import os
import shutil
import time

import psycopg
import pytest
from harness import place
from harness.load import trial
from harness.pipeline import event
from harness.place import wait_until

MB = 1024 * 1024


class SmallDisk:
    """A file system of its own that can be filled up."""

    def __init__(self, directory, megabytes):
        self.path = directory
        place.server_directory(directory)
        place.run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", directory)
        place.give_to_server(directory)
        os.chmod(directory, 0o700)

    @property
    def _ballast(self):
        return self.path / "ballast"

    def fill(self, leave=0):
        """Takes all that is free but `leave` bytes."""
        disk = os.statvfs(self.path)
        size = disk.f_bavail * disk.f_frsize - leave
        with open(self._ballast, "ab") as ballast:
            if size > 0:
                os.posix_fallocate(ballast.fileno(), ballast.tell(), size)

    def empty(self):
        self._ballast.unlink()

    def remove(self):
        place.run("umount", "--lazy", self.path)


@pytest.fixture
def small_disk():
    """small_disk(megabytes): a SmallDisk, where we may mount one."""
    if os.getuid() != 0:
        pytest.skip("a disk of its own size is a tmpfs, and only root may mount one")
    made = []

    def make(megabytes):
        directory = place.private() / f"disk-{os.getpid()}-{len(made)}"
        try:
            made.append(SmallDisk(directory, megabytes))
        except Exception as refused:
            pytest.skip(f"a tmpfs can't be mounted here: {refused}")
        return made[-1]

    yield make
    for disk in made:
        disk.remove()
        shutil.rmtree(disk.path, ignore_errors=True)


# --- disks -------------------------------------------------------------------------------------

@pytest.mark.extension(False)
def test_full_tablespace_is_waited_out(pulse, small_disk, how_many):
    """All of the database is in it: rows, offsets, letters."""
    disk = small_disk(96)
    with pulse.cluster.connect("postgres") as other:
        other.execute(f"CREATE TABLESPACE small LOCATION '{disk.path}'")
        other.execute("DROP DATABASE pulse WITH (FORCE)")
        other.execute("CREATE DATABASE pulse TABLESPACE small")
    pulse.query("CREATE EXTENSION pulse")
    pulse.wait_created()
    for fault in range(how_many(2, 20)):
        pulse.produce([event() for _ in range(200)])
        pulse.wait_caught_up()
        disk.fill()
        pulse.produce([event(page_url="x" * 3000) for _ in range(1000)] + [b"not json"])
        pulse.wait_state("retrying")
        wait_until(lambda: "53100" in (pulse.reason() or ""), "the reason to name the disk")
        assert pulse.behind() > 0
        disk.empty()
        pulse.wait_caught_up()
        pulse.wait_state("running", "idle")
        assert pulse.reason() is None
        assert pulse.letters("error_code") == [("syntax",)] * (fault + 1)
        pulse.check()


def test_full_wal_disk_loses_and_condemns_nothing(pulse, small_disk, how_many):
    """PostgreSQL itself gives up then (PANIC); with space it starts and goes on. The record that was
    being written is not to blame."""
    disk = small_disk(160)
    pulse.cluster.stop()
    shutil.copytree(pulse.cluster.data / "pg_wal", disk.path, dirs_exist_ok=True)
    for path in disk.path.rglob("*"):
        place.give_to_server(path)
    shutil.rmtree(pulse.cluster.data / "pg_wal")
    (pulse.cluster.data / "pg_wal").symlink_to(disk.path)
    pulse.cluster.configure(max_wal_size="64MB", min_wal_size="32MB", wal_recycle="off")
    pulse.cluster.start()
    pulse.aborts_expected = True
    for fault in range(how_many(1, 10)):
        pulse.produce([event() for _ in range(200)])
        pulse.wait_caught_up()
        mark = pulse.cluster.log_mark()
        disk.fill()
        sender = pulse.start_producing(40_000, seed=fault)
        wait_until(lambda: "No space left on device" in pulse.cluster.log_text(mark), "the disk to be full", 60)
        wait_until(lambda: "PANIC" in pulse.cluster.log_text(mark), "PostgreSQL to give up", 60)
        assert sender.wait() == 0
        disk.empty()
        # It restarts itself, or could not for want of space.
        wait_until(lambda: not pulse.cluster.running() or pulse.cluster.ready(), "the end of it", 60)
        if not pulse.cluster.running():
            pulse.cluster.start()
        pulse.wait_caught_up(timeout=120)
        assert pulse.letters() == []
        pulse.check()
    assert "quarantined" not in pulse.cluster.log_text()


# --- slots -------------------------------------------------------------------------------------

@pytest.mark.server(max_connections=8, superuser_reserved_connections=2)
def test_no_connection_left_stops_nobody(pulse):
    """Workers have slots of their own."""
    pulse.produce([event()])
    pulse.wait_caught_up()
    held = [pulse.connect()]
    try:
        for _ in range(30):
            held.append(pulse.connect())
    except psycopg.OperationalError as error:
        assert "too many" in str(error) or "remaining connection slots" in str(error)
    else:
        pytest.fail("there is always another connection")
    mine = held[0]
    worker = mine.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pulse worker'").fetchone()[0]
    mine.execute("SELECT pg_terminate_backend(%s)", (worker,))
    pulse.produce([event() for _ in range(500)])
    wait_until(lambda: mine.execute("SELECT count(*) = 501 FROM raw.events").fetchone()[0], "501 rows")
    for connection in held:
        connection.close()
    pulse.wait_caught_up()
    pulse.check()


@pytest.mark.server(max_worker_processes=3)
@pytest.mark.extension(False)
def test_no_worker_slot_is_said(pulse):
    """Both launchers and the coordinator have them all."""
    pulse.query("CREATE EXTENSION pulse")
    pulse.wait_created()
    pulse.produce([event()])
    pulse.wait_for("SELECT state = 'starting' AND reason LIKE '%background worker%' AND "
                   "hint LIKE '%max_worker_processes%' FROM pulse.stat_pipeline", "a reason and a hint")
    pulse.cluster.configure(reload=False, max_worker_processes=4)
    pulse.cluster.restart()
    pulse.wait_caught_up()
    pulse.wait_state("running", "idle")
    assert pulse.cluster.log_text().count("no free background worker slot") == 1
    pulse.check()


@pytest.mark.server(max_worker_processes=4)
def test_too_few_worker_slots_stop_nobody(pulse):
    """One worker where three are wanted: it reads the whole topic."""
    pulse.produce([event() for _ in range(300)])
    pulse.wait_caught_up()
    mark = pulse.cluster.log_mark()
    pulse.query("""SELECT pulse.alter_pipeline('events', '{"workers": 3}')""")
    wait_until(lambda: "no free background worker slot" in pulse.cluster.log_text(mark), "a line in the log")
    for partition in range(3):
        pulse.produce([event() for _ in range(100)], partition=partition)
    pulse.wait_caught_up()
    assert pulse.count() == 600
    pulse.query("""SELECT pulse.alter_pipeline('events', '{"workers": 1}')""")
    pulse.wait_caught_up()
    assert pulse.cluster.log_text(mark).count("no free background worker slot") <= 2
    pulse.check()


# --- others in the way --------------------------------------------------------------------------

@pytest.mark.server(pulse__batch_max_rows=500, pulse__workers=2)
def test_ddl_storm(pulse, how_many):
    """Upkeep beside the stream, for minutes: every statement gets its turn soon, no batch is lost."""
    statements = ["CREATE INDEX storm ON raw.events (user_id)", "DROP INDEX raw.storm",
                  "ALTER TABLE raw.events ADD COLUMN IF NOT EXISTS storm text", "VACUUM FULL live._events_minute",
                  "ALTER TABLE raw.events ALTER COLUMN storm SET DEFAULT 'x'", "ANALYZE raw.events",
                  "REINDEX TABLE live._events_hour", "VACUUM FULL pulse.offsets",
                  "ALTER TABLE raw.events ALTER COLUMN storm DROP DEFAULT", "CLUSTER raw.dlq USING dlq_pkey",
                  "ALTER TABLE raw.events DROP CONSTRAINT IF EXISTS storm",
                  "ALTER TABLE raw.events ADD CONSTRAINT storm CHECK (user_id <> '')"]
    took = []
    with trial(pulse, seed=401, rate=1000) as run:
        for _ in range(how_many(1, 30)):
            for statement in statements:
                run.progress(at_most=400)
                began = time.monotonic()
                pulse.query(statement)
                took.append(time.monotonic() - began)
        run.resumed(time.time())
    took.sort()
    print(f"\n   {len(took)} statements, median {took[len(took) // 2]:.2f} s, longest {took[-1]:.2f} s")
    assert took[-1] < 10, "a statement starved"


@pytest.mark.server(deadlock_timeout="2s", pulse__batch_max_rows=500)
def test_deadlocks_over_counter_rows_are_retried(pulse, how_many):
    """Somebody updates hours before minutes; pulse takes minutes first. The worker looks for a deadlock once, two
    seconds after it began to wait: by then the other waits too."""
    with trial(pulse, seed=402, rate=1000) as run:
        run.progress(at_least=3000, at_most=3000)
        with pulse.connect(autocommit=False) as other:
            waits = ("SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'pulse worker' "
                     f"AND {other.info.backend_pid} = ANY (pg_blocking_pids(pid))")
            other.execute("SET deadlock_timeout = '1min'")  # so that the worker is the one that gives in
            other.commit()
            for fault in range(how_many(3, 100)):
                other.execute("UPDATE live._events_hour SET count = count")
                pulse.wait_for(waits, "the worker to wait")
                other.execute("UPDATE live._events_minute SET count = count")
                other.commit()
                # The other goes on when the worker has rolled back, a moment before that says why.
                wait_until(lambda fault=fault: pulse.cluster.log_text().count("deadlock detected") > fault, "the worker to give in")
                run.resumed(time.time())
