{%- set windows = {'wau': 7, 'mau': 30} %}

with returns as (

    select
        activity_date,
        days_away,
        users
    from {{ ref('int_returns_daily') }}

),

-- Within a window a user is counted once, on the first of their days in it: the one whose previous day lies
-- before the window. So a day counts from where the previous one has left the window until it leaves itself:
-- distinct users of rolling windows without comparing every day with every other.
comings_and_goings as (

    select
        {%- for name in windows %}
        0 as {{ name }}_change,
        {%- endfor %}
        users as dau,
        case when days_away is null then users else 0 end as new_users,
        activity_date as date_day
    from returns
    {% for name, length in windows.items() %}
    union all

    select
        {%- for other in windows %}
        {{ 'users' if other == name else '0' }} as {{ other }}_change,
        {%- endfor %}
        0 as dau,
        0 as new_users,
        activity_date + greatest({{ length }} - coalesce(days_away, {{ length }}), 0) as date_day
    from returns

    union all

    select
        {%- for other in windows %}
        {{ '-users' if other == name else '0' }} as {{ other }}_change,
        {%- endfor %}
        0 as dau,
        0 as new_users,
        activity_date + {{ length }} as date_day
    from returns
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
