"""What PostgreSQL refuses: a row that is at fault becomes a dead letter with its SQLSTATE and its
neighbours stay; a table, lock or privilege that is at fault sends nothing to the dead letters."""

import random
import threading
from datetime import datetime, timezone

import psycopg
import pytest

from harness.events import stream
from harness.pipeline import event
from harness.place import wait_until

ONE_PARTITION = pytest.mark.topic(partitions=1)


def bad_events(count, bad, **fields):
    """That many events; those whose number is in bad carry the fields."""
    return [event(event_id=f"e-{number:06d}", **(fields if number in bad else {}))
            for number in range(count)]


def refused(pulse):
    return pulse.query("SELECT error_class, error_code, sqlstate, stage, count(*) FROM raw.dlq "
                       "GROUP BY 1, 2, 3, 4 ORDER BY 3")


def check_isolated(pulse, count, bad, sqlstate):
    """Exactly the bad ones are letters with this state, every other is a row."""
    pulse.wait_caught_up()
    letters = pulse.letters("kafka_offset, error_class, error_code, sqlstate")
    assert letters == [(number, "data", "sql_error", sqlstate) for number in sorted(bad)]
    assert pulse.count() == count - len(bad)
    pulse.check()


# --- the row is at fault -----------------------------------------------------------------------

