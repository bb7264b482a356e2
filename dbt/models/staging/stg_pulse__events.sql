with events as (

    select * from {{ source('pulse', 'events') }}

),

arrivals as (

    select
        event_id,
        event_type,
        user_id,
        event_timestamp,
        kafka_timestamp,
        ingested_at,
        -- What came through pulse.ingest() saw no broker.
        coalesce(kafka_timestamp, ingested_at) as arrived_at,
        case event_type
            {%- for step in var('pulse__funnel_steps') %}
            when '{{ step }}' then {{ loop.index0 }}
            {%- endfor %}
        end::smallint as funnel_step,
        page_url,
        {{ page_of('page_url') }} as page,
        referrer,
        device,
        properties,
        kafka_topic,
        kafka_partition,
        kafka_offset
    from events

)

select
    event_id,
    event_type,
    user_id,
    event_timestamp,
    arrived_at,
    arrived_at - event_timestamp as arrival_delay,
    coalesce(
        arrived_at - event_timestamp > interval '{{ var("pulse__late_after_minutes") }} minutes', false
    ) as is_late,
    ingested_at,
    funnel_step,
    page_url,
    page,
    referrer,
    device,
    properties,
    kafka_topic,
    kafka_partition,
    kafka_offset,
    kafka_timestamp
from arrivals
