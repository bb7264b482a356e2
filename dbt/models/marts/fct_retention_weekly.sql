with active as (

    select
        cohort_week,
        active_week,
        active_users
    from {{ ref('int_cohort_weeks') }}

),

weeks as (

    select distinct week_begin
    from {{ ref('dim_dates') }}

),

cohorts as (

    select
        cohort_week,
        active_users as cohort_users
    from active
    where cohort_week = active_week

)

select
    cohorts.cohort_week,
    weeks.week_begin as active_week,
    (weeks.week_begin - cohorts.cohort_week) / 7 as weeks_since_first,
    cohorts.cohort_users,
    coalesce(active.active_users, 0) as active_users,
    round(coalesce(active.active_users, 0)::numeric / cohorts.cohort_users, 4) as retention
from cohorts
inner join weeks on cohorts.cohort_week <= weeks.week_begin
left join active on cohorts.cohort_week = active.cohort_week and weeks.week_begin = active.active_week
