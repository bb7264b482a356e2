"""Stages of a pipeline: what they filter, change and write elsewhere stays exactly once, whatever is killed or
read again, and what goes wrong in one is about that record or that definition and nothing else."""

import pytest

from harness.pipeline import event
from harness.place import wait_until

TOTALS = "CREATE TABLE public.totals (event_type text PRIMARY KEY, count bigint NOT NULL)"
ADD_UP = ("INSERT INTO public.totals AS t SELECT event_type, count(*) FROM batch GROUP BY 1 "
          "ON CONFLICT (event_type) DO UPDATE SET count = t.count + EXCLUDED.count")
WRONG_TOTALS = ("SELECT event_type, t.count, e.count FROM public.totals t FULL JOIN "
                "(SELECT event_type, count(*) FROM raw.events GROUP BY 1) e USING (event_type) WHERE t.count IS DISTINCT FROM e.count")
ONE_PARTITION = pytest.mark.topic(partitions=1)


def add_stage(pulse, name, kind, body):
    """Paused, so that no worker without it takes a record that comes afterwards."""
    pulse.query("SELECT pulse.pause('events')")
    pulse.query("SELECT pulse.add_stage('events', %s, %s, %s)", name, kind, body)
    pulse.query("SELECT pulse.resume('events')")


def letters(pulse):
    return pulse.query("SELECT kafka_offset, error_code, stage, sqlstate, status FROM raw.dlq ORDER BY kafka_offset")


@pytest.mark.server(pulse__batch_max_rows=200)
def test_stages_are_exactly_once_through_kills_and_reading_again(pulse):
    pulse.query(TOTALS)
    add_stage(pulse, "no bots", "filter", "SELECT FROM batch WHERE user_id NOT LIKE 'bot%'")
    add_stage(pulse, "upper", "transform", "SELECT *, upper(event_type) AS event_type, kafka_offset / 2 AS kafka_offset FROM batch")
    add_stage(pulse, "totals", "sink", ADD_UP)
    kinds = ("page_view", "add_to_cart", "checkout")
    records = [event(event_id=str(n), event_type=kinds[n % 3], user_id=f"{'bot' if n % 10 == 0 else 'user'}{n}") for n in range(6000)]
    for part in range(6):
        pulse.arm("after_half_insert" if part % 2 else "before_commit", "kill")
        pulse.produce(records[part * 1000:(part + 1) * 1000])
        pulse.wait_fault()
        pulse.disarm()
        pulse.wait_caught_up()
    pulse.check(filtered=600)
    assert pulse.count() == 5400
    assert pulse.query("SELECT DISTINCT event_type FROM raw.events ORDER BY 1") == [(kind.upper(),) for kind in sorted(kinds)]
    assert pulse.query(WRONG_TOTALS) == []

    pulse.query("SELECT pulse.seek('events', 'earliest')")
    assert pulse.value("SELECT pulse.wait_until_caught_up('events', '2 min')")
    assert pulse.count() == 5400
    assert pulse.query(WRONG_TOTALS) == []
    pulse.verify()


@ONE_PARTITION
def test_a_record_that_a_stage_refuses_is_a_letter_and_comes_back(pulse):
    pulse.query(TOTALS)
    add_stage(pulse, "divide", "transform", "SELECT *, (100 / funnel_step_index)::int2 AS funnel_step_index FROM batch")
    add_stage(pulse, "totals", "sink", ADD_UP)
    pulse.produce([event(funnel_step_index=n % 50) for n in range(500)])
    pulse.wait_caught_up()
    assert letters(pulse) == [(n, "stage_error", "divide", "22012", "new") for n in range(0, 500, 50)]
    assert pulse.value("SELECT error_message FROM raw.dlq LIMIT 1") == 'stage "divide": division by zero'
    assert pulse.count() == 490
    pulse.check()

    pulse.query("SELECT pulse.drop_stage('events', 'divide')")
    assert pulse.query("CALL pulse.dlq_replay()") == [(10, 0, 0)]
    assert pulse.count() == 500
    assert pulse.query(WRONG_TOTALS) == []
    pulse.verify()


