"""Pipelines over rows, letters and counters that are there already: after drop_pipeline, DROP EXTENSION, half a restore."""

import json
import uuid

import psycopg
import pytest
from harness.pipeline import event
from harness.place import wait_until

ONE_PARTITION = pytest.mark.topic(partitions=1)
PLAIN = "CREATE TABLE public.plain (event_id text {}, event_type text NOT NULL, event_timestamp timestamptz NOT NULL, kafka_topic text, " \
        "kafka_partition int, kafka_offset bigint)"


def create(pulse, name="events", target="raw.events", **settings):
    pulse.query("SELECT pulse.create_pipeline(%s, %s, %s, %s)", name, [pulse.topic], target, json.dumps(settings))


def drop_pipeline(pulse):
    pulse.query("SELECT pulse.drop_pipeline('events')")
    wait_until(lambda: not pulse.cluster.backends("pulse worker"), "the worker to go away")


def drop_extension(pulse):
    pulse.query("DROP EXTENSION pulse")
    pulse.query("CREATE EXTENSION pulse")


def make_again(pulse):
    pulse.broker.delete_topic(pulse.topic)
    pulse.broker.create_topic(pulse.topic, 1)


@pytest.mark.parametrize("forget", [drop_pipeline, drop_extension])
def test_ledger_and_counters_add_up_over_what_was_there(pulse, forget):
    pulse.produce_events(3000, bad=0.02, seed=4)
    pulse.produce([event(event_id=None), b"a letter"], partition=0)
    pulse.wait_caught_up()
    rows, letters = pulse.count(), pulse.count("raw.dlq")
    pulse.verify()
    forget(pulse)
    create(pulse)
    pulse.wait_caught_up()
    assert (pulse.count(), pulse.count("raw.dlq")) == (rows, letters)  # the same log: the same letters
    assert pulse.query("SELECT sum(rows), sum(rejects), sum(adopted_rows), sum(adopted_letters), max(topic_epoch) "
                       "FROM pulse.offsets") == [(0, 0, rows, letters, 0)]
    pulse.check(duplicates=pulse.value("SELECT sum(records) FROM pulse.offsets") - rows - letters)
    pulse.produce_events(500, bad=0.02, seed=5)
    pulse.wait_caught_up()
    assert pulse.count() > rows and pulse.count("raw.dlq") > letters
    pulse.verify()


@ONE_PARTITION
@pytest.mark.parametrize("forget", [drop_pipeline, drop_extension])
def test_letters_of_before_are_resolved_and_rows_of_before_stay_rows(pulse, forget):
    """Records read again by a pipeline that was created anew are read again all the same."""
    pulse.produce([event(user_id=None, event_id="cured"), event(event_id="grown", device="phone")])
    pulse.wait_caught_up()
    assert pulse.letters("error_code") == [("missing_field",)]
    forget(pulse)
    pulse.query("ALTER TABLE raw.events ALTER user_id DROP NOT NULL, ALTER device TYPE varchar(3) USING 'pho'")
    create(pulse, max_error_ratio=1)
    pulse.wait_caught_up()
    assert sorted(pulse.rows("event_id")) == [("cured",), ("grown",)]
    assert pulse.letters("status") == [("replayed",)]
    pulse.verify()


@ONE_PARTITION
@pytest.mark.parametrize("forget", [drop_pipeline, drop_extension])
@pytest.mark.parametrize("fresh", [1, 9], ids=["smaller", "larger"])
def test_a_recreated_topic_is_not_taken_for_the_old_one(pulse, forget, fresh):
    pulse.produce([event(event_id=None), b"old 1", event(event_id=None), b"old 3"])
    pulse.wait_caught_up()
    forget(pulse)
    make_again(pulse)
    pulse.produce([event(event_id=None) if number % 2 else b"new %d" % number for number in range(fresh)])
    create(pulse)
    pulse.wait_caught_up()
    bad = (fresh + 1) // 2
    assert pulse.value("SELECT topic_epoch FROM pulse.offsets") == 1
    assert pulse.query("SELECT topic_epoch, count(*) FROM raw.dlq GROUP BY 1 ORDER BY 1") == [(0, 2), (1, bad)]
    assert pulse.count() == 2 + fresh - bad
    assert "recreated" in pulse.value("SELECT reason FROM pulse.offset_log ORDER BY changed_at DESC LIMIT 1")
    pulse.verify()
    # And the new log is known by its epoch from now on.
    forget(pulse)
    create(pulse)
    pulse.wait_caught_up()
    assert pulse.value("SELECT topic_epoch FROM pulse.offsets") == 1
    assert pulse.count("raw.dlq") == 2 + bad and pulse.count() == 2 + fresh - bad
    pulse.verify()


