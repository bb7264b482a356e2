{{
    config(
        incremental_strategy='replace_tail',
        meta={'tail': 'activity_date'}
    )
}}

with user_days as (

    {%- if is_incremental() %}
    select
        days.activity_date,
        days.last_ingested_at,
        previous.activity_date as previous_date
    from {{ ref('int_user_days') }} as days
    left join lateral (
        select earlier.activity_date
        from {{ ref('int_user_days') }} as earlier
        where earlier.user_id = days.user_id and earlier.activity_date < days.activity_date
        order by earlier.activity_date desc
        limit 1
    ) as previous on true
    where days.activity_date >= {{ first_changed(ref('int_user_days'), 'activity_date') }}
    {%- else %}
    select
        activity_date,
        last_ingested_at,
        lag(activity_date) over (partition by user_id order by activity_date) as previous_date
    from {{ ref('int_user_days') }}
    {%- endif %}

)

select
    activity_date,
    activity_date - previous_date as days_away,
    count(*) as users,
    max(last_ingested_at) as last_ingested_at
from user_days
group by activity_date, activity_date - previous_date
