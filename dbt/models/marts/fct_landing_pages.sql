{{
    config(
        materialized='incremental',
        incremental_strategy='replace_tail',
        meta={'tail': 'session_date'},
        indexes=[
            {'columns': ['session_date']},
            {'columns': ['last_ingested_at']},
        ]
    )
}}

with per_user as (

    select
        session_date,
        coalesce(landing_page, '(none)') as landing_page,
        user_id,
        count(*) as sessions,
        count(*) filter (where is_bounce) as bounces,
        count(*) filter (where is_engaged) as engaged_sessions,
        count(*) filter (where is_converted) as conversions,
        sum(page_views) as page_views,
        sum(duration) as duration,
        max(last_ingested_at) as last_ingested_at
    from {{ ref('fct_sessions') }}
    {%- if is_incremental() %}
    where session_date >= {{ first_changed(ref('fct_sessions'), 'session_date') }}
    {%- endif %}
    group by session_date, coalesce(landing_page, '(none)'), user_id

)

select
    session_date,
    landing_page,
    count(*) as users,
    sum(sessions)::bigint as sessions,
    sum(bounces)::bigint as bounces,
    sum(engaged_sessions)::bigint as engaged_sessions,
    sum(conversions)::bigint as conversions,
    sum(page_views)::bigint as page_views,
    round(sum(bounces) / sum(sessions), 4) as bounce_rate,
    round(sum(conversions) / sum(sessions), 4) as conversion_rate,
    sum(duration) / sum(sessions)::double precision as average_duration,
    max(last_ingested_at) as last_ingested_at
from per_user
group by session_date, landing_page
