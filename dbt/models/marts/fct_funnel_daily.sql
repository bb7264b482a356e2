{%- set steps = var('pulse__funnel_steps') %}

with days as (

    select date_day
    from {{ ref('dim_dates') }}

),

anyhow as (

    select
        {%- for step in steps %}
        count(*) filter (where has_step_{{ loop.index0 }}) as users_{{ loop.index0 }},
        {%- endfor %}
        activity_date as date_day
    from {{ ref('int_user_days') }}
    group by activity_date

),

furthest as (

    select
        session_date,
        user_id,
        max(ordered_steps) as ordered_steps
    from {{ ref('fct_sessions') }}
    group by session_date, user_id

),

in_order as (

    select
        {%- for step in steps %}
        count(*) filter (where ordered_steps > {{ loop.index0 }}) as users_{{ loop.index0 }},
        {%- endfor %}
        session_date as date_day
    from furthest
    group by session_date

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
        coalesce(in_order.users_{{ loop.index0 }}, 0) as users_ordered
    from days
    left join anyhow on days.date_day = anyhow.date_day
    left join in_order on days.date_day = in_order.date_day
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