@ONE_PARTITION
def test_another_name_takes_over_rows_and_counters(pulse):
    pulse.produce([event() for _ in range(20)])
    pulse.wait_caught_up()
    drop_pipeline(pulse)
    create(pulse, "heir")
    pulse.name = "heir"
    pulse.wait_caught_up()
    pulse.check()
    assert pulse.value("SELECT sum(count)::int FROM live.events_day") == 20


@ONE_PARTITION
def test_after_rows_goes_on_behind_what_is_there(pulse):
    pulse.produce([event() for _ in range(10)] + [b"bad"])
    pulse.wait_caught_up()
    for forget in (drop_pipeline, drop_extension):
        forget(pulse)
        before = pulse.count()
        pulse.produce([event()])
        create(pulse, start_position="after_rows")
        pulse.wait_caught_up()
        assert pulse.count() == before + 1
        assert pulse.query("SELECT records, rows, duplicates FROM pulse.offsets") == [(1, 1, 0)]
        pulse.verify()
    # What lies between and is gone is no reason to jump in silence.
    drop_extension(pulse)
    pulse.produce([event() for _ in range(5)])
    pulse.broker.delete_records(pulse.topic, 0, 16)
    create(pulse, start_position="after_rows")
    pulse.wait_state("offset_lost")
    assert pulse.offsets() == {0: 13}


@ONE_PARTITION
def test_rows_without_a_unique_index_are_not_read_into_again(pulse):
    pulse.query(PLAIN.format(""))
    create(pulse, "plain", "public.plain")
    pulse.produce([event() for _ in range(10)])
    pulse.wait_for("SELECT count(*) = 10 FROM public.plain")
    pulse.query("SELECT pulse.drop_pipeline('plain')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        create(pulse, "plain", "public.plain")
    assert "after_rows" in caught.value.diag.message_hint
    create(pulse, "plain", "public.plain", start_position="after_rows")
    pulse.produce([event()])
    pulse.wait_for("SELECT count(*) = 11 FROM public.plain")
    assert pulse.value("SELECT count(*) FROM pulse.verify('plain') WHERE NOT ok") == 0


@ONE_PARTITION
def test_half_a_restore_starts_nothing(pulse):
    """Rows are there, the unique index is not yet, nor are the offsets: what pg_restore looks like in the middle."""
    pulse.query(PLAIN.format("PRIMARY KEY"))
    pulse.query("INSERT INTO public.plain VALUES ('restored', 'x', now())")
    pulse.produce([event(event_id="restored"), event(event_id="new")])
    with pulse.connect(autocommit=False) as restore:
        restore.execute("SELECT pulse.create_pipeline('plain', %s, 'public.plain')", ([pulse.topic],))
        restore.execute("ALTER TABLE public.plain DROP CONSTRAINT plain_pkey")
    pulse.wait_for("SELECT state = 'failed' FROM pulse.stat_pipeline WHERE pipeline = 'plain'")
    reason, hint = pulse.query("SELECT reason, hint FROM pulse.stat_pipeline WHERE pipeline = 'plain'")[0]
    assert "no unique index" in reason and "restore" in hint
    assert pulse.count("public.plain") == 1
    pulse.query("ALTER TABLE public.plain ADD PRIMARY KEY (event_id)")
    pulse.wait_for("SELECT count(*) = 2 FROM public.plain")