def test_check_constraint_isolates_three_rows(pulse, how_many):
    count = how_many(20_000, 100_000)
    pulse.query("ALTER TABLE raw.events ADD CONSTRAINT not_him CHECK (user_id <> 'bad user')")
    events = [value for _, value in stream(count)]
    for number in (7, count // 2, count - 1):
        events[number] = event(user_id="bad user")
    pulse.produce(events)
    pulse.wait_caught_up()
    assert refused(pulse) == [("data", "sql_error", "23514", "insert", 3)]
    assert all("not_him" in message for message, in pulse.letters("error_message"))
    assert {value for value, in pulse.letters("value")} == \
        {events[number] for number in (7, count // 2, count - 1)}
    assert pulse.count() == count - 3
    pulse.check()


@ONE_PARTITION
def test_what_a_trigger_writes_elsewhere_is_judged_with_its_row(pulse):
    """A constraint of another table that waits for the commit, and a partition missing there."""
    with pulse.connect() as connection:
        connection.execute(
            "CREATE TABLE public.known (user_id text PRIMARY KEY);"
            "INSERT INTO public.known VALUES ('good user'), ('far user'), ('dear user');"
            "CREATE TABLE public.audit (user_id text REFERENCES public.known DEFERRABLE INITIALLY DEFERRED, part int) "
            "PARTITION BY LIST (part);"
            "CREATE TABLE public.audit_1 PARTITION OF public.audit FOR VALUES IN (1);"
            "CREATE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO public.audit VALUES (NEW.user_id, CASE NEW.user_id WHEN 'far user' THEN 2 ELSE 1 END);"
            "IF NEW.user_id = 'dear user' THEN RAISE EXCEPTION 'too dear' USING ERRCODE = 'check_violation'; END IF;"
            "RETURN NULL; END $$;"
            "CREATE TRIGGER audit AFTER INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION public.audit()")
    users = ["good user"] * 30
    users[5], users[11], users[17] = "bad user", "far user", "dear user"
    pulse.produce([event(user_id=user) for user in users])
    pulse.wait_caught_up()
    assert pulse.letters("kafka_offset, sqlstate") == [(5, "23503"), (11, "23514"), (17, "23514")]
    assert pulse.count() == 27 and pulse.count("public.audit") == 27
    pulse.check()


@ONE_PARTITION
def test_a_hole_in_partitions_of_partitions_is_the_rows_fault(pulse):
    """pulse makes the partitions of the target; what is below them is the user's."""
    with pulse.connect() as connection:
        connection.execute(
            "CREATE TABLE public.deep (event_id text NOT NULL, event_timestamp timestamptz NOT NULL, user_id text NOT NULL, "
            "UNIQUE (event_id, event_timestamp, user_id)) PARTITION BY RANGE (event_timestamp);"
            "CREATE TABLE public.deep_all PARTITION OF public.deep FOR VALUES FROM ('2020-01-01') TO ('2100-01-01') "
            "PARTITION BY LIST (user_id);"
            "CREATE TABLE public.deep_good PARTITION OF public.deep_all FOR VALUES IN ('good user')")
    pulse.query("SELECT pulse.create_pipeline('deep', %s, 'public.deep')", [pulse.topic])
    pulse.produce([event(user_id="bad user" if number == 7 else "good user") for number in range(20)])
    pulse.wait_for("SELECT next_offset = 20 FROM pulse.offsets WHERE pipeline = 'deep'", "all to be read")
    assert pulse.count("public.deep") == 19
    assert pulse.query("SELECT kafka_offset, sqlstate FROM raw.dlq WHERE pipeline = 'deep'") == [(7, "23514")]


@ONE_PARTITION
@pytest.mark.server(pulse__batch_max_rows=100)
def test_bad_rows_at_the_edges_of_batches(pulse):
    bad = {0, 1, 99, 100, 101, 199, 200, 398, 399}
    pulse.query("ALTER TABLE raw.events ADD CHECK (user_id <> 'bad user')")
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(bad_events(400, bad, user_id="bad user"))
    pulse.query("SELECT pulse.resume('events')")
    check_isolated(pulse, 400, bad, "23514")


@ONE_PARTITION
def test_sixty_bad_rows_in_five_thousand(pulse):
    bad = set(range(17, 5000, 83))
    assert len(bad) > 59
    pulse.query("ALTER TABLE raw.events ADD CHECK (user_id <> 'bad user')")
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(bad_events(5000, bad, user_id="bad user"))
    pulse.query("SELECT pulse.resume('events')")
    check_isolated(pulse, 5000, bad, "23514")


@ONE_PARTITION
def test_a_batch_of_nothing_but_bad_rows(pulse):
    """Fewer than the breaker wants to see: all of them are letters."""
    pulse.query("ALTER TABLE raw.events ADD CHECK (user_id <> 'bad user')")
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(bad_events(300, range(300), user_id="bad user"))
    pulse.query("SELECT pulse.resume('events')")
    check_isolated(pulse, 300, range(300), "23514")


@ONE_PARTITION
def test_trigger_that_raises(pulse):
    pulse.query("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF NEW.user_id = 'bad user' THEN RAISE EXCEPTION 'we know him'; END IF; "
                "RETURN NEW; END $$")
    pulse.query("CREATE TRIGGER refuse BEFORE INSERT ON raw.events FOR EACH ROW "
                "EXECUTE FUNCTION public.refuse()")
    pulse.produce(bad_events(1000, {5, 6, 500}, user_id="bad user"))
    check_isolated(pulse, 1000, {5, 6, 500}, "P0001")
    assert {message for message, in pulse.letters("error_message")} == {"we know him"}


@ONE_PARTITION
def test_after_trigger_that_raises_is_isolated(pulse):
    """Raised behind the row, so that no marker tells whose fault it is."""
    pulse.query("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF NEW.user_id = 'bad user' THEN RAISE EXCEPTION 'we know him' USING ERRCODE = '22023';"
                " END IF; RETURN NULL; END $$")
    pulse.query("CREATE TRIGGER refuse AFTER INSERT ON raw.events FOR EACH ROW "
                "EXECUTE FUNCTION public.refuse()")
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(bad_events(2000, {0, 700, 701, 1999}, user_id="bad user"))
    pulse.query("SELECT pulse.resume('events')")
    check_isolated(pulse, 2000, {0, 700, 701, 1999}, "22023")


@ONE_PARTITION
def test_another_unique_index(pulse):
    """Duplicates are judged by the primary key; another key violated is an error of the row."""
    pulse.query("CREATE UNIQUE INDEX ON raw.events (page_url, event_timestamp)")
    when = datetime.now(timezone.utc).isoformat()
    same = {"page_url": "/same", "event_timestamp": when}
    events = bad_events(500, {3, 4, 499}, **same)
    events.insert(250, events[10])  # the same event again is no error
    pulse.produce(events)
    pulse.wait_caught_up()
    assert pulse.letters("kafka_offset, sqlstate") == [(4, "23505"), (500, "23505")]
    assert pulse.count() == 498
    pulse.check(duplicates=1)


@ONE_PARTITION
def test_value_too_long_for_an_index(pulse):
    """54000 would come again and again: it is a property of the row. The primary key is measured
    before, another index tells by its error."""
    pulse.query("CREATE INDEX ON raw.events (referrer)")
    letters = random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000)
    pulse.produce([event(), event(event_id="i" * 6000), event(referrer="".join(letters)), event()])
    pulse.wait_caught_up()
    assert pulse.letters("kafka_offset, error_class, error_code, sqlstate") == [
        (1, "schema", "too_long", None), (2, "data", "sql_error", "54000")]
    assert pulse.count() == 2
    pulse.check()


@ONE_PARTITION
@pytest.mark.parametrize("kind", ["", "DEFERRABLE INITIALLY DEFERRED"], ids=["immediate", "deferred"])
def test_foreign_key(pulse, kind):
    pulse.query("CREATE TABLE public.users (user_id text PRIMARY KEY)")
    pulse.query("INSERT INTO public.users VALUES ('user-1')")
    pulse.query(f"ALTER TABLE raw.events ADD FOREIGN KEY (user_id) REFERENCES public.users {kind}")
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(bad_events(1500, {2, 3, 1400}, user_id="stranger"))
    pulse.query("SELECT pulse.resume('events')")
    check_isolated(pulse, 1500, {2, 3, 1400}, "23503")


@ONE_PARTITION
def test_too_many_bad_rows_for_bisection_at_once(pulse):
    """Each foreign key violation takes a dozen attempts: the batch ends where they are used up,
    commits what is settled and goes on."""
    bad = set(range(0, 1200, 50))
    pulse.query("CREATE TABLE public.users (user_id text PRIMARY KEY)")
    pulse.query("INSERT INTO public.users VALUES ('user-1')")
    pulse.query("ALTER TABLE raw.events ADD FOREIGN KEY (user_id) REFERENCES public.users")
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(bad_events(1200, bad, user_id="stranger"))
    pulse.query("SELECT pulse.resume('events')")
    check_isolated(pulse, 1200, bad, "23503")


@pytest.mark.server(pulse__counters="minute,hour,day,user_day")
def test_counters_hold_what_a_trigger_made_of_the_events(pulse):
    pulse.query("CREATE FUNCTION public.rename() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF NEW.user_id = 'user-2' THEN NEW.event_type := 'renamed'; NEW.user_id := 'nobody'; "
                "END IF; IF NEW.user_id = 'user-3' THEN RETURN NULL; END IF; RETURN NEW; END $$")
    pulse.query("CREATE TRIGGER rename BEFORE INSERT ON raw.events FOR EACH ROW "
                "EXECUTE FUNCTION public.rename()")
    pulse.produce([event(user_id=f"user-{number % 4}") for number in range(400)])
    pulse.wait_caught_up()
    assert pulse.query("SELECT event_type, sum(count)::int FROM live.events_minute GROUP BY 1 ORDER BY 1") \
        == [("page_view", 200), ("renamed", 100)]
    assert pulse.query("SELECT user_id, event_type, sum(count)::int FROM live.user_day GROUP BY 1, 2 "
                       "ORDER BY 1") == [("nobody", "renamed", 100), ("user-0", "page_view", 100),
                                         ("user-1", "page_view", 100)]
    pulse.check(filtered=100)


KEEP_OUT = ("CREATE FUNCTION public.keep_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF NEW.user_id LIKE 'bot-%%' THEN RETURN NULL; END IF; RETURN NEW; END $$")


@ONE_PARTITION
def test_what_a_trigger_leaves_out_is_filtered_and_no_duplicate(pulse):
    """Both in one batch and in batches of their own: through the plain INSERT and through ON CONFLICT."""
    pulse.query(KEEP_OUT.replace("%%", "%"))
    pulse.query("CREATE TRIGGER keep_out BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION public.keep_out()")

    def ledger():
        return pulse.query("SELECT records, rows, duplicates, rejects, filtered FROM pulse.offsets")[0]

    when = datetime.now(timezone.utc).isoformat()
    events = [event(event_id=f"e-{n}", user_id=f"bot-{n}" if n % 3 == 0 else f"user-{n}", event_timestamp=when)
              for n in range(300)]
    pulse.produce(events)
    pulse.wait_caught_up()
    assert ledger() == (300, 200, 0, 0, 100)
    pulse.wait_for("SELECT sum(filtered) = 100 FROM pulse.batch_log")
    pulse.produce(events + [b"{"] + events[:10])  # all again: duplicates are known by their key
    pulse.wait_caught_up()
    assert ledger() == (611, 200, 206, 1, 204)
    pulse.check(duplicates=206, filtered=204)
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    pulse.wait_for("SELECT records = 1222 FROM pulse.offsets")
    assert ledger() == (1222, 200, 613, 1, 408)
    pulse.check(duplicates=206, filtered=204)



# --- the table changes -------------------------------------------------------------------------

@ONE_PARTITION
def test_default_generated_and_identity_columns(pulse):
    pulse.query("SELECT pulse.pause('events')")
    pulse.query("ALTER TABLE raw.events ADD channel text NOT NULL DEFAULT 'web', "
                "ADD upper_type text GENERATED ALWAYS AS (upper(event_type)) STORED, "
                "ADD length int GENERATED ALWAYS AS (length(user_id)) STORED, "
                "ADD seen timestamptz DEFAULT now()")
    pulse.query("SELECT pulse.resume('events')")
    pulse.produce([event(event_id="1"), event(event_id="2", channel="app"),
                   event(event_id="3", upper_type="mine")])
    pulse.wait_caught_up()
    assert pulse.rows("event_id, channel, upper_type, length, seen IS NOT NULL, properties") == [
        ("1", "web", "PAGE_VIEW", 6, True, {}), ("2", "app", "PAGE_VIEW", 6, True, {}),
        ("3", "web", "PAGE_VIEW", 6, True, {"upper_type": "mine"})]
    pulse.check()


@ONE_PARTITION
def test_identity_column_of_a_plain_target(pulse):
    pulse.query("CREATE TABLE public.plain (id bigint GENERATED ALWAYS AS IDENTITY, event_id text "
                "PRIMARY KEY, user_id text NOT NULL, score int DEFAULT 7)")
    pulse.query("SELECT pulse.create_pipeline('plain', %s, 'public.plain')", [pulse.topic])
    pulse.produce([event(event_id="1", id=99), event(event_id="2", score=1)])
    pulse.wait_for("SELECT count(*) = 2 FROM public.plain")
    assert pulse.query("SELECT id, event_id, score FROM public.plain ORDER BY 1") == \
        [(1, "1", 7), (2, "2", 1)]


@ONE_PARTITION
def test_column_added_while_running_is_filled_from_then_on(pulse):
    pulse.produce([event(event_id=f"before-{number}", campaign="spring") for number in range(50)])
    pulse.wait_caught_up()
    pulse.query("ALTER TABLE raw.events ADD COLUMN campaign text")
    pulse.produce([event(event_id=f"after-{number}", campaign="summer") for number in range(50)])
    pulse.wait_caught_up()
    assert pulse.query("SELECT left(event_id, 5), campaign, properties, count(*) FROM raw.events "
                       "GROUP BY 1, 2, 3 ORDER BY 1") == [
        ("after", "summer", {}, 50), ("befor", None, {"campaign": "spring"}, 50)]
    wait_until(lambda: "campaign" in pulse.value("SELECT columns FROM pulse.pipelines"),
               "the column to be taken in")
    pulse.check()


@ONE_PARTITION
@pytest.mark.parametrize("accept", [False, True], ids=["back", "accepted"])
def test_dropped_column_fails_the_pipeline_without_a_letter(pulse, accept):
    pulse.produce([event(event_id="1", device="phone")])
    pulse.wait_caught_up()
    pulse.query("ALTER TABLE raw.events DROP COLUMN device")
    pulse.produce([event(event_id="2", device="phone")])
    pulse.wait_state("failed")
    reason, hint = pulse.query("SELECT reason, hint FROM pulse.stat_pipeline")[0]
    assert "42703" in reason and "device" in reason
    assert "alter_pipeline" in hint
    assert pulse.offsets() == {0: 1} and pulse.letters() == [] and pulse.count() == 1
    if accept:
        pulse.query("SELECT pulse.alter_pipeline('events', '{}')")
    else:
        pulse.query("ALTER TABLE raw.events ADD COLUMN device text")
    pulse.wait_caught_up()
    pulse.wait_state("running", "idle")
    assert pulse.reason() is None
    if accept:
        assert pulse.rows("event_id, properties") == [("1", {}), ("2", {"device": "phone"})]
    else:
        assert pulse.rows("event_id, device") == [("1", None), ("2", "phone")]
    pulse.check()


@ONE_PARTITION
def test_column_dropped_under_load(pulse):
    sender = pulse.start_producing(30_000)
    pulse.wait_for("SELECT count(*) > 2000 FROM raw.events")
    pulse.query("ALTER TABLE raw.events DROP COLUMN referrer")
    pulse.wait_state("failed")
    assert pulse.letters() == []
    pulse.query("ALTER TABLE raw.events ADD COLUMN referrer text")
    assert sender.wait() == 0
    pulse.wait_caught_up()
    assert pulse.letters() == [] and pulse.count() == 30_000
    pulse.check()


@ONE_PARTITION
def test_column_of_another_type(pulse):
    """Decoded for the old type and not yet written: decoded again, no letter in between."""
    pulse.produce([event(event_id="1", page_url="1")])
    pulse.wait_caught_up()
    pulse.query("ALTER TABLE raw.events ALTER COLUMN page_url TYPE int USING page_url::int")
    pulse.produce([event(event_id="2", page_url=2), event(event_id="3", page_url="3")])
    pulse.wait_caught_up()
    assert pulse.rows("event_id, page_url") == [("1", 1), ("2", 2)]
    assert pulse.letters("error_code, error_path") == [("type", "/page_url")]
    pulse.check()


@ONE_PARTITION
@pytest.mark.parametrize("gone, back", [
    ("ALTER TABLE raw.events RENAME TO other", "ALTER TABLE raw.other RENAME TO events"),
    ("ALTER TABLE raw.dlq RENAME TO other", "ALTER TABLE raw.other RENAME TO dlq"),
    ("ALTER TABLE live._events_hour RENAME TO other", "ALTER TABLE live.other RENAME TO _events_hour"),
    ("ALTER SCHEMA raw RENAME TO elsewhere", "ALTER SCHEMA elsewhere RENAME TO raw"),
], ids=["target", "dead letters", "counter", "schema"])
def test_renamed_table_fails_the_pipeline(pulse, gone, back):
    pulse.produce([event()])
    pulse.wait_caught_up()
    pulse.query(gone)
    pulse.produce([event(), b"{"])
    pulse.wait_state("failed")
    assert "42P01" in pulse.reason() or "3F000" in pulse.reason()
    assert pulse.offsets() == {0: 1}
    pulse.query(back)
    pulse.wait_caught_up()
    assert pulse.count() == 2 and pulse.letters("error_code") == [("syntax",)]
    pulse.check()


@ONE_PARTITION
def test_dropped_table_fails_the_pipeline(pulse):
    pulse.query("CREATE TABLE public.plain (event_id text PRIMARY KEY, user_id text)")
    pulse.query("SELECT pulse.create_pipeline('plain', %s, 'public.plain')", [pulse.topic])
    pulse.produce([event(event_id="1")])
    pulse.wait_for("SELECT count(*) = 1 FROM public.plain")
    pulse.query("DROP TABLE public.plain")
    pulse.produce([event(event_id="2")])
    state = "SELECT state = 'failed' AND reason LIKE '%42P01%' FROM pulse.stat_pipeline WHERE pipeline = 'plain'"
    pulse.wait_for(state.replace("%", "%%"))
    pulse.wait_caught_up()  # the other pipeline of the topic goes on
    pulse.query("CREATE TABLE public.plain (event_id text PRIMARY KEY, user_id text)")
    pulse.wait_for("SELECT count(*) = 1 FROM public.plain")
    assert pulse.count("raw.dlq") == 0


# --- rights ------------------------------------------------------------------------------------

@ONE_PARTITION
def test_missing_privilege_of_the_owner_fails_the_pipeline(pulse):
    pulse.query("CREATE ROLE writer NOLOGIN")
    pulse.query("GRANT USAGE ON SCHEMA raw TO writer")
    pulse.query("GRANT INSERT, SELECT ON raw.events TO writer")
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"role\": \"writer\"}')")
    pulse.produce([event(event_id="1")])
    pulse.wait_caught_up()
    pulse.query("REVOKE INSERT ON raw.events FROM writer")
    pulse.produce([event(event_id="2")])
    pulse.wait_state("failed")
    assert "42501" in pulse.reason() and pulse.offsets() == {0: 1}
    pulse.query("GRANT INSERT ON raw.events TO writer")
    pulse.wait_caught_up()
    assert pulse.rows("event_id") == [("1",), ("2",)] and pulse.letters() == []
    pulse.check()


@ONE_PARTITION
def test_rows_are_written_as_the_owner_of_the_pipeline(pulse):
    """Triggers run with the rights of the pipeline's owner, never with those of the worker."""
    pulse.query("CREATE ROLE app NOLOGIN")
    for grant in ("CREATE, USAGE ON SCHEMA public", "SELECT, INSERT, UPDATE, DELETE ON pulse.pipelines, pulse.offsets, pulse.offset_log",
                  "EXECUTE ON ALL FUNCTIONS IN SCHEMA pulse"):
        pulse.query(f"GRANT {grant} TO app")
    with pulse.connect() as connection:
        connection.execute("SET ROLE app")
        connection.execute("CREATE TABLE public.mine (event_id text PRIMARY KEY, who text, superuser text)")
        connection.execute("CREATE FUNCTION public.who() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                           "NEW.who := current_user; NEW.superuser := has_table_privilege('pg_authid', 'SELECT'); "
                           "RETURN NEW; END $$")
        connection.execute("CREATE TRIGGER who BEFORE INSERT ON public.mine FOR EACH ROW "
                           "EXECUTE FUNCTION public.who()")
        connection.execute("SELECT pulse.create_pipeline('mine', %s, 'public.mine')", ([pulse.topic],))
    pulse.produce([event(event_id="1")])
    pulse.wait_for("SELECT count(*) = 1 FROM public.mine")
    assert pulse.query("SELECT who, superuser FROM public.mine") == [("app", "false")]
    assert pulse.value("SELECT owner FROM pulse.pipelines WHERE name = 'mine'") == "app"


def test_a_pipeline_gives_nobody_rights_he_has_not(pulse):
    pulse.query("CREATE ROLE app NOLOGIN")
    for grant in ("CREATE, USAGE ON SCHEMA public", "SELECT, INSERT, UPDATE, DELETE ON pulse.pipelines, pulse.offsets, pulse.offset_log",
                  "EXECUTE ON ALL FUNCTIONS IN SCHEMA pulse"):
        pulse.query(f"GRANT {grant} TO app")
    with pulse.connect() as connection:
        connection.execute("SET ROLE app")
        connection.execute("CREATE TABLE public.mine (event_id text PRIMARY KEY)")
        for settings in ('{"role": "postgres"}', '{"kafka_options": "socket.timeout.ms=1000"}',
                         '{"secrets_file": "/etc/passwd"}'):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT pulse.create_pipeline('mine', %s, 'public.mine', %s)",
                                   ([pulse.topic], settings))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT pulse.alter_pipeline('events', %s)", (settings,))


