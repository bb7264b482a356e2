select
    activity_date as event_date,
    events,
    late_events,
    round(late_events::numeric / nullif(events, 0), 4) as late_share,
    late_delay_total / nullif(late_events, 0)::double precision as late_delay_average,
    late_delay_max
from {{ ref('int_event_days') }}
