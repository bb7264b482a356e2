"""Many events, once through and once again: seek makes the pipeline read them anew, and nothing is
there twice. Then every way to say where to seek, and every way to say it wrong."""

import time
from datetime import datetime, timedelta, timezone

import psycopg
import pytest
from harness.load import Auditor, Load, records
from harness.pipeline import event
from harness.place import wait_until

COUNTERS = "SELECT * FROM live.events_minute ORDER BY 1, 2"


def test_all_events_arrive_once_and_stay_so_when_read_again(pulse, how_many):
    count = how_many(50_000, 1_000_000)
    auditor = Auditor(pulse)
    began = time.monotonic()
    pulse.produce_events(count, seed=11)
    pulse.wait_caught_up(600)
    took = time.monotonic() - began
    counted = auditor.read(timeout=600).check()
    assert counted == {"records": count, "rows": count, "letters": 0}
    counters, ends = pulse.query(COUNTERS), pulse.offsets()

    began = time.monotonic()
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    pulse.wait_for("SELECT sum(records) = %s FROM pulse.offsets", "everything to be read again", 600,
                   (2 * count,))
    again = time.monotonic() - began
    assert pulse.offsets() == ends
    assert pulse.value("SELECT sum(duplicates) FROM pulse.offsets") == count
    assert pulse.query(COUNTERS) == counters
    assert auditor.check(seeked=True) == counted
    assert pulse.count("pulse.gaps") == 0
    print(f"\n   {count} events: produced and stored in {took:.1f} s, read again in {again:.1f} s")


def error_of(pulse, sql):
    with pytest.raises(psycopg.Error) as caught:
        pulse.query(sql)
    return caught.value.sqlstate


def offsets_read(pulse, since):
    """(partition, offset it was moved to) of every seek after the first `since`."""
    return pulse.query("SELECT partition, old_offset, new_offset FROM pulse.offset_log WHERE reason = 'seek' "
                       "ORDER BY changed_at, partition OFFSET %s", since)


def test_seek_goes_to_each_kind_of_position(pulse):
    start = datetime.now(timezone.utc) - timedelta(hours=2)
    # Partition 0: a record a minute, from two hours ago; the others: records of now.
    for number in range(100):
        pulse.produce([event()], partition=0, timestamp=int((start + timedelta(minutes=number)).timestamp() * 1000))
    for partition in (1, 2):
        pulse.produce([event() for _ in range(100)], partition=partition)
    pulse.wait_caught_up()

    def seek_reads(arguments, expected):
        """Seeks, catches up, and compares what was read again with partition -> number of records."""
        before = dict(pulse.query("SELECT partition, records FROM pulse.offsets"))
        pulse.query(f"SELECT pulse.seek('events', {arguments})")
        wanted = {partition: before[partition] + expected.get(partition, 0) for partition in before}
        wait_until(lambda: dict(pulse.query("SELECT partition, records FROM pulse.offsets")) == wanted,
                   f"seek({arguments}) to read {expected} again")
        pulse.wait_caught_up()
        pulse.verify()

    seek_reads("'earliest'", {0: 100, 1: 100, 2: 100})
    seek_reads("'latest'", {})
    seek_reads("'40', partition => 1", {1: 60})
    seek_reads("'100'", {})
    seek_reads("'0', 2", {2: 100})
    seek_reads(f"'{(start + timedelta(minutes=70)).isoformat()}', 0", {0: 30})
    # Between two records: the later one is the first.
    seek_reads(f"'{(start + timedelta(minutes=70, seconds=30)).isoformat()}', 0", {0: 29})
    # One hour ago was between minutes 60 and 61 of the two hours.
    seek_reads("'-1 hour', 0", {0: 39})
    seek_reads("'-1 day', 0", {0: 100})
    seek_reads("'now', 0", {})
    seek_reads(f"'earliest', topic => '{pulse.topic}', partition => 0", {0: 100})
    assert pulse.count() == 300
    assert pulse.count("pulse.gaps") == 0
    assert pulse.value("SELECT count(*) FROM pulse.offset_log WHERE reason = 'seek' AND changed_by = 'postgres'") == 17


def test_seek_forward_notes_what_it_jumped_over(pulse):
    pulse.produce([event() for _ in range(10)], partition=0)
    pulse.wait_caught_up()
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce([event() for _ in range(30)], partition=0)
    pulse.query("SELECT pulse.seek('events', '25', 0)")
    assert pulse.offsets()[0] == 25
    assert pulse.state() == "paused"
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    gaps = "SELECT topic, partition, from_offset, to_offset, reason, accepted_by FROM pulse.gaps"
    assert pulse.query(gaps) == [(pulse.topic, 0, 10, 25, "seek", "postgres")]
    assert [offset for offset, in pulse.rows("kafka_offset")] == [*range(10), *range(25, 40)]
    pulse.verify()


def test_seek_is_not_undone_by_rollback(pulse):
    pulse.produce([event() for _ in range(10)], partition=0)
    pulse.wait_caught_up()
    with pulse.connect(autocommit=False) as caller:
        caller.execute("SELECT pulse.seek('events', 'earliest')")
        caller.rollback()
    pulse.wait_for("SELECT records = 20 FROM pulse.offsets WHERE partition = 0")
    assert pulse.count() == 10


def test_seek_refuses_what_is_not_there(pulse):
    pulse.produce([event() for _ in range(10)], partition=0)
    pulse.wait_caught_up()
    before = pulse.query("SELECT partition, next_offset, records FROM pulse.offsets ORDER BY 1")
    for arguments, sqlstate in (
            ("'events', '11', 0", "22023"),            # behind the end
            ("'events', '11'", "22023"),               # of one of them is enough
            ("'events', '99999999999999999999'", "22023"),
            ("'events', 'infinity'", "22023"),
            ("'events', 'yesterdayish'", "22023"),
            ("'events', ''", "22023"),
            ("'events', '-1 fortnights ago'", "22023"),
            ("'events', 'earliest', 3", "22023"),
            ("'events', 'earliest', -1", "22023"),
            ("'events', 'earliest', topic => 'other'", "22023"),
            ("'other', 'earliest'", "42704"),
            ("NULL, 'earliest'", "22004"),
            ("'events', NULL", "22004")):
        assert error_of(pulse, f"SELECT pulse.seek({arguments})") == sqlstate, arguments
    assert pulse.query("SELECT partition, next_offset, records FROM pulse.offsets ORDER BY 1") == before
    assert pulse.count("pulse.offset_log") == 3 # of the start
    pulse.produce([event() for _ in range(10)])
    pulse.wait_caught_up()
    pulse.verify()


def test_seeks_under_load_neither_lose_nor_double(pulse, how_many):
    """Back and back again while records arrive and batches are under way."""
    auditor, stream = Auditor(pulse), records(13)
    pulse.produce([next(stream)[:2] for _ in range(3000)])
    pulse.wait_caught_up()  # so that no seek below jumps over a record never read
    load = Load(pulse, seed=14, rate=1000).start()
    for seek in range(how_many(6, 60)):
        read = pulse.value("SELECT sum(records) FROM pulse.offsets")
        wait_until(lambda: pulse.value("SELECT sum(records) FROM pulse.offsets") > read + 500, "records to be read")
        position = ("earliest", "300", "-1 hour")[seek % 3]
        pulse.query("SELECT pulse.seek('events', %s)", position)
    load.stop()
    pulse.wait_caught_up(120)
    auditor.read().check(seeked=True)
    assert pulse.count("pulse.gaps") == 0
