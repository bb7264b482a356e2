-- Each day has all the events that pulse had written up to the newest one taken in, and the models agree on how
-- many there are, each up to the newest one that it has taken in itself. They may have more than the source, from
-- which retention has dropped what they keep.
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

    {%- for model in ('fct_sessions', 'int_user_days') %}
    {% if not loop.first %}
    union all

    {% endif -%}
    select
        '{{ model }}' as model,
        (
            select count(*)
            from {{ ref('int_events_sessionized') }}
            where ingested_at <= (select max(taken_in.last_ingested_at) from {{ ref(model) }} as taken_in)
        ) as sessionized,
        (select coalesce(sum(events), 0) from {{ ref(model) }}) as found
    {%- endfor %}

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
    'in ' || model as what,
    sessionized as expected,
    found
from totals
where sessionized <> found
