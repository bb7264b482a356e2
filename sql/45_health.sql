-- Is it well, in one word and on one screen. Shared memory and tables only: the broker is not asked.

CREATE FUNCTION pulse.health(OUT pipeline text, OUT status text, OUT reason text, OUT hint text, OUT since timestamptz)
    RETURNS SETOF record LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.pipeline, judged.status,
           coalesce(p.reason, CASE
               WHEN judged.status = 'backpressured' THEN format('%s records are read but not written, limit %s', queue.records, queue.allowed)
               WHEN judged.status = 'stalled' THEN format('%s records wait, nothing was committed since %s', p.lag, stalled.since::timestamptz(0))
               WHEN judged.status IN ('catching_up', 'lagging') THEN
                   format('%s records behind; %s/s are written, %s/s arrive', p.lag, round(p.records_per_second::numeric), round(p.arrivals_per_second::numeric))
               WHEN judged.status = 'ok' THEN coalesce(forwarding.reason, kept.expiry_reason)
               WHEN p.state IN ('paused', 'stopped') THEN p.state || ' by an operator'
           END),
           coalesce(p.hint, CASE
               WHEN judged.status = 'backpressured' THEN 'The database is slower than what comes in: look at pulse.stat_worker.'
               WHEN judged.status = 'stalled' THEN 'Look at pulse.stat_worker and pulse.stat_partition, for locks at pg_stat_activity, then at the server log.'
               WHEN judged.status = 'lagging' THEN 'More arrives than is written: raise workers (up to the number of partitions), look at pulse.stat_worker.'
               WHEN judged.status = 'ok' THEN CASE WHEN forwarding.reason IS NOT NULL THEN forwarding.hint ELSE kept.expiry_hint END
               WHEN p.state IN ('paused', 'stopped') THEN format('It goes on with pulse.resume(%L).', p.pipeline)
           END),
           CASE WHEN judged.status = 'stalled' AND stalled.since IS NOT NULL THEN stalled.since
                WHEN judged.status IN ('catching_up', 'lagging') THEN clock_timestamp() - make_interval(secs => p.lag_seconds)
                WHEN judged.status = 'ok' THEN coalesce(forwarding.since, kept.expiry_since, p.since)
                ELSE p.since END
      FROM pulse.stat_pipeline p
     CROSS JOIN LATERAL pulse._forward_trouble(p.pipeline) forwarding
      LEFT JOIN pulse._stat_pipelines() kept ON kept.pipeline = p.pipeline
      -- One partition that does not move makes the pipeline stalled, whatever the others do.
      LEFT JOIN LATERAL (
           SELECT min(greatest(t.last_commit_at, t.caught_up_at)) FILTER (WHERE t.lag > 0 AND
                      greatest(t.last_commit_at, t.caught_up_at) < clock_timestamp() - interval '30 s') AS since,
                  bool_or(t.state = 'retrying') AS is_retrying
             FROM pulse.stat_partition t WHERE t.pipeline = p.pipeline) stalled ON true
      CROSS JOIN LATERAL (
           SELECT coalesce(sum(w.queue_records), 0) AS records,
                  coalesce((SELECT (d.settings ->> 'max_queue_depth')::bigint FROM pulse.pipelines d WHERE d.name = p.pipeline),
                           current_setting('pulse.max_queue_depth')::bigint) AS allowed
             FROM pulse._stat_workers() w WHERE w.pipeline = p.pipeline) queue
      CROSS JOIN LATERAL (
           SELECT CASE
               WHEN p.state IN ('failed', 'offset_lost', 'topic_changed', 'quarantined') THEN 'error'
               WHEN p.state IN ('paused', 'stopped') THEN 'stopped'
               WHEN p.state = 'idle' AND (pg_is_in_recovery() OR current_setting('pulse.brokers', true) = '') THEN 'stopped'
               WHEN p.state = 'retrying' OR stalled.is_retrying THEN 'stalled'
               WHEN p.state = 'starting' AND p.since > clock_timestamp() - interval '10 s' THEN 'catching_up'
               WHEN p.state = 'starting' OR stalled.since IS NOT NULL THEN 'stalled'
               WHEN queue.records >= queue.allowed THEN 'backpressured'
               WHEN coalesce(p.lag, 0) = 0 OR p.lag_seconds < 10 THEN 'ok'
               WHEN p.records_per_second > p.arrivals_per_second THEN 'catching_up'
               ELSE 'lagging' END AS status) judged
     ORDER BY 1
