"""Pipelines over rows, letters and counters that are there already: after drop_pipeline, DROP EXTENSION, half a restore."""

import json

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


def rest(pulse, name="events"):
    return [check for check in pulse.query("SELECT what, topic, partition, expected, found, ok FROM pulse.verify(%s)", name)
            if check[-1] is False]


@ONE_PARTITION
def test_rows_further_on_than_the_leftover_are_not_read_again(pulse):
    pulse.query(PLAIN.format(""))
    create(pulse, "plain", "public.plain")
    pulse.produce([event() for _ in range(10)])
    pulse.wait_for("SELECT count(*) = 10 FROM public.plain")
    pulse.query("SELECT pulse.drop_pipeline('plain')")
    pulse.query("UPDATE pulse._leftovers SET highest_offset = 4, fp_offset = 3 WHERE pipeline = 'plain'")
    create(pulse, "plain", "public.plain", start_position="after_rows")
    pulse.produce([event()])
    pulse.wait_for("SELECT next_offset = 11 FROM pulse.offsets WHERE pipeline = 'plain'")
    assert pulse.count("public.plain") == 11
    assert rest(pulse, "plain") == []


@ONE_PARTITION
def test_counters_of_forgotten_names_are_not_counted_beside_the_new_ones(pulse):
    pulse.produce([event() for _ in range(20)])
    pulse.wait_caught_up()
    drop_extension(pulse)
    create(pulse, "heir")
    pulse.name = "heir"
    pulse.wait_caught_up()
    for unit in ("minute", "hour", "day"):
        assert pulse.value(f"SELECT sum(count)::int FROM live.events_{unit}") == 20
    pulse.check()


@ONE_PARTITION
@pytest.mark.parametrize("goes", ["events", "second"], ids=["first", "second"])
@pytest.mark.parametrize("topics", ["same", "other"])
def test_who_writes_on_alone_accounts_for_the_rows_of_both(pulse, goes, topics):
    pulse.produce([event(event_id=f"early {number}") for number in range(7)])
    pulse.wait_caught_up()
    pulse.query("ALTER TABLE raw.events DROP CONSTRAINT events_pkey")
    pulse.query("ALTER TABLE raw.events ADD PRIMARY KEY (event_id, event_timestamp)")
    topic = pulse.topic if topics == "same" else pulse.topic + "-other"
    if topics == "other":
        pulse.broker.create_topic(topic, 1)
    pulse.query("SELECT pulse.create_pipeline('second', %s)", [topic])
    pulse.broker.produce(topic, [event() for _ in range(5)])
    pulse.produce([event() for _ in range(6)])
    pulse.wait_caught_up()
    pulse.wait_for("SELECT pulse.wait_until_caught_up('second')")
    pulse.query("SELECT pulse.drop_pipeline(%s)", goes)
    stays = "second" if goes == "events" else "events"
    assert rest(pulse, stays) == []
    assert pulse.value("SELECT sum(count)::int FROM live.events_day") == 18
    pulse.produce([event()])
    pulse.broker.produce(topic, [event()])
    assert pulse.value("SELECT pulse.wait_until_caught_up(%s)", stays)
    assert rest(pulse, stays) == []
    pulse.query("SELECT pulse.rebuild_counters(%s)", stays)
    assert rest(pulse, stays) == []


@ONE_PARTITION
def test_the_same_name_over_another_table_counts_the_rows_of_that_table(pulse):
    pulse.produce([event() for _ in range(5)])
    pulse.wait_caught_up()
    pulse.query("CREATE TABLE public.others (event_id text PRIMARY KEY, event_type text NOT NULL, event_timestamp timestamptz NOT NULL)")
    pulse.query("INSERT INTO public.others SELECT 'of before ' || n, 'buy', now() FROM generate_series(1, 3) n")
    drop_pipeline(pulse)
    create(pulse, target="public.others")
    pulse.wait_for("SELECT count(*) = 8 FROM public.others")
    assert rest(pulse) == []
    assert pulse.value("SELECT sum(count)::int FROM live.events_day") == 8


@ONE_PARTITION
@pytest.mark.parametrize("forget", [drop_pipeline, drop_extension])
def test_a_table_emptied_meanwhile_is_counted_from_nothing(pulse, forget):
    pulse.produce([event() for _ in range(5)])
    pulse.wait_caught_up()
    forget(pulse)
    pulse.query("TRUNCATE raw.events")
    create(pulse)
    pulse.wait_caught_up()
    assert pulse.count() == 5
    assert pulse.value("SELECT sum(count)::int FROM live.events_day") == 5
    assert rest(pulse) == []


@ONE_PARTITION
@pytest.mark.parametrize("forget", [drop_pipeline, drop_extension])
def test_records_passed_over_by_a_pipeline_of_before_are_not_decoded_again(pulse, forget):
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce([event(), event(user_id="crash-at-decode"), event()])
    pulse.query("SELECT pulse.skip('events', %s, 0, 1)", pulse.topic)
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert pulse.letters("kafka_offset, error_code") == [(1, "skipped")]
    forget(pulse)
    create(pulse)
    pulse.wait_caught_up()  # a crash would fail this test when it ends
    assert pulse.letters("kafka_offset, error_code, status") == [(1, "skipped", "new")]
    assert pulse.count() == 2
    pulse.verify()
