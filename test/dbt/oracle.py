"""What the models must say, computed event by event in Python; shares no idea with the SQL.

Each function returns a set of tuples in the order of COLUMNS[table]."""

from collections import defaultdict
from datetime import timedelta
from fractions import Fraction

from clickstream import DAY, HOUR, MINUTE, SECOND, STEPS, TIMEOUT, moment

MAX_SESSION = 24 * HOUR

COLUMNS = {
    "fct_sessions": "user_id, session_date, session_started_at, session_ended_at, events, page_views, late_events, "
                    "landing_page_url, landing_page, exit_page, referrer, device, is_bounce, is_engaged, is_converted, "
                    "is_continued, ordered_steps, visit_started_at",
    "fct_funnel_daily": "date_day, funnel_step, step_name, users, step_conversion, overall_conversion, "
                        "users_ordered, step_conversion_ordered, overall_conversion_ordered",
    "fct_user_engagement_daily": "date_day, dau, wau, mau, new_users, stickiness, weekly_stickiness",
    "fct_retention_weekly": "cohort_week, active_week, weeks_since_first, cohort_users, active_users, retention",
    "fct_landing_pages": "session_date, landing_page, users, sessions, bounces, engaged_sessions, conversions, "
                         "page_views, bounce_rate, conversion_rate",
    "fct_late_events_daily": "event_date, events, late_events, late_share, late_delay_max",
    "dim_users": "user_id, first_seen_at, last_seen_at, first_seen_on, first_landing_page, first_referrer, "
                 "first_device, sessions, events, conversions, has_endless_session",
    "dim_dates": "date_day, week_begin, iso_week, is_weekend",
}


