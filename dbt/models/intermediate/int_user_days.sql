{{
    config(
        incremental_strategy='delete+insert',
        unique_key=['user_id', 'activity_date'],
        indexes=[
            {'columns': ['user_id', 'activity_date'], 'unique': true},
            {'columns': ['activity_date']},
            {'columns': ['last_ingested_at']},
        ],
        post_hook='{{ analyze_when_new() }}'
    )
}}

{#- Read twice, the events would be materialized as a common table expression, all of them. #}
with {% if is_incremental() -%}
touched as (

    select distinct
        user_id,
        event_date
    from {{ ref('int_events_sessionized') }}
    where ingested_at > {{ read_since(this, 'last_ingested_at') }}
    -- As the index has them.
    order by event_date, user_id

),

wanted as (

    select events.*
    from touched
    cross join lateral (
        select known.*
        from {{ ref('int_events_sessionized') }} as known
        where known.event_date = touched.event_date and known.user_id = touched.user_id
        -- By the index, user after user: how little that reads, no estimate knows.
        offset 0
    ) as events

)
{%- else -%}
wanted as (

    select * from {{ ref('int_events_sessionized') }}

)
{%- endif %}

select
    user_id,
    event_date as activity_date,
    count(*) as events,
    count(*) filter (where is_late) as late_events,
    sum(arrival_delay) filter (where is_late) as late_delay_total,
    max(arrival_delay) filter (where is_late) as late_delay_max,
    {%- for step in var('pulse__funnel_steps') %}
    coalesce(bool_or(funnel_step = {{ loop.index0 }}), false) as has_step_{{ loop.index0 }},
    {%- endfor %}
    max(ingested_at) as last_ingested_at
from wanted
group by user_id, event_date
order by event_date, user_id
