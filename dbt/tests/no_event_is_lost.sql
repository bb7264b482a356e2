-- As many events in the sessions as pulse had written up to the same mark.
with mark as (

    select max(ingested_at) as newest
    from {{ ref('int_events_sessionized') }}

),

written as (

    select count(*) as events
    from {{ ref('stg_pulse__events') }}
    where ingested_at <= (select mark.newest from mark)

),

sessionized as (

    select sum(events) as events
    from {{ ref('fct_sessions') }}

),

user_days as (

    select sum(events) as events
    from {{ ref('int_user_days') }}

)

select
    written.events as written,
    sessionized.events as sessionized,
    user_days.events as active
from written
cross join sessionized
cross join user_days
where
    written.events <> coalesce(sessionized.events, 0)
    or written.events <> coalesce(user_days.events, 0)