$$;
COMMENT ON FUNCTION pulse.health() IS
'one row per pipeline, in one word:
ok (less than 10 s behind; with a reason when only dead letters cannot be forwarded, or retention drops nothing); catching_up (behind, more is written than arrives; also while starting); lagging (behind and not getting nearer);
stalled (records wait in some partition and none was committed for 30 s, or it or one of its partitions is retrying: reason names it); backpressured (max_queue_depth records or more are read but not written);
stopped (paused, stopped by an operator or the breaker, no brokers set, a standby); error (failed, offset_lost, topic_changed, quarantined: somebody must act).
since: when that began, as far as it is known. Lag is as of the last look at the broker (pulse.stat_partition.watermarks_at)';

CREATE VIEW pulse.top AS
SELECT lines.pipeline, lines.item, lines.state, round(lines.per_second::numeric) AS per_second, lines.lag,
       round(lines.lag_seconds::numeric, 1) AS lag_seconds, lines.rows, lines.rejects,
       round(extract(epoch FROM clock_timestamp() - lines.last_commit_at), 1) AS commit_age, lines.note
  FROM (
       SELECT p.pipeline, 0 AS rank, NULL::bigint AS place, 'pipeline' AS item,
              CASE WHEN h.status = p.state THEN p.state ELSE h.status || ' (' || p.state || ')' END AS state,
              p.records_per_second AS per_second, p.lag, p.lag_seconds, p.rows, p.rejects,
              p.last_batch_at AS last_commit_at, h.reason AS note
         FROM pulse.stat_pipeline p JOIN pulse.health() h USING (pipeline)
        UNION ALL
       SELECT w.pipeline, 1, w.worker, format('  worker %s pid %s', w.worker, w.pid), w.state || ', ' || w.phase, w.records_per_second,
              w.queue_records, NULL, w.rows, w.rejects, w.last_commit_at,
              coalesce(w.reason, format('commit p50 %s ms, p99 %s ms', round(w.commit_p50_ms::numeric, 1), round(w.commit_p99_ms::numeric, 1)))
         FROM pulse.stat_worker w
        UNION ALL
       SELECT t.pipeline, 2, t.place, format('  %s/%s', t.topic, t.partition), t.state, t.arrivals_per_second, t.lag, t.lag_seconds,
              t.rows, t.rejects, t.last_commit_at, t.reason
         FROM (SELECT s.*, row_number() OVER (PARTITION BY s.pipeline ORDER BY s.reason IS NULL, s.lag DESC NULLS LAST, s.topic, s.partition) AS place
                 FROM pulse.stat_partition s) t
        WHERE t.place <= 5) lines
 ORDER BY lines.pipeline, lines.rank, lines.place;
COMMENT ON VIEW pulse.top IS
'one screen for \watch 1: each pipeline with its health, its workers (lag: records read but not written; rows and rejects since they started) and its five partitions
with trouble or the most lag (per_second: records arriving there). lag in records, lag_seconds and commit_age (since the last commit) in seconds';

CREATE FUNCTION pulse.metrics(name text, OUT events_accepted bigint, OUT events_rejected bigint, OUT dlq_size bigint,
                              OUT queue_depth bigint, OUT throughput_per_second double precision)
    -- DEFINER: monitoring may count dead letters without being allowed to read them.
    LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pulse.pipelines p WHERE p.name = metrics.name) THEN
        RAISE EXCEPTION 'pipeline "%" does not exist', name USING ERRCODE = 'undefined_object';
    END IF;
    SELECT coalesce(sum(t.rows), 0), coalesce(sum(t.rejects), 0) INTO events_accepted, events_rejected
      FROM (SELECT o.rows, o.rejects FROM pulse.offsets o WHERE o.pipeline = metrics.name
             UNION ALL SELECT i.rows, i.rejects FROM pulse.ingests i WHERE i.pipeline = metrics.name) t;
    SELECT coalesce(sum(w.queue_records), 0), coalesce(sum(w.records_per_second), 0) INTO queue_depth, throughput_per_second
      FROM pulse._stat_workers() w WHERE w.pipeline = metrics.name;
    queue_depth := queue_depth + coalesce(pulse._outbox_depth(), 0);
    dlq_size := 0;
    IF NOT pulse._has_letters() THEN
        RETURN;
    END IF;
    SELECT count(*) INTO dlq_size FROM raw.dlq d WHERE d.pipeline = metrics.name AND d.status = 'new';
END
$$;
COMMENT ON FUNCTION pulse.metrics(text) IS
'one row: events_accepted (rows written) and events_rejected (dead letters written) since the pipeline was created, dlq_size (letters with status new: counted),
queue_depth (records of the pipeline read but not committed, and those of pulse.produce not sent), throughput_per_second (records over the last 10 s). Errors: 42704';
