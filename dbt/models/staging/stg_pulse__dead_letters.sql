with letters as (

    select * from {{ source('pulse', 'dlq') }}

)

select
    dlq_id,
    pipeline,
    error_class,
    error_code,
    error_message,
    error_path,
    stage,
    sqlstate,
    status,
    attempts,
    status in ('new', 'parked') as is_open,
    coalesce(kafka_timestamp, first_seen_at) as arrived_at,
    first_seen_at,
    resolved_at,
    kafka_topic,
    topic_epoch,
    kafka_partition,
    kafka_offset,
    octet_length(value) as value_bytes
from letters
