{{
    config(
        incremental_strategy='replace_tail',
        unique_key='user_id',
        meta={'tail': 'event_timestamp', 'day': 'event_date'},
        indexes=[
            {'columns': ['event_date', 'user_id', 'event_timestamp']},
            {'columns': ['ingested_at']},
        ],
        post_hook='{{ analyze_when_new() }}'
    )
}}

{%- set columns = [
    'event_id', 'event_type', 'user_id', 'event_timestamp', 'arrived_at', 'arrival_delay', 'is_late',
    'ingested_at', 'funnel_step', 'page_url', 'referrer', 'device'
] %}
{%- set timeout = "interval '" ~ var('pulse__session_timeout_minutes') ~ " minutes'" %}
{%- set in_order %}partition by user_id order by event_timestamp, funnel_step, event_id collate "C"{% endset %}

with new_events as (

    select {{ columns | join(', ') }}
    from {{ ref('stg_pulse__events') }}
    where
        ingested_at < {{ read_until() }}
        {%- if is_incremental() %}
        and ingested_at > {{ read_since(this) }}
        {%- endif %}

),

{% if is_incremental() -%}
-- Of each user who has new events, everything from the earliest of them on may have to be joined or cut anew.
-- Whatever is older stays as it is.
tails as (

    select
        user_id,
        min(event_timestamp) as since
    from new_events
    group by user_id
    order by user_id

),

-- What is known already comes from this table itself: it has the index to find it by.
known_events as (

    select
        *,
        null::timestamptz as open_visit,
        null::timestamptz as open_session
    from {{ tails_in(this, 'event_date', 'user_id', 'event_timestamp', columns) }} as known

),

-- The last event before each tail, which may go on with its session. It is only looked at, not written again.
last_events as (

    select last_event.*
    from tails
    cross join lateral (
        select
            {{ columns | join(', ') }},
            known.visit_started_at as open_visit,
            known.session_started_at as open_session
        from {{ this }} as known
        where
            known.event_date = any({{
                days(local_date('tails.since - ' ~ timeout), local_date('tails.since'))
            }})
            and known.user_id = tails.user_id
            and known.event_timestamp < tails.since
            and known.event_timestamp >= tails.since - {{ timeout }}
        order by known.event_timestamp desc
        limit 1
    ) as last_event

),

-- An event that was deleted from the source and read again is known and new. Counted here, not joined: of how many
-- are new, statistics know nothing.
copies as (

    select
        *,
        row_number() over (
            partition by user_id, event_timestamp, event_id
            order by ingested_at desc
        ) as copy
    from (
        select *
        from known_events

        union all

        select
            *,
            null::timestamptz as open_visit,
            null::timestamptz as open_session
        from new_events

        union all

        select *
        from last_events
    ) as all_events

),

events as (

    select *
    from copies
    where copy = 1

),
{%- else -%}
events as (

    select
        *,
        null::timestamptz as open_visit,
        null::timestamptz as open_session
    from new_events

),
{%- endif %}

-- A visit ends with a silence longer than the timeout.
flagged as (

    select
        *,
        coalesce(
            event_timestamp - lag(event_timestamp) over ({{ in_order }})
            > {{ timeout }},
            open_visit is null
        ) as starts_visit
    from events

),

-- Times only grow in this order, so the newest begin so far is the begin of the current visit (a running
-- sum of the flags would number the visits, but from where the rebuilt part begins, not from the first).
visits as (

    select
        *,
        coalesce(
            max(event_timestamp) filter (where starts_visit) over ({{ in_order }}),
            first_value(open_visit) over ({{ in_order }})
        ) as visit_started_at
    from flagged

),

-- Visits that never end are cut into parts, counted from the begin of the visit.
parts as (

    select
        *,
        floor(
            extract(epoch from event_timestamp - visit_started_at)
            / {{ var("pulse__max_session_hours") * 3600 }}
        )::int as visit_part
    from visits

),

part_flags as (

    select
        *,
        coalesce(
            visit_started_at <> lag(visit_started_at) over ({{ in_order }})
            or visit_part <> lag(visit_part) over ({{ in_order }}),
            open_session is null
        ) as starts_session
    from parts

),

sessions as (

    select
        *,
        coalesce(
            max(event_timestamp) filter (where starts_session) over ({{ in_order }}),
            first_value(open_session) over ({{ in_order }})
        ) as session_started_at
    from part_flags

)

select
    {%- for column in columns %}
    {{ column }},
    {%- endfor %}
    {{ local_date('event_timestamp') }} as event_date,
    md5(user_id || '|' || extract(epoch from session_started_at)) as session_id,
    session_started_at,
    starts_session,
    visit_started_at,
    visit_part
from sessions
where open_session is null
-- Who asks for the last days reads their pages and no others, and a user's day is in one place.
order by event_date, user_id, event_timestamp
