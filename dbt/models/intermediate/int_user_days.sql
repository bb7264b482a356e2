{{
    config(
        incremental_strategy='delete+insert',
        unique_key=['user_id', 'activity_date'],
        indexes=[
            {'columns': ['user_id', 'activity_date'], 'unique': true},
            {'columns': ['last_ingested_at']},
        ],
        post_hook='analyze {{ this }}'
    )
}}

with events as (

    select * from {{ ref('int_events_sessionized') }}

),

{% if is_incremental() -%}
touched as (

    select distinct
        user_id,
        event_date
    from events
    where ingested_at > {{ read_since(this, 'last_ingested_at') }}

),

wanted as (

    select events.*
    from events
    inner join touched
        on
            events.user_id = touched.user_id
            -- By time as well, for the sake of the index.
            and events.event_timestamp >= {{ day_begin('touched.event_date') }}
            and events.event_timestamp < {{ day_begin('(touched.event_date + 1)') }}

)
{%- else -%}
wanted as (

    select * from events

)
{%- endif %}

select
    user_id,
    event_date as activity_date,
    count(*) as events,
    count(*) filter (where is_late) as late_events,
    sum(arrival_delay) filter (where is_late) as late_delay_total,
    max(arrival_delay) filter (where is_late) as late_delay_max,
    max(ingested_at) as last_ingested_at
from wanted
group by user_id, event_date
