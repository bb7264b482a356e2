-- Events without Kafka. The work is done in src/worker/ingest.cpp.

CREATE FUNCTION pulse.ingest(name text, events jsonb, OUT accepted bigint, OUT rejected bigint, OUT processing_ms double precision)
    -- DEFINER: EXECUTE on it is all that an application needs; the target is written as the role that the pipeline writes as.
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'pulse_ingest';
COMMENT ON FUNCTION pulse.ingest(text, jsonb) IS
'writes one event (an object) or an array of them as a worker of the pipeline would: same decoding, schema, table, counters and dead letters, without Kafka,
in the caller''s transaction: a ROLLBACK takes all of it back. accepted: rows, and events that were rows already by their key (so a call may be repeated), or that a trigger
filtered; rejected: dead letters without kafka_topic, with the bytes of the element (pulse.dlq_replay takes them too); processing_ms: milliseconds. An event without
event_id gets ingest-<uuid>; kafka_* columns are NULL. The breaker does not count these. A missing partition is made in the caller''s transaction and others that need it wait
for its end: commit soon. EXECUTE on this function is enough. Errors: 22004, 42704, 54000 the events of the transaction need more than 32 new partitions, 53400 more than
max_queue_depth records of the pipeline are read but not written (the hint is "retry after N ms"), 53300 too many sessions at once, 55000, and whatever the target raises but for single rows';