# --- locks, deadlocks, time --------------------------------------------------------------------

@ONE_PARTITION
def test_lock_longer_than_the_timeout_sends_nothing_to_the_letters(pulse):
    pulse.produce([event()])
    pulse.wait_caught_up()
    with pulse.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE raw.events IN ACCESS EXCLUSIVE MODE")
        pulse.produce([event() for _ in range(100)])
        pulse.wait_state("retrying", timeout=30)
        assert "55P03" in pulse.reason()
        retry = pulse.value("SELECT next_retry_at FROM pulse.stat_pipeline")
        assert retry is not None
        assert pulse.value("SELECT count(*) FROM raw.dlq") == 0 and pulse.offsets() == {0: 1}
    pulse.wait_caught_up()
    assert pulse.letters() == [] and pulse.count() == 101
    pulse.wait_state("running", "idle")
    pulse.check()


@ONE_PARTITION
def test_deadlock_is_retried(pulse):
    pulse.produce([event()])
    pulse.wait_caught_up()
    with pulse.connect(autocommit=False) as other:
        other.execute("SET deadlock_timeout = '1min'")  # so that the worker finds it
        other.execute("LOCK TABLE live._events_minute IN SHARE MODE")
        pulse.produce([event() for _ in range(10)])
        pulse.wait_for("SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity USING (pid) WHERE "
                       "backend_type = 'pulse worker' AND NOT granted)", "the worker to wait")
        other.execute("UPDATE pulse.offsets SET updated_at = updated_at")  # waits until it gave in
        wait_until(lambda: "40P01" in pulse.cluster.log_text(), "the worker to tell")  # after it gave in
        other.rollback()
    pulse.wait_caught_up()
    assert pulse.letters() == [] and pulse.count() == 11
    pulse.check()


