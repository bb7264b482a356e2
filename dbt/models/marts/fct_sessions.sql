{#- None of the indexes is by session_id, the same key as a hash: each new session would have a page of its own to
    write there. #}
{{
    config(
        materialized='incremental',
        incremental_strategy='replace_tail',
        unique_key='user_id',
        meta={'tail': 'session_started_at', 'day': 'session_date'},
        indexes=[
            {'columns': ['user_id', 'session_started_at'], 'unique': true},
            {'columns': ['session_date', 'user_id', 'session_started_at']},
            {'columns': ['last_ingested_at']},
        ],
        post_hook='{{ analyze_when_new() }}'
    )
}}

{%- set steps = var('pulse__funnel_steps') %}

{#- Read twice, the events would be materialized as a common table expression, all of them. #}
with {% if is_incremental() -%}
-- A new event changes the session it is in, and perhaps where later ones begin, never earlier ones.
tails as (

    select
        user_id,
        min(session_started_at) as since
    from {{ ref('int_events_sessionized') }}
    where ingested_at > {{ read_since(this, 'last_ingested_at') }}
    group by user_id

),

wanted as (

    select *
    from {{ tails_in(ref('int_events_sessionized'), 'event_date', 'user_id', 'event_timestamp') }} as known

),
{%- else -%}
wanted as (

    select * from {{ ref('int_events_sessionized') }}

),
{%- endif %}

sessions as (

    select
        session_id,
        user_id,
        session_started_at,
        max(event_timestamp) as session_ended_at,
        min(visit_started_at) as visit_started_at,
        min(visit_part) as visit_part,
        count(*) as events,
        {%- for step in steps %}
        count(*) filter (where funnel_step = {{ loop.index0 }}) as step_{{ loop.index0 }}_events,
        {%- endfor %}
        count(*) filter (where is_late) as late_events,
        -- The steps as digits in the order they were taken: 0010123.
        coalesce(
            string_agg(funnel_step::text, '' order by event_timestamp, funnel_step, event_id collate "C"), ''
        ) as path,
        {{ first_known('page_url') }} as landing_page_url,
        {{ first_known('page_url', 'desc') }} as exit_page_url,
        {{ first_known('referrer') }} as referrer,
        {{ first_known('device') }} as device,
        max(ingested_at) as last_ingested_at
    from wanted
    -- In the order of the index by user.
    group by user_id, session_started_at, session_id

)

select
    session_id,
    user_id,
    {{ local_date('session_started_at') }} as session_date,
    session_started_at,
    session_ended_at,
    session_ended_at - session_started_at as duration,
    events,
    step_0_events as page_views,
    late_events,
    landing_page_url,
    {{ page_of('landing_page_url') }} as landing_page,
    {{ page_of('exit_page_url') }} as exit_page,
    referrer,
    device,
    step_0_events = 1 and length(path) = 1 as is_bounce,
    (
        session_ended_at - session_started_at >= interval '{{ var("pulse__engaged_seconds") }} seconds'
        or step_0_events >= 2
        or step_{{ steps | length - 1 }}_events > 0
    ) as is_engaged,
    step_{{ steps | length - 1 }}_events > 0 as is_converted,
    visit_part > 0 as is_continued,
    {%- for step in steps %}
    step_{{ loop.index0 }}_events > 0 as has_step_{{ loop.index0 }},
    {%- endfor %}
    -- How many steps were taken in the order of the funnel, whatever lies between them.
    case
        {%- for count in range(steps | length, 0, -1) %}
        when path like '%{{ range(count) | join("%") }}%' then {{ count }}
        {%- endfor %}
        else 0
    end::smallint as ordered_steps,
    visit_started_at,
    last_ingested_at
from sessions
-- Who asks for the last days reads their pages and no others.
order by session_date, user_id, session_started_at
