{%- set steps = var('pulse__funnel_steps') %}

with days as (

    select date_day
    from {{ ref('dim_dates') }}

),

step_counts as (

    {%- for step in steps %}
    {% if not loop.first %}
    union all

    {% endif -%}
    select
        days.date_day,
        {{ loop.index0 }}::smallint as funnel_step,
        '{{ step }}' as step_name,
        coalesce(anyhow.users_{{ loop.index0 }}, 0) as users,
        coalesce(in_order.users_ordered_{{ loop.index0 }}, 0) as users_ordered
    from days
    left join {{ ref('int_event_days') }} as anyhow on days.date_day = anyhow.activity_date
    left join {{ ref('int_session_days') }} as in_order on days.date_day = in_order.session_date
    {%- endfor %}

),

neighbours as (

    select
        *,
        lag(users) over steps_in_order as users_before,
        lag(users_ordered) over steps_in_order as users_ordered_before,
        first_value(users) over steps_in_order as users_at_first,
        first_value(users_ordered) over steps_in_order as users_ordered_at_first
    from step_counts
    window steps_in_order as (partition by date_day order by funnel_step)

)

select
    date_day,
    funnel_step,
    step_name,
    users,
    round(users::numeric / nullif(users_before, 0), 4) as step_conversion,
    round(users::numeric / nullif(users_at_first, 0), 4) as overall_conversion,
    users_ordered,
    round(users_ordered::numeric / nullif(users_ordered_before, 0), 4) as step_conversion_ordered,
    round(users_ordered::numeric / nullif(users_ordered_at_first, 0), 4) as overall_conversion_ordered
from neighbours
