-- Each day has all the events that pulse had written up to the newest one taken in, and the models agree on how many
-- there are. They may have more than the source, from which retention has dropped what they keep.
with written as (

    select
        {{ local_date('event_timestamp') }} as event_date,
        count(*) as events
    from {{ ref('stg_pulse__events') }}
    where ingested_at <= (select max(taken_in.ingested_at) from {{ ref('int_events_sessionized') }} as taken_in)
    group by {{ local_date('event_timestamp') }}

),

sessionized as (

    select
        event_date,
        count(*) as events
    from {{ ref('int_events_sessionized') }}
    group by event_date

),

totals as (

    select
        (select coalesce(sum(events), 0) from sessionized) as sessionized,
        (select coalesce(sum(events), 0) from {{ ref('fct_sessions') }}) as in_sessions,
        (select coalesce(sum(events), 0) from {{ ref('int_user_days') }}) as in_user_days

)

select
    'written on ' || written.event_date as what,
    written.events as expected,
    coalesce(sessionized.events, 0) as found
from written
left join sessionized on written.event_date = sessionized.event_date
where written.events > coalesce(sessionized.events, 0)

union all

select
    'in fct_sessions' as what,
    sessionized as expected,
    in_sessions as found
from totals
where sessionized <> in_sessions

union all

select
    'in int_user_days' as what,
    sessionized as expected,
    in_user_days as found
from totals
where sessionized <> in_user_days