def day(ms):
    return moment(ms // DAY * DAY).date()


def monday(date):
    return date - timedelta(days=date.weekday())


def ratio(part, whole):
    """Half up at four digits, as numeric rounds; null over nothing."""
    return None if not whole else Fraction(int(Fraction(part * 10_000, whole) + Fraction(1, 2)), 10_000)


def is_late(event):
    return event.arrives - event.at > 5 * MINUTE


def bare(url):
    for mark in "#?":
        url = url and url.partition(mark)[0]
    return url


class Session:
    def __init__(self, visit, events):
        self.visit, self.events = visit, events
        self.user, self.begin, self.end = events[0].user_id, events[0].at, events[-1].at
        self.types = [event.event_type for event in events]
        self.views = self.types.count("page_view")
        self.converted = "payment" in self.types
        self.bounce = self.views == 1 and not any(kind in STEPS[1:] for kind in self.types)
        self.engaged = self.end - self.begin >= 10 * SECOND or self.views > 1 or self.converted
        self.ordered = 0
        for kind in self.types:
            if self.ordered < len(STEPS) and kind == STEPS[self.ordered]:
                self.ordered += 1

    def first(self, field, events=None):
        return next((getattr(event, field) for event in events or self.events if getattr(event, field)), None)

    @property
    def landing(self):
        return bare(self.first("page_url"))


def sessions_of(events):
    def order(event):
        step = STEPS.index(event.event_type) if event.event_type in STEPS else len(STEPS)
        return event.at, step, event.event_id

    per_user = defaultdict(list)
    for event in events:
        per_user[event.user_id].append(event)
    found = []
    for history in per_user.values():
        history.sort(key=order)
        visit, part, current, last = None, 0, [], None
        for event in history:
            silent = last is None or event.at - last > TIMEOUT
            if silent or (event.at - visit) // MAX_SESSION != part:
                if current:
                    found.append(Session(visit, current))
                current = []
            if silent:
                visit = event.at
            part = (event.at - visit) // MAX_SESSION
            current.append(event)
            last = event.at
        found.append(Session(visit, current))
    return found


def truth(events):
    """table -> set of rows"""
    sessions = sessions_of(events)
    days_of = defaultdict(set)
    for event in events:
        days_of[event.user_id].add(day(event.at))
    first_day, last_day = min(map(min, days_of.values())), max(map(max, days_of.values()))
    calendar = [first_day + timedelta(days=n) for n in range((last_day - first_day).days + 1)]
    return {
        "fct_sessions": {
            (s.user, day(s.begin), moment(s.begin), moment(s.end), len(s.events), s.views,
             sum(map(is_late, s.events)), s.first("page_url"), s.landing,
             bare(s.first("page_url", s.events[::-1])), s.first("referrer"), s.first("device"), s.bounce, s.engaged,
             s.converted, s.begin != s.visit, s.ordered, moment(s.visit)) for s in sessions},
        "fct_funnel_daily": funnel(sessions, events, calendar),
        "fct_user_engagement_daily": engagement(days_of, calendar),
        "fct_retention_weekly": retention(days_of, calendar),
        "fct_landing_pages": landing_pages(sessions),
        "fct_late_events_daily": late_events(events),
        "dim_users": users(sessions),
        "dim_dates": {(d, monday(d), d.isocalendar().week, d.weekday() > 4) for d in calendar},
    }


def funnel(sessions, events, calendar):
    rows, took = set(), defaultdict(set)
    for event in events:
        took[day(event.at), event.event_type].add(event.user_id)
    for date in calendar:
        today = [s for s in sessions if day(s.begin) == date]
        anyhow = [len(took[date, step]) for step in STEPS]
        ordered = [len({s.user for s in today if s.ordered > number}) for number in range(len(STEPS))]
        for number, step in enumerate(STEPS):
            rows.add((date, number, step,
                      anyhow[number], ratio(anyhow[number], number and anyhow[number - 1]), ratio(anyhow[number], anyhow[0]),
                      ordered[number], ratio(ordered[number], number and ordered[number - 1]),
                      ratio(ordered[number], ordered[0])))
    return rows


def engagement(days_of, calendar):
    rows = set()
    for date in calendar:
        active = [len({user for user, days in days_of.items()
                       if any(date - timedelta(days=back) in days for back in range(length))})
                  for length in (1, 7, 30)]
        new = sum(min(days) == date for days in days_of.values())
        rows.add((date, *active, new, ratio(active[0], active[2]), ratio(active[0], active[1])))
    return rows


def retention(days_of, calendar):
    cohorts = defaultdict(list)
    for days in days_of.values():
        cohorts[monday(min(days))].append({monday(date) for date in days})
    return {(cohort, week, (week - cohort).days // 7, len(members),
             sum(week in weeks for weeks in members), ratio(sum(week in weeks for weeks in members), len(members)))
            for cohort, members in cohorts.items() for week in map(monday, calendar) if week >= cohort}


def landing_pages(sessions):
    groups = defaultdict(list)
    for s in sessions:
        groups[day(s.begin), s.landing or "(none)"].append(s)
    rows = set()
    for key, group in groups.items():
        count = len(group)
        bounces, converted = sum(s.bounce for s in group), sum(s.converted for s in group)
        rows.add((*key, len({s.user for s in group}), count, bounces, sum(s.engaged for s in group), converted,
                  sum(s.views for s in group), ratio(bounces, count), ratio(converted, count)))
    return rows


def late_events(events):
    per_day = defaultdict(list)
    for event in events:
        per_day[day(event.at)].append(event)
    rows = set()
    for date, group in per_day.items():
        delays = [event.arrives - event.at for event in group if is_late(event)]
        rows.add((date, len(group), len(delays), ratio(len(delays), len(group)),
                  timedelta(milliseconds=max(delays)) if delays else None))
    return rows


def users(sessions):
    per_user = defaultdict(list)
    for s in sessions:
        per_user[s.user].append(s)
    rows = set()
    for user, group in per_user.items():
        group.sort(key=lambda s: s.begin)
        first = group[0]
        rows.add((user, moment(first.begin), moment(max(s.end for s in group)), day(first.begin), first.landing,
                  first.first("referrer"), first.first("device"), len(group), sum(len(s.events) for s in group),
                  sum(s.converted for s in group), any(s.begin != s.visit for s in group)))
    return rows
