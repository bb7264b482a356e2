{%- set windows = {'wau': 7, 'mau': 30} %}

with user_days as (

    select
        activity_date,
        lag(activity_date) over days_of_user as previous_date,
        lead(activity_date) over days_of_user as next_date
    from {{ ref('int_user_days') }}
    window days_of_user as (partition by user_id order by activity_date)

),

-- A user counts from an active day until the window's length after it. So each active day is where the
-- user comes in, unless counted already, and where the user goes, unless active again by then: distinct
-- users of a rolling window without comparing every day with every other.
comings_and_goings as (

    select
        {%- for name, length in windows.items() %}
        count(*) filter (
            where previous_date is null or previous_date <= activity_date - {{ length }}
        ) as {{ name }}_change,
        {%- endfor %}
        count(*) as dau,
        count(*) filter (where previous_date is null) as new_users,
        activity_date as date_day
    from user_days
    group by activity_date
    {% for name, length in windows.items() %}
    union all

    select
        {%- for other in windows %}
        {{ '-count(*)' if other == name else '0' }} as {{ other }}_change,
        {%- endfor %}
        0 as dau,
        0 as new_users,
        activity_date + {{ length }} as date_day
    from user_days
    where next_date is null or next_date >= activity_date + {{ length }}
    group by activity_date
    {% endfor %}
),

changes as (

    select
        {%- for name in windows %}
        sum({{ name }}_change) as {{ name }}_change,
        {%- endfor %}
        sum(dau)::bigint as dau,
        sum(new_users)::bigint as new_users,
        date_day
    from comings_and_goings
    group by date_day

),

days as (

    select
        dim_dates.date_day,
        coalesce(changes.dau, 0) as dau,
        {%- for name in windows %}
        coalesce(sum(changes.{{ name }}_change) over (order by dim_dates.date_day), 0)::bigint as {{ name }},
        {%- endfor %}
        coalesce(changes.new_users, 0) as new_users
    from {{ ref('dim_dates') }} as dim_dates
    left join changes on dim_dates.date_day = changes.date_day

)

select
    date_day,
    dau,
    wau,
    mau,
    new_users,
    round(dau::numeric / nullif(mau, 0), 4) as stickiness,
    round(dau::numeric / nullif(wau, 0), 4) as weekly_stickiness
from days
