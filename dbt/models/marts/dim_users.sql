with sessions as (

    select * from {{ ref('fct_sessions') }}

),

totals as (

    select
        user_id,
        min(session_started_at) as first_seen_at,
        max(session_ended_at) as last_seen_at,
        count(*) as sessions,
        sum(events)::bigint as events,
        count(*) filter (where is_converted) as conversions,
        bool_or(is_continued) as has_endless_session
    from sessions
    group by user_id

)

select
    totals.user_id,
    totals.first_seen_at,
    totals.last_seen_at,
    first_sessions.session_date as first_seen_on,
    first_sessions.landing_page as first_landing_page,
    first_sessions.referrer as first_referrer,
    first_sessions.device as first_device,
    totals.sessions,
    totals.events,
    totals.conversions,
    totals.has_endless_session
from totals
inner join sessions as first_sessions
    on totals.user_id = first_sessions.user_id and totals.first_seen_at = first_sessions.session_started_at
