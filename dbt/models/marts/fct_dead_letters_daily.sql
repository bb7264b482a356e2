select
    {{ local_date('arrived_at') }} as arrival_date,
    pipeline,
    error_class,
    error_code,
    count(*) as letters,
    count(*) filter (where is_open) as open_letters,
    count(*) filter (where status = 'replayed') as replayed_letters,
    count(*) filter (where status = 'discarded') as discarded_letters,
    coalesce(sum(value_bytes), 0)::bigint as value_bytes
from {{ ref('stg_pulse__dead_letters') }}
group by {{ local_date('arrived_at') }}, pipeline, error_class, error_code