@ONE_PARTITION
def test_killed_while_looking_for_the_record_that_a_sink_refuses(pulse):
    pulse.query("CREATE TABLE public.prices (event_id text PRIMARY KEY, step int CHECK (step <> 3))")
    add_stage(pulse, "prices", "sink", "INSERT INTO public.prices SELECT event_id, funnel_step_index FROM batch")
    records = [event(event_id=str(n), funnel_step_index=3 if n % 100 == 7 else 0) for n in range(400)]
    pulse.arm("after_half_insert", "kill", passes=7)
    pulse.produce(records)
    pulse.wait_fault()
    pulse.disarm()
    pulse.wait_caught_up()
    assert letters(pulse) == [(n, "stage_error", "prices", "23514", "new") for n in range(7, 400, 100)]
    assert pulse.count() == pulse.count("public.prices") == 396
    pulse.check()


@ONE_PARTITION
def test_a_table_of_a_stage_that_is_gone_fails_the_pipeline_until_it_is_back(pulse):
    pulse.query("CREATE TABLE public.seen (event_id text)")
    add_stage(pulse, "seen", "sink", "INSERT INTO public.seen SELECT event_id FROM batch")
    pulse.query("ALTER TABLE public.seen RENAME TO hidden")
    pulse.produce([event() for _ in range(10)])
    pulse.wait_state("failed")
    assert pulse.reason().startswith('42P01 stage "seen": ') and "public.seen" in pulse.reason()
    assert pulse.count() == 0 and letters(pulse) == []
    pulse.query("ALTER TABLE public.hidden RENAME TO seen")
    pulse.wait_caught_up()
    assert pulse.count("public.seen") == pulse.count() == 10
    pulse.check()


@ONE_PARTITION
def test_a_stage_has_the_rights_of_who_writes_the_target(pulse):
    pulse.query("CREATE ROLE pulse_writer; GRANT USAGE ON SCHEMA raw TO pulse_writer; GRANT ALL ON raw.events TO pulse_writer; "
                "CREATE TABLE public.secret (event_id text)")
    add_stage(pulse, "leak", "sink", "INSERT INTO public.secret SELECT event_id FROM batch")
    pulse.query("SELECT pulse.pause('events')")
    pulse.query("""SELECT pulse.alter_pipeline('events', '{"role": "pulse_writer"}')""")
    pulse.query("SELECT pulse.resume('events')")
    pulse.produce([event()])
    pulse.wait_state("failed")
    assert pulse.reason() == '42501 stage "leak": permission denied for table secret'
    assert pulse.count("public.secret") == pulse.count() == 0
    pulse.query("GRANT INSERT ON public.secret TO pulse_writer")
    pulse.wait_caught_up()
    assert pulse.count("public.secret") == pulse.count() == 1


@ONE_PARTITION
def test_a_lock_held_on_the_table_of_a_stage_is_waited_for(pulse):
    pulse.query("CREATE TABLE public.seen (event_id text)")
    add_stage(pulse, "seen", "sink", "INSERT INTO public.seen SELECT event_id FROM batch")
    with pulse.connect(autocommit=False) as session:
        session.execute("LOCK public.seen")
        pulse.produce([event() for _ in range(10)])
        wait_until(lambda: pulse.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'public.seen'::regclass"),
                   "the worker to wait for the lock")
        session.rollback()
    pulse.wait_caught_up()
    assert letters(pulse) == []
    assert pulse.count("public.seen") == pulse.count() == 10
    pulse.check()


@ONE_PARTITION
def test_a_column_more_in_a_table_that_a_stage_joins_moves_no_values(pulse):
    pulse.query("CREATE TABLE public.pages (page_url text, referrer text); INSERT INTO public.pages VALUES ('/a', 'joined')")
    add_stage(pulse, "pages", "enrich", "SELECT batch.*, p.*, upper(batch.event_type) AS event_type, lower(batch.user_id) AS user_id "
                                        "FROM batch LEFT JOIN public.pages p ON p.page_url = batch.page_url")
    pulse.produce([event(event_type="view", user_id="ANN", page_url="/a") for _ in range(10)])
    pulse.wait_caught_up()
    pulse.query("ALTER TABLE public.pages ADD device text DEFAULT 'added'")
    pulse.produce([event(event_type="view", user_id="ANN", page_url="/a") for _ in range(10)])
    pulse.wait_caught_up()
    assert pulse.query("SELECT event_type, user_id, page_url, referrer, device, count(*) FROM raw.events GROUP BY 1, 2, 3, 4, 5 ORDER BY 5 NULLS FIRST") == [
        ("VIEW", "ann", "/a", "joined", None, 10), ("VIEW", "ann", "/a", "joined", "added", 10)]
    pulse.check()
