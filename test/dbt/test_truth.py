"""Incremental runs = full refresh = truth, whatever arrives when."""

from decimal import Decimal
from fractions import Fraction

import pytest
from clickstream import arrivals, generate
from oracle import COLUMNS, sessions_of, truth

TABLES = ("int_events_sessionized", "int_user_days", "int_event_days", "int_session_days", "int_returns_daily",
          "int_cohort_weeks", "fct_sessions", "fct_funnel_daily", "fct_user_engagement_daily",
          "fct_retention_weekly", "fct_landing_pages", "fct_late_events_daily", "fct_dead_letters_daily", "dim_users",
          "dim_dates")


def compare(store, expected, schema="analytics"):
    for table, columns in COLUMNS.items():
        found = [tuple(Fraction(value) if isinstance(value, Decimal) else value for value in row)
                 for row in store.rows(table, columns, schema)]
        wrong, missing = set(found) - expected[table], expected[table] - set(found)
        assert not wrong and not missing, (
            f"{table} ({columns}): {len(wrong)} wrong, {len(missing)} missing\n"
            f"  wrong   {sorted(wrong, key=str)[:3]}\n  missing {sorted(missing, key=str)[:3]}")
        assert len(found) == len(expected[table]), f"{table} has rows twice"


def same(store, schema, other):
    for table in TABLES:
        assert store.differences(table, schema, other) == [], table


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_incremental_runs_equal_full_refresh_equal_truth(store, make_dbt, how_many, seed):
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    events = generate(seed, users=how_many(60, 400))
    sessions = sessions_of(events)
    assert any(session.begin != session.visit for session in sessions), "no endless visit in the events"
    arrived = set()
    for chunk in arrivals(events, seed, chunks=how_many(4, 25)):
        for batch in chunk:
            store.write(batch)
            arrived.update(batch)
        dbt.invoke("run")
        compare(store, truth(arrived))
    assert arrived == set(events)
    dbt.invoke("run", "--full-refresh", schema="refreshed")
    compare(store, truth(events), "refreshed")
    same(store, "analytics", "refreshed")
    dbt.invoke("run")  # nothing is new, nothing changes
    same(store, "analytics", "refreshed")
    dbt.invoke("test", "--exclude", "test_type:unit")


def test_a_model_left_out_of_some_runs_catches_up(store, make_dbt, how_many):
    """As after a failure in the middle of a run."""
    dbt = make_dbt(store.cluster, dbname=store.dbname)
    events = generate(4, users=how_many(30, 200), bots=1)
    left_out = ("fct_sessions+", "int_user_days+", "fct_sessions+ int_user_days+", "")
    for chunk, excluded in zip(arrivals(events, 4, chunks=5), ("", *left_out), strict=True):
        for batch in chunk:
            store.write(batch)
        dbt.invoke("run", *(["--exclude", *excluded.split()] if excluded else []))
    compare(store, truth(events))
