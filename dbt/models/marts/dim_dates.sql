-- Without gaps from the first day with an event to the last.
with bounds as (

    select
        min(activity_date) as first_date,
        max(activity_date) as last_date
    from {{ ref('int_event_days') }}

),

days as (

    select first_date + generate_series(0, last_date - first_date) as date_day
    from bounds

)

select
    date_day,
    date_trunc('week', date_day::timestamp)::date as week_begin,
    date_trunc('month', date_day::timestamp)::date as month_begin,
    date_trunc('quarter', date_day::timestamp)::date as quarter_begin,
    extract(year from date_day)::smallint as year_number,
    extract(month from date_day)::smallint as month_of_year,
    extract(day from date_day)::smallint as day_of_month,
    extract(isoyear from date_day)::smallint as iso_year,
    extract(week from date_day)::smallint as iso_week,
    extract(isodow from date_day)::smallint as iso_day_of_week,
    extract(isodow from date_day) >= 6 as is_weekend
from days
