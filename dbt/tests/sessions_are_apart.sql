-- Two sessions of a user are further apart than the timeout, unless one continues the other's visit.
with neighbours as (

    select
        session_id,
        user_id,
        session_started_at,
        visit_started_at,
        lag(session_ended_at) over sessions_of_user as previous_ended_at,
        lag(visit_started_at) over sessions_of_user as previous_visit_started_at
    from {{ ref('fct_sessions') }}
    window sessions_of_user as (partition by user_id order by session_started_at)

)

select *
from neighbours
where
    session_started_at <= previous_ended_at
    or (
        visit_started_at <> previous_visit_started_at
        and session_started_at - previous_ended_at <= interval '{{ var("pulse__session_timeout_minutes") }} minutes'
    )
