{{
    config(
        incremental_strategy='replace_tail',
        meta={'tail': 'active_week'}
    )
}}

{%- set week %}date_trunc('week', activity_date::timestamp)::date{% endset %}

with user_weeks as (

    select
        user_id,
        {{ week }} as active_week,
        max(last_ingested_at) as last_ingested_at
    from {{ ref('int_user_days') }}
    {%- if is_incremental() %}
    where activity_date >= {{ first_changed(ref('int_user_days'), week) }}
    {%- endif %}
    group by user_id, {{ week }}

),

since_first as (

    {%- if is_incremental() %}
    select
        user_weeks.active_week,
        user_weeks.last_ingested_at,
        first_weeks.cohort_week
    from user_weeks
    inner join lateral (
        select {{ week }} as cohort_week
        from {{ ref('int_user_days') }} as days
        where days.user_id = user_weeks.user_id
        order by days.activity_date
        limit 1
    ) as first_weeks on true
    {%- else %}
    select
        active_week,
        last_ingested_at,
        min(active_week) over (partition by user_id) as cohort_week
    from user_weeks
    {%- endif %}

)

select
    cohort_week,
    active_week,
    count(*) as active_users,
    max(last_ingested_at) as last_ingested_at
from since_first
group by cohort_week, active_week
