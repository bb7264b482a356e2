-- What pulse is doing. None of these contacts the broker.

CREATE VIEW pulse.error_codes AS SELECT error_code, error_class, meaning, remedy FROM pulse._error_codes();
COMMENT ON VIEW pulse.error_codes IS 'the closed list of reasons for a dead letter';

CREATE FUNCTION pulse._stat_workers(
    OUT pipeline text, OUT worker int, OUT pid int, OUT state text, OUT reason text, OUT hint text,
    OUT since timestamptz, OUT next_retry_at timestamptz, OUT phase text, OUT started_at timestamptz,
    OUT last_commit_at timestamptz, OUT batches bigint, OUT records bigint, OUT rows bigint, OUT duplicates bigint,
    OUT rejects bigint, OUT queue_records bigint, OUT commit_p50_ms double precision,
    OUT commit_p99_ms double precision, OUT records_per_second double precision)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_stat_workers';
COMMENT ON FUNCTION pulse._stat_workers() IS 'the rows of pulse.stat_worker';

CREATE FUNCTION pulse._stat_pipelines(OUT pipeline text, OUT state text, OUT reason text, OUT hint text, OUT since timestamptz,
    OUT expiry_reason text, OUT expiry_hint text, OUT expiry_since timestamptz)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_stat_pipelines';
COMMENT ON FUNCTION pulse._stat_pipelines() IS 'what the coordinator says of each pipeline; expiry: why retention cannot do its work';

CREATE FUNCTION pulse._stat_partitions(
    OUT pipeline text, OUT topic text, OUT partition int, OUT next_offset bigint, OUT low bigint, OUT high bigint,
    OUT watermarks_at timestamptz, OUT last_kafka_timestamp timestamptz, OUT caught_up_at timestamptz,
    OUT state text, OUT reason text, OUT worker_pid int, OUT arrivals_per_second double precision)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_stat_partitions';
COMMENT ON FUNCTION pulse._stat_partitions() IS 'the partitions in shared memory';

CREATE FUNCTION pulse._stat_replays(
    OUT pid int, OUT pipeline text, OUT is_dry_run boolean, OUT letters_due bigint, OUT replayed bigint, OUT duplicates bigint,
    OUT failed bigint, OUT started_at timestamptz, OUT last_step_at timestamptz)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_stat_replays';
COMMENT ON FUNCTION pulse._stat_replays() IS 'the rows of pulse.stat_replay';

CREATE VIEW pulse.stat_replay AS
SELECT pid, pipeline, is_dry_run, letters_due, replayed, duplicates, failed, started_at, last_step_at FROM pulse._stat_replays();
COMMENT ON VIEW pulse.stat_replay IS
'one row per CALL of pulse.dlq_replay that runs: the session, the pipeline it is at, letters that were due when it came to its pipelines, and what became of those
of the steps that are done. pg_cancel_backend(pid) ends it: steps that are committed stay, the letters of the one under way are as they were';

CREATE VIEW pulse.stat_worker AS
SELECT pipeline, worker, pid, state, reason, hint, since, next_retry_at, phase, started_at, last_commit_at, batches,
       records, rows, duplicates, rejects, queue_records, commit_p50_ms, commit_p99_ms, records_per_second
  FROM pulse._stat_workers();
COMMENT ON VIEW pulse.stat_worker IS 'one row per worker: what it is doing, what it did since it started (see started_at), duration of its last 128 batches in ms';

