{%- set steps = var('pulse__funnel_steps') %}

with user_days as (

    select
        session_date,
        user_id,
        {%- for step in steps %}
        bool_or(has_step_{{ loop.index0 }}) as has_step_{{ loop.index0 }},
        {%- endfor %}
        max(ordered_steps) as ordered_steps
    from {{ ref('fct_sessions') }}
    group by session_date, user_id

),

-- One scan for all steps; the rows are made of its columns.
counts as (

    select
        {%- for step in steps %}
        count(*) filter (where has_step_{{ loop.index0 }}) as users_{{ loop.index0 }},
        count(*) filter (where ordered_steps > {{ loop.index0 }}) as users_ordered_{{ loop.index0 }},
        {%- endfor %}
        session_date
    from user_days
    group by session_date

),

step_counts as (

    {%- for step in steps %}
    {% if not loop.first %}
    union all

    {% endif -%}
    select
        session_date,
        {{ loop.index0 }}::smallint as funnel_step,
        '{{ step }}' as step_name,
        users_{{ loop.index0 }} as users,
        users_ordered_{{ loop.index0 }} as users_ordered
    from counts
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
    window steps_in_order as (partition by session_date order by funnel_step)

)

select
    session_date,
    funnel_step,
    step_name,
    users,
    round(users::numeric / nullif(users_before, 0), 4) as step_conversion,
    round(users::numeric / nullif(users_at_first, 0), 4) as overall_conversion,
    users_ordered,
    round(users_ordered::numeric / nullif(users_ordered_before, 0), 4) as step_conversion_ordered,
    round(users_ordered::numeric / nullif(users_ordered_at_first, 0), 4) as overall_conversion_ordered
from neighbours
