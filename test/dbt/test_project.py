"""The project itself: unit tests of the rules, documentation, style, what a user of it meets."""

import re
import subprocess

import pytest
from clickstream import generate

from harness import dbt as harness_dbt
from harness import place


@pytest.fixture
def built(store, make_dbt):
    """A project built, with its unit and data tests, from a few events."""
    store.write(generate(5, users=5, days=10, bots=1))
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    dbt.results = dbt.invoke("build")
    dbt.store = store
    return dbt


def test_rules_hold_and_every_column_is_documented(built):
    assert sum(name.startswith("unit_test.") for name in built.results) >= 13
    undocumented = built.store.query("""
        SELECT c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE n.nspname = 'analytics' AND c.relkind IN ('r', 'v') AND col_description(c.oid, a.attnum) IS NULL
        UNION ALL
        SELECT c.relname, NULL FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'analytics' AND c.relkind IN ('r', 'v') AND obj_description(c.oid) IS NULL""")
    assert undocumented == []
    # And nothing is documented that is not there.
    existing = set(built.store.query("""
        SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 WHERE n.nspname = 'analytics'"""))
    described = set()
    for path in (harness_dbt.PROJECT / "models").glob("*/_[a-z]*.yml"):
        if path.name == "_unit_tests.yml":
            continue
        model = None
        for line in path.read_text().partition("\nmodels:")[2].splitlines():
            if found := re.match(r"  - name: (\w+)$", line):
                model = found[1]
            elif found := re.match(r"      - name: (\w+)$", line):
                described.add((model, found[1]))
    assert len(described) > 100
    assert described - existing == set()


def test_sql_is_in_one_style(built):
    done = subprocess.run([harness_dbt.VENV / "bin" / "sqlfluff", "lint", "--nocolor", "models", "tests"],
                          cwd=harness_dbt.PROJECT, env=place.environment(**built.variables()),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_plain_table_is_read_up_to_a_guess(store, make_dbt):
    """Without the extension nobody knows what is not committed yet: ten minutes are left alone."""
    store.query("DROP EXTENSION pulse")
    store.query("""
        INSERT INTO raw.events (event_id, event_type, user_id, event_timestamp, ingested_at)
        SELECT minutes::text, 'page_view', 'u', now(), now() - make_interval(mins => minutes)
          FROM generate_series(1, 30, 2) AS minutes""")
    dbt = make_dbt(store.cluster, dbname=store.dbname)

    def older():
        return {event for event, in store.query(
            "SELECT event_id FROM raw.events WHERE ingested_at < clock_timestamp() - interval '10 minutes'")}

    at_least = older()
    dbt.invoke("run", "-s", "+fct_sessions")
    taken = {event for event, in store.rows("int_events_sessionized", "event_id")}
    assert {"11", "29"} <= at_least <= taken <= older() < {str(minutes) for minutes in range(1, 30, 2)}


def test_repeatable_read_is_refused(store, make_dbt):
    """The snapshot would be older than the horizon, and rows that became visible between them be lost."""
    store.query(f"ALTER DATABASE {store.dbname} SET default_transaction_isolation = 'repeatable read'")
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    results = dbt.invoke("run", "-s", "+int_events_sessionized", ok=False)
    assert "use read committed" in results["model.pulse.int_events_sessionized"]["message"]


def test_autocommit_is_refused(store, make_dbt, tmp_path):
    """The lock of a model would be gone before what it is for."""
    profile = (place.ROOT / "dbt" / "profiles.yml").read_text().replace("      type: postgres\n", "      type: postgres\n      autocommit: true\n")
    (tmp_path / "profiles.yml").write_text(profile)
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    results = dbt.invoke("run", "--profiles-dir", str(tmp_path), ok=False)
    assert "without autocommit" in results["model.pulse.int_events_sessionized"]["message"]


def test_models_do_without_compiled_plans(store, make_dbt):
    """Whose making takes longer than a small run; PostgreSQL would compile by default, part by part of a partitioned table."""
    store.query(f"ALTER DATABASE {store.dbname} SET jit = on")
    store.query("""
        CREATE TABLE public.seen (tag text, jit text);
        CREATE FUNCTION public.look() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.seen VALUES (tg_tag, current_setting('jit')); END $$;
        CREATE EVENT TRIGGER look ON ddl_command_start WHEN TAG IN ('CREATE TABLE AS') EXECUTE FUNCTION public.look()""")
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    store.write(generate(7, users=2, days=3, bots=0))
    for _ in range(2):
        dbt.invoke("run")
    assert store.query("SELECT DISTINCT jit FROM public.seen") == [("off",)]
    assert store.query("SELECT count(*) > 20 FROM public.seen") == [(True,)]


def test_reader_needs_no_more_than_to_read(store, make_dbt):
    """A role with the privileges that dbt/README.md names."""
    role = f"analyst_{store.dbname}"
    store.query(f"CREATE ROLE {role} LOGIN")
    store.query(f"GRANT USAGE ON SCHEMA raw, pulse TO {role}")
    store.query(f"GRANT SELECT ON raw.events, raw.dlq TO {role}")
    store.query(f"CREATE SCHEMA analytics AUTHORIZATION {role}")
    store.write(generate(6, users=3, days=5, bots=0))
    dbt = make_dbt(store.cluster, dbname=store.dbname, user=role)
    dbt.invoke("run")
    dbt.invoke("run")
