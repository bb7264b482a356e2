"""The whole way: what the simulator sent, through Kafka, raw.events and dbt, equals what it says is true."""

import threading

import pytest

from harness import dbt

QUICK, ALL = [1], [1, 2, 3]
TROUBLE = "late => 0.03, duplicates => 0.02, malformed => 0.02, out_of_order => 0.05, bots => 0.04"

# What the models say, and what is true; each pair must be the same rows.
PAIRS = {
    "sessions": ("""
        SELECT user_id, session_started_at, session_ended_at, events, page_views, landing_page, exit_page, referrer,
               device, is_bounce, is_converted, ordered_steps FROM analytics.fct_sessions""", """
        SELECT user_id, session_started_at, session_ended_at, events, page_views, landing_page, exit_page, referrer,
               device, is_bounce, is_converted, ordered_steps FROM sim.sessions"""),
    "sessions per day": (
        "SELECT session_date, count(*) FROM analytics.fct_sessions GROUP BY 1",
        "SELECT day, sessions FROM sim.days WHERE sessions > 0"),
    "funnel": (
        "SELECT session_date, funnel_step, step_name, users, users_ordered FROM analytics.fct_funnel_daily",
        "SELECT f.day, f.step, f.event_type, f.users, f.ordered_users FROM sim.funnel_daily f JOIN sim.days d USING (day)"
        " WHERE d.sessions > 0"),
    "active users": (
        "SELECT date_day, dau, wau, mau FROM analytics.fct_user_engagement_daily"
        " WHERE date_day BETWEEN (SELECT min(day) FROM sim.days) AND (SELECT max(day) FROM sim.days)",
        "SELECT day, active_users, active_users_7d, active_users_30d FROM sim.days"),
    "late events": (
        "SELECT event_date, events, late_events FROM analytics.fct_late_events_daily",
        "SELECT day, events, late_events FROM sim.days WHERE events > 0"),
    "dead letters": (
        "SELECT error_code, sum(letters)::bigint FROM analytics.fct_dead_letters_daily GROUP BY 1",
        "SELECT error_code, count FROM sim.rejects"),
}


def seeds():
    return [pytest.param(seed, marks=[] if seed in QUICK else pytest.mark.soak) for seed in ALL]


@pytest.mark.parametrize("seed", seeds())
def test_models_equal_the_truth(pulse, how_many, seed):
    dbt.environment()
    pulse.broker.alter_topic(pulse.topic, **{"retention.ms": "-1"})
    events = how_many(15_000, 200_000)
    failure = []

    def simulate():
        try:
            pulse.query(f"CALL pulse.simulate(events => {events}, users => {events // 10}, duration => '9 days',"
                        f" rate => {events / 20}, start_at => now() - interval '10 days', seed => {seed}, {TROUBLE})")
        except Exception as error:
            failure.append(error)

    sender = threading.Thread(target=simulate)
    sender.start()
    models = dbt.Dbt(pulse.cluster, name=f"truth-{seed}")
    try:
        pulse.wait_for(f"SELECT count(*) > {events // 4} FROM raw.events", "a part of the events", 60)
        models.invoke("run")  # while they come
        sender.join()
        assert not failure
        pulse.wait_caught_up()
        models.invoke("run")  # incremental from there
        models.invoke("test", "--exclude-resource-type", "unit_test")
    finally:
        sender.join()
        models.close()

    for what, (found, true) in PAIRS.items():
        assert pulse.value(f"SELECT count(*) FROM ({true}) t") > 0, what
        different = (f"(SELECT 'not true', * FROM ({found}) f EXCEPT ALL SELECT 'not true', * FROM ({true}) t) UNION ALL"
                     f" (SELECT 'missing', * FROM ({true}) t EXCEPT ALL SELECT 'missing', * FROM ({found}) f)")
        assert pulse.query(f"{different} LIMIT 5") == [], what