@ONE_PARTITION
@pytest.mark.server(pulse__batch_timeout="500ms")
def test_a_batch_that_takes_too_long_is_halved(pulse):
    pulse.query("CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "PERFORM pg_sleep(0.01); RETURN NEW; END $$")
    pulse.query("CREATE TRIGGER slow BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION public.slow()")
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(bad_events(120, ()))
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert "57014" in pulse.cluster.log_text()
    assert pulse.letters() == [] and pulse.count() == 120
    pulse.check()


@ONE_PARTITION
@pytest.mark.server(pulse__batch_timeout="200ms")
def test_one_record_that_takes_too_long_is_retried_and_named(pulse):
    pulse.query("CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF NEW.user_id = 'bad user' THEN PERFORM pg_sleep(100); END IF; RETURN NEW; END $$")
    pulse.query("CREATE TRIGGER slow BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION public.slow()")
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(bad_events(20, {13}, user_id="bad user"))
    pulse.query("SELECT pulse.resume('events')")
    wait_until(lambda: pulse.offsets() == {0: 13}, "what precedes it to be written", 60)
    wait_until(lambda: pulse.state() == "retrying" and "offset 13" in pulse.reason(),
               "the record to be named", 60)
    assert pulse.letters() == [] and pulse.count() == 13
    pulse.query("DROP TRIGGER slow ON raw.events")
    pulse.wait_caught_up()
    assert pulse.letters() == [] and pulse.count() == 20
    pulse.check()


SHORT_OF_MEMORY = """
    CREATE FUNCTION public.hungry() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE n int := coalesce(nullif(current_setting('test.rows', true), ''), '0')::int + 1;
    BEGIN
        IF n > {limit} THEN RAISE 'out of memory' USING ERRCODE = '53200'; END IF;
        PERFORM set_config('test.rows', n::text, true);
        RETURN NEW;
    END $$;
    CREATE TRIGGER hungry BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION public.hungry()"""


@ONE_PARTITION
@pytest.mark.parametrize("limit", [1, 7])
def test_a_batch_that_takes_too_much_memory_is_halved_and_full_again_later(pulse, limit):
    """So many rows of a transaction fit. Halving is no reason to wait; the next batches are of full
    size when there is memory again."""
    def batches(where="true"):
        return [rows for rows, in pulse.query(f"SELECT count(*) FROM raw.events WHERE {where} GROUP BY ingested_at "
                                              "ORDER BY ingested_at")]

    pulse.query(SHORT_OF_MEMORY.format(limit=limit))
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(bad_events(4000, ()))
    pulse.query("SELECT pulse.resume('events')")
    # Twelve halvings at least. Back-off would take more than thirty seconds for them.
    wait_until(lambda: pulse.count() >= 5, "the first rows", 20)
    assert all(rows <= limit for rows in batches())
    assert pulse.letters() == []
    assert pulse.value("SELECT count(*) FROM raw.events WHERE kafka_offset >= "
                       "(SELECT next_offset FROM pulse.offsets)") == 0
    pulse.query("DROP TRIGGER hungry ON raw.events")
    pulse.wait_caught_up()
    assert "53200" in pulse.cluster.log_text()
    assert pulse.letters() == [] and pulse.count() == 4000
    assert max(batches()) > 1000  # doubled by each batch
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce([event(event_id=f"later-{number}") for number in range(4000)])
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    assert max(batches("event_id LIKE 'later-%'")) > 1000
    pulse.check()


@ONE_PARTITION
def test_one_record_that_takes_too_much_memory_is_retried_and_named(pulse):
    pulse.query("CREATE FUNCTION public.hungry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF NEW.user_id = 'bad user' THEN RAISE 'out of memory' USING ERRCODE = '53200'; END IF; "
                "RETURN NEW; END $$")
    pulse.query("CREATE TRIGGER hungry BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION public.hungry()")
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(bad_events(20, {13}, user_id="bad user"))
    pulse.query("SELECT pulse.resume('events')")
    wait_until(lambda: pulse.state() == "retrying" and "offset 13" in pulse.reason() and "53200" in pulse.reason(),
               "the record to be named", 60)
    assert pulse.letters() == [] and pulse.offsets() == {0: 13} and pulse.count() == 13
    pulse.query("DROP TRIGGER hungry ON raw.events")
    pulse.wait_caught_up()
    assert pulse.letters() == [] and pulse.count() == 20
    pulse.check()


@ONE_PARTITION
def test_what_ddl_interrupts_goes_on(pulse):
    """Ordinary upkeep beside the stream: no letter, nothing lost."""
    sender = pulse.start_producing(20_000)
    failures = []

    def upkeep():
        try:
            for statement in ("CREATE INDEX ON raw.events (user_id)",
                              "ALTER TABLE raw.events ADD COLUMN note text",
                              "TRUNCATE raw.dlq", "VACUUM FULL live._events_minute",
                              "ALTER TABLE raw.events ALTER COLUMN note SET DEFAULT 'x'",
                              "ANALYZE raw.events",
                              "CREATE MATERIALIZED VIEW public.m AS SELECT count(*) FROM raw.events"):
                pulse.query(statement)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=upkeep)
    thread.start()
    thread.join()
    assert failures == [] and sender.wait() == 0
    pulse.wait_caught_up()
    assert pulse.letters() == [] and pulse.count() == 20_000
    pulse.check()
