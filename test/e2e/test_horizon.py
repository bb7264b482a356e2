"""ingest_horizon(): a reader that goes from mark to mark sees every row exactly once."""

import threading
import time

import pytest
from harness.load import Load
from harness.place import wait_until


class Incremental:
    """Reads [last mark, mark) over and over, as an incremental job would, and keeps what it got."""

    def __init__(self, pulse):
        self.pulse = pulse
        self.got = []
        self.marks = []  # (mark, rows below it when it was taken)
        self._failure = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def _read(self, connection, last):
        mark, = connection.execute("SELECT pulse.ingest_horizon()").fetchone()
        self.got += connection.execute(
            "SELECT kafka_partition, kafka_offset FROM raw.events WHERE ingested_at < %(mark)s AND "
            "(%(last)s::timestamptz IS NULL OR ingested_at >= %(last)s)", {"mark": mark, "last": last}).fetchall()
        assert last is None or mark >= last, "the horizon went back"
        self.marks.append((mark, len(self.got)))
        return mark

    def _run(self):
        try:
            with self.pulse.connect() as connection:
                last = None
                while not self._stop.is_set():
                    last = self._read(connection, last)
                self._read(connection, last)
        except BaseException as failure:
            self._failure = failure

    def has(self, rows):
        if self._failure is not None:
            raise self._failure
        return len(self.got) >= rows

    def stop(self):
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure


# Slow commits, so that a reader that ran ahead of one would be caught.
SLOW = """
    CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON raw.events DEFERRABLE INITIALLY IMMEDIATE
        FOR EACH ROW WHEN (NEW.funnel_step_index = 0 AND NEW.kafka_offset % 50 = 0) EXECUTE FUNCTION public.slowly()"""


@pytest.mark.server(pulse__workers=2, pulse__batch_max_rows=200)
def test_nothing_appears_below_a_horizon_taken_before(pulse, how_many):
    pulse.wait_for("SELECT count(*) = 3 FROM pulse.offsets")
    pulse.query(SLOW)
    load = Load(pulse, seed=31, rate=800).start()
    reader = Incremental(pulse).start()
    wait_until(lambda: reader.has(how_many(3000, 100_000)), "rows below the horizon", 600)
    # A worker that is gone holds no horizon back.
    pulse.terminate_worker()
    seen = len(reader.got)
    wait_until(lambda: reader.has(seen + 500), "the horizon to move on", 30)
    load.stop()
    pulse.wait_caught_up()
    reader.stop()
    stored = pulse.query("SELECT kafka_partition, kafka_offset FROM raw.events")
    assert len(reader.marks) > 20
    assert len(reader.got) == len(set(reader.got)), "a row was read twice"
    assert sorted(reader.got) == sorted(stored), "rows appeared below a mark"
    for mark, rows in reader.marks[::max(1, len(reader.marks) // 50)]:
        assert pulse.value("SELECT count(*) FROM raw.events WHERE ingested_at < %s", mark) == rows


def test_horizon_is_now_when_nothing_is_written(pulse):
    before = time.time()
    wait_until(lambda: pulse.value("SELECT extract(epoch FROM pulse.ingest_horizon())") >= before, "the horizon")