CREATE VIEW pulse.stat_partition AS
SELECT o.pipeline, o.topic, o.partition, s.worker_pid, o.next_offset, s.low, s.high,
       CASE WHEN s.high >= 0 THEN greatest(s.high - o.next_offset, 0) END AS lag,
       CASE WHEN s.high IS NULL THEN NULL
            WHEN o.next_offset >= s.high THEN 0
            ELSE extract(epoch FROM clock_timestamp()
                         - least(greatest(o.last_kafka_timestamp, s.caught_up_at), clock_timestamp()))::double precision
       END AS lag_seconds,
       CASE WHEN s.state IN ('offset_lost', 'topic_changed', 'quarantined') THEN s.state
            WHEN p.desired_state <> 'running' THEN p.desired_state
            WHEN current_setting('pulse.brokers', true) = '' THEN 'idle'
            WHEN c.state = 'failed' OR w.state IN ('failed', 'retrying') THEN coalesce(w.state, c.state)
            WHEN w.pid IS NULL THEN 'starting'
            ELSE s.state END AS state,
       s.reason, s.watermarks_at, o.last_kafka_timestamp,
       o.records, o.rows, o.duplicates, o.rejects, o.filtered, o.updated_at AS last_commit_at, s.caught_up_at,
       s.arrivals_per_second,
       CASE WHEN o.rejects_accepted_to > o.next_offset THEN o.rejects_accepted_to END AS breaker_off_until
  FROM pulse.offsets o
  LEFT JOIN pulse._stat_partitions() s USING (pipeline, topic, partition)
  LEFT JOIN pulse.pipelines p ON p.name = o.pipeline
  LEFT JOIN pulse._stat_pipelines() c ON c.pipeline = o.pipeline
  LEFT JOIN pulse._stat_workers() w ON w.pid = s.worker_pid AND w.pipeline = o.pipeline;
COMMENT ON VIEW pulse.stat_partition IS
'one row per partition: next offset, watermarks of the broker (as of watermarks_at), lag in records and in seconds.
lag_seconds is an upper bound of the age of the oldest record that is not committed: time since the kafka_timestamp of the last committed record, or since next_offset was last
seen at the end of the log, whichever is later; 0 when caught up, NULL while neither is known. kafka_timestamp may be the producer''s clock (message.timestamp.type).
arrivals_per_second: growth of the log between the last two looks at the broker; NULL before the second.
breaker_off_until: the breaker does not count records before this offset (pulse.resume with force); NULL where it counts them all';

