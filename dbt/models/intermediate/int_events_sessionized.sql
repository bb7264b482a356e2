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
{%- set open_session = ['tails.open_visit', 'tails.open_part', 'tails.open_session'] %}
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
touched as (

    select
        user_id,
        min(event_timestamp) as since
    from new_events
    group by user_id
    order by user_id

),

-- With the session that it goes on with: the one of the last event before it, unless that is too long ago.
tails as (

    select
        touched.user_id,
        touched.since,
        open_sessions.visit_started_at as open_visit,
        open_sessions.visit_part as open_part,
        open_sessions.session_started_at as open_session
    from touched
    left join lateral (
        select
            earlier.visit_started_at,
            earlier.visit_part,
            earlier.session_started_at
        from {{ this }} as earlier
        where
            earlier.event_date = any({{
                days(local_date('touched.since - ' ~ timeout), local_date('touched.since'))
            }})
            and earlier.user_id = touched.user_id
            and earlier.event_timestamp < touched.since
            and earlier.event_timestamp >= touched.since - {{ timeout }}
        order by earlier.event_timestamp desc
        limit 1
    ) as open_sessions on true

),

-- The events known already come from this table itself: it has the index to find them by. One that was deleted from
-- the source and read again is among the new ones.
known_events as (

    select *
    from {{
        tails_in(this, 'event_date', 'user_id', 'event_timestamp', columns + open_session)
    }} as known
    where not exists (
        select from new_events
        where new_events.event_id = known.event_id and new_events.event_timestamp = known.event_timestamp
    )

),

events as (

    select *
    from known_events

    union all

    select
        new_events.*,
        {{ open_session | join(', ') }}
    from new_events
    inner join tails on new_events.user_id = tails.user_id

),
{%- else -%}
events as (

    select
        *,
        null::timestamptz as open_visit,
        null::int as open_part,
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
            open_visit
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
            visit_part <> open_part,
            true
        ) as starts_session
    from parts

),

sessions as (

    select
        *,
        coalesce(
            max(event_timestamp) filter (where starts_session) over ({{ in_order }}),
            open_session
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
-- Who asks for the last days reads their pages and no others, and a user's day is in one place.
order by event_date, user_id, event_timestamp
