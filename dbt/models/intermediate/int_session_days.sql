{{
    config(
        incremental_strategy='replace_tail',
        meta={'tail': 'session_date'}
    )
}}

with furthest as (

    select
        session_date,
        user_id,
        max(ordered_steps) as ordered_steps,
        max(last_ingested_at) as last_ingested_at
    from {{ ref('fct_sessions') }}
    {%- if is_incremental() %}
    where session_date >= {{ first_changed(ref('fct_sessions'), 'session_date') }}
    {%- endif %}
    group by session_date, user_id

)

select
    session_date,
    {%- for step in var('pulse__funnel_steps') %}
    count(*) filter (where ordered_steps > {{ loop.index0 }}) as users_ordered_{{ loop.index0 }},
    {%- endfor %}
    max(last_ingested_at) as last_ingested_at
from furthest
group by session_date
