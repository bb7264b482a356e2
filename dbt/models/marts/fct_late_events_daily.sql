with days as (

    select
        activity_date as event_date,
        sum(events)::bigint as events,
        sum(late_events)::bigint as late_events,
        sum(late_delay_total) as late_delay_total,
        max(late_delay_max) as late_delay_max
    from {{ ref('int_user_days') }}
    group by activity_date

)

select
    event_date,
    events,
    late_events,
    round(late_events::numeric / nullif(events, 0), 4) as late_share,
    late_delay_total / nullif(late_events, 0)::double precision as late_delay_average,
    late_delay_max
from days
