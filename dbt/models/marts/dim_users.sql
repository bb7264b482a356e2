{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='user_id',
        indexes=[
            {'columns': ['user_id'], 'unique': true},
            {'columns': ['last_ingested_at']},
        ]
    )
}}

with {% if is_incremental() -%}
touched as (

    select distinct user_id
    from {{ ref('fct_sessions') }}
    where last_ingested_at > {{ read_since(this, 'last_ingested_at') }}

),

sessions as (

    select known.*
    from {{ ref('fct_sessions') }} as known
    inner join touched on known.user_id = touched.user_id

),
{%- else -%}
sessions as (

    select * from {{ ref('fct_sessions') }}

),
{%- endif %}

totals as (

    select
        user_id,
        min(session_started_at) as first_seen_at,
        max(session_ended_at) as last_seen_at,
        count(*) as sessions,
        sum(events)::bigint as events,
        count(*) filter (where is_converted) as conversions,
        bool_or(is_continued) as has_endless_session,
        max(last_ingested_at) as last_ingested_at
    from sessions
    group by user_id

)

select
    totals.user_id,
    totals.first_seen_at,
    totals.last_seen_at,
    first_sessions.session_date as first_seen_on,
    first_sessions.landing_page as first_landing_page,
    first_sessions.referrer as first_referrer,
    first_sessions.device as first_device,
    totals.sessions,
    totals.events,
    totals.conversions,
    totals.has_endless_session,
    totals.last_ingested_at
from totals
inner join lateral (
    select known.*
    from {{ ref('fct_sessions') }} as known
    where known.user_id = totals.user_id and known.session_started_at = totals.first_seen_at
    -- By the index: joined, the planner reads everything once more in each of its processes.
    offset 0
) as first_sessions on true
