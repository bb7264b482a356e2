{{
    config(
        incremental_strategy='replace_tail',
        meta={'tail': 'activity_date'}
    )
}}

select
    activity_date,
    count(*) as users,
    {%- for step in var('pulse__funnel_steps') %}
    count(*) filter (where has_step_{{ loop.index0 }}) as users_{{ loop.index0 }},
    {%- endfor %}
    sum(events)::bigint as events,
    sum(late_events)::bigint as late_events,
    sum(late_delay_total) as late_delay_total,
    max(late_delay_max) as late_delay_max,
    max(last_ingested_at) as last_ingested_at
from {{ ref('int_user_days') }}
{%- if is_incremental() %}
where activity_date >= {{ first_changed(ref('int_user_days'), 'activity_date') }}
{%- endif %}
group by activity_date