CREATE VIEW pulse.stat_pipeline AS
SELECT p.name AS pipeline, p.topics, p.target,
       CASE WHEN p.desired_state <> 'running' THEN p.desired_state
            WHEN pg_is_in_recovery() OR current_setting('pulse.brokers', true) = '' THEN 'idle'
            WHEN c.state IS NULL THEN 'starting'
            WHEN teller.is_coordinator THEN c.state
            WHEN w.state IN ('failed', 'retrying') THEN w.state
            WHEN o.state IS NOT NULL THEN o.state
            ELSE coalesce(w.state, 'starting') END AS state,
       CASE WHEN p.desired_state <> 'running' THEN coalesce(p.reason, CASE WHEN c.state = p.desired_state THEN c.reason END)
            WHEN pg_is_in_recovery() THEN 'this server is a standby'
            WHEN current_setting('pulse.brokers', true) = '' THEN 'pulse.brokers is not set'
            WHEN c.state IS NULL AND p.rank > 64 THEN 'pulse runs at most 64 pipelines'
            WHEN c.state IS NULL THEN 'the coordinator is not there yet'
            WHEN teller.is_coordinator THEN c.reason
            ELSE coalesce(w.reason, o.reason, c.reason) END AS reason,
       CASE WHEN p.desired_state <> 'running' THEN coalesce(p.hint, CASE WHEN c.state = p.desired_state THEN c.hint END)
            WHEN pg_is_in_recovery() THEN 'Ask the primary; after a promotion pulse goes on here.'
            WHEN current_setting('pulse.brokers', true) = '' THEN 'Name the Kafka brokers there and reload.'
            WHEN c.state IS NULL AND p.rank > 64 THEN 'Drop one; the first 64 by name run.'
            WHEN c.state IS NULL THEN 'It needs pulse in shared_preload_libraries, pulse.database, and a free slot of '
                                      'max_worker_processes; the server log says more.'
            WHEN teller.is_coordinator THEN c.hint
            WHEN w.state IN ('failed', 'retrying') THEN w.hint
            WHEN o.state = 'offset_lost' THEN 'pulse.accept_gap goes on where the log begins, and notes the gap; other partitions go on.'
            WHEN o.state = 'quarantined' THEN 'pulse.skip makes it a dead letter without value; other partitions go on.'
            WHEN o.state = 'topic_changed' THEN 'When the topic was made again on purpose, pulse.accept_gap begins the new one.'
            ELSE coalesce(w.hint, CASE WHEN o.is_retrying THEN 'It goes on by itself, and its other partitions do meanwhile. '
                                                            'Look at pulse.stat_partition and at the brokers.' END, c.hint) END AS hint,
       coalesce(CASE WHEN c.state = 'running' THEN w.since END, c.since, p.changed_at) AS since,
       w.next_retry_at, coalesce(w.workers, 0) AS workers, coalesce(w.records_per_second, 0) AS records_per_second,
       o.lag, o.lag_seconds, w.last_commit_at AS last_batch_at, o.records, o.rows, o.duplicates, o.rejects, o.filtered,
       coalesce(o.arrivals_per_second, 0) AS arrivals_per_second
  FROM (SELECT *, row_number() OVER (ORDER BY name) AS rank FROM pulse.pipelines) p
  LEFT JOIN pulse._stat_pipelines() c ON c.pipeline = p.name
  LEFT JOIN LATERAL (
       SELECT (array_agg(s.state ORDER BY array_position(ARRAY['failed', 'retrying', 'running', 'idle', 'starting', 'stopped'], s.state)))[1] AS state,
              (array_agg(s.reason ORDER BY array_position(ARRAY['failed', 'retrying', 'running', 'idle', 'starting', 'stopped'], s.state)))[1] AS reason,
              (array_agg(s.hint ORDER BY array_position(ARRAY['failed', 'retrying', 'running', 'idle', 'starting', 'stopped'], s.state)))[1] AS hint,
              min(s.since) AS since, min(s.next_retry_at) AS next_retry_at, count(s.pid) AS workers,
              sum(s.records_per_second) AS records_per_second, max(s.last_commit_at) AS last_commit_at
         FROM pulse._stat_workers() s WHERE s.pipeline = p.name HAVING count(*) > 0) w ON true
  LEFT JOIN LATERAL (
       SELECT sum(t.lag)::bigint AS lag, max(t.lag_seconds) AS lag_seconds, sum(t.records)::bigint AS records,
              sum(t.rows)::bigint AS rows, sum(t.duplicates)::bigint AS duplicates, sum(t.rejects)::bigint AS rejects,
              sum(t.filtered)::bigint AS filtered, sum(t.arrivals_per_second) AS arrivals_per_second,
              bool_or(t.state = 'retrying') AS is_retrying,
              min(t.state) FILTER (WHERE t.state IN ('offset_lost', 'topic_changed', 'quarantined')) AS state,
              min(format('partition %s of topic %s: %s', t.partition, t.topic, t.reason))
                  FILTER (WHERE t.state IN ('offset_lost', 'topic_changed', 'quarantined', 'retrying')) AS reason
         FROM pulse.stat_partition t WHERE t.pipeline = p.name) o ON true
 -- What somebody must mend comes before what goes on by itself.
 CROSS JOIN LATERAL (
       SELECT c.state <> 'running' AND w.state IS DISTINCT FROM 'failed' AND (c.state <> 'retrying' OR o.state IS NULL) AS is_coordinator) teller
 UNION ALL
-- A default pipeline that waits to be made.
SELECT c.pipeline, NULL, NULL, c.state, c.reason, c.hint, c.since, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0
  FROM pulse._stat_pipelines() c WHERE NOT EXISTS (SELECT FROM pulse.pipelines p WHERE p.name = c.pipeline);
COMMENT ON VIEW pulse.stat_pipeline IS
'one row per pipeline: state (starting running idle paused retrying stopped failed offset_lost topic_changed quarantined) with reason and hint, records written per second over the last 10 s and arriving since the last look at the broker,
lag in records (sum) and seconds (the largest of its partitions; pulse.stat_partition says what it means), next_retry_at while retrying';
