"""The dbt models against what pulse.simulate() says is true: for the tests and for `make demo`."""

# Sessions, users and letters of the days that were simulated; other days may hold other events.
DAYS = "(SELECT min(day) FROM sim.days) AND (SELECT max(day) FROM sim.days)"

# What the models say, and what is true; each pair must be the same rows.
PAIRS = {
    "sessions": (f"""
        SELECT user_id, session_started_at, session_ended_at, events, page_views, landing_page, exit_page, referrer,
               device, is_bounce, is_converted, ordered_steps FROM analytics.fct_sessions
         WHERE session_date BETWEEN {DAYS}""", """
        SELECT user_id, session_started_at, session_ended_at, events, page_views, landing_page, exit_page, referrer,
               device, is_bounce, is_converted, ordered_steps FROM sim.sessions"""),
    "sessions per day": (
        f"SELECT session_date, count(*) FROM analytics.fct_sessions WHERE session_date BETWEEN {DAYS} GROUP BY 1",
        "SELECT day, sessions FROM sim.days WHERE sessions > 0"),
    "funnel per day and step": (
        f"SELECT date_day, funnel_step, step_name, users, users_ordered FROM analytics.fct_funnel_daily"
        f" WHERE date_day BETWEEN {DAYS}",
        "SELECT day, step, event_type, users, ordered_users FROM sim.funnel_daily"),
    "daily, weekly, monthly users": (
        f"SELECT date_day, dau, wau, mau FROM analytics.fct_user_engagement_daily WHERE date_day BETWEEN {DAYS}",
        "SELECT day, active_users, active_users_7d, active_users_30d FROM sim.days"),
    "late events per day": (
        f"SELECT event_date, events, late_events FROM analytics.fct_late_events_daily WHERE event_date BETWEEN {DAYS}",
        "SELECT day, events, late_events FROM sim.days WHERE events > 0"),
    "dead letters per error code": (
        "SELECT error_code, sum(letters)::bigint FROM analytics.fct_dead_letters_daily"
        f" WHERE arrival_date BETWEEN {DAYS} + 1 GROUP BY 1",
        "SELECT error_code, count FROM sim.rejects"),
}


def compare(cluster):
    """Yields what was compared, how many rows are true, and up to five that differ."""
    for what, (found, true) in PAIRS.items():
        yield what, cluster.value(f"SELECT count(*) FROM ({true}) t"), cluster.query(
            f"(SELECT 'not true', * FROM ({found}) f EXCEPT ALL SELECT 'not true', * FROM ({true}) t) UNION ALL"
            f" (SELECT 'missing', * FROM ({true}) t EXCEPT ALL SELECT 'missing', * FROM ({found}) f) LIMIT 5")
