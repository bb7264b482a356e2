-- What the sender does: dead letters and produced records on their way to Kafka. Shared memory and tables only.

CREATE FUNCTION pulse._stat_sends(
    OUT source text, OUT pipeline text, OUT topic text, OUT pid int, OUT state text, OUT reason text, OUT hint text,
    OUT since timestamptz, OUT next_retry_at timestamptz, OUT sent bigint, OUT refused bigint, OUT in_flight bigint,
    OUT last_sent_at timestamptz)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_stat_sends';
COMMENT ON FUNCTION pulse._stat_sends() IS 'what the sender says of each of its streams';

CREATE FUNCTION pulse._sender_trouble(OUT state text, OUT reason text, OUT hint text, OUT since timestamptz)
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_sender_trouble';
COMMENT ON FUNCTION pulse._sender_trouble() IS 'why the process that sends is wanted and is not there, or does not get on; NULL = nothing is wrong';

-- Whoever may create schemas could have made a view raw.dlq, with functions that would run as the reader.
CREATE FUNCTION pulse._has_letters() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_extension e ON e.extname = 'pulse'
                    WHERE n.nspname = 'raw' AND c.relname = 'dlq' AND c.relkind IN ('r', 'p')
                      AND c.relowner = e.extowner AND n.nspowner = e.extowner);
COMMENT ON FUNCTION pulse._has_letters() IS 'true when raw.dlq is a table that belongs to the owner of the extension; else nothing of pulse reads it by itself';

CREATE FUNCTION pulse._waiting_letters(pipeline text, OUT waiting bigint, OUT postponed bigint, OUT oldest timestamptz)
    -- DEFINER: monitoring may count dead letters without being allowed to read them.
    LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pulse._has_letters() THEN
        waiting := 0; postponed := 0;
        RETURN;
    END IF;
    SELECT count(*), count(d.forward_after) INTO waiting, postponed
      FROM raw.dlq d WHERE d.pipeline = _waiting_letters.pipeline AND d.forwarded_at IS NULL;
    IF waiting > 0 THEN
        SELECT least((SELECT d.first_seen_at FROM raw.dlq d WHERE d.pipeline = _waiting_letters.pipeline AND d.forwarded_at IS NULL
                         AND d.forward_after IS NULL ORDER BY d.forward_after, d.dlq_id LIMIT 1),
                     (SELECT min(d.first_seen_at) FROM raw.dlq d WHERE d.pipeline = _waiting_letters.pipeline
                         AND d.forwarded_at IS NULL AND d.forward_after > '-infinity')) INTO oldest;
    END IF;
END
$$;
COMMENT ON FUNCTION pulse._waiting_letters(text) IS
'how many letters of a pipeline are not forwarded, how many of them Kafka refused, and when the oldest was first seen';

CREATE FUNCTION pulse._forward_trouble(pipeline text, OUT reason text, OUT hint text, OUT since timestamptz)
    LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT format('dead letters are not forwarded to topic "%s": %s', s.topic, s.reason), s.hint, s.since INTO reason, hint, since
      FROM pulse._stat_sends() s JOIN pulse.pipelines p ON p.name = s.pipeline
     WHERE s.source = 'dead letters' AND s.pipeline = _forward_trouble.pipeline AND s.reason IS NOT NULL
       AND s.topic = coalesce(p.settings ->> 'dlq_topic', current_setting('pulse.dlq_topic'))
       AND (SELECT w.waiting FROM pulse._waiting_letters(p.name) w) > 0;
    IF reason IS NULL THEN
        SELECT format('dead letters are not forwarded: %s', t.reason), t.hint, t.since INTO reason, hint, since
          FROM pulse._sender_trouble() t JOIN pulse.pipelines p ON p.name = _forward_trouble.pipeline
         WHERE t.reason IS NOT NULL AND coalesce(p.settings ->> 'dlq_topic', current_setting('pulse.dlq_topic')) <> ''
           AND (SELECT w.waiting FROM pulse._waiting_letters(p.name) w) > 0;
    END IF;
    IF reason IS NULL AND pulse._has_letters() THEN
        SELECT format('dead letter %s is not forwarded: %s', d.dlq_id, d.forward_error),
               'pulse.dlq_show tells more; it is tried again at least every hour. Others go on.', d.first_seen_at INTO reason, hint, since
          FROM raw.dlq d WHERE d.pipeline = _forward_trouble.pipeline AND d.forwarded_at IS NULL AND d.forward_after > '-infinity'
         ORDER BY d.forward_after LIMIT 1;
    END IF;
END
$$;
COMMENT ON FUNCTION pulse._forward_trouble(text) IS 'why dead letters of a pipeline do not reach their topic, and what to do; NULL = nothing is wrong';

CREATE FUNCTION pulse._outbox_depth() RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'pulse_outbox_depth';
COMMENT ON FUNCTION pulse._outbox_depth() IS 'how many committed rows of pulse.outbox are not sent, from the counter in shared memory; NULL where pulse is not preloaded';

CREATE VIEW pulse.stat_sender AS
SELECT p.source, p.pipeline, p.topic, s.pid,
       CASE WHEN current_setting('pulse.brokers', true) = '' OR p.waiting = 0 THEN 'idle'
            WHEN t.reason IS NOT NULL THEN t.state
            WHEN s.state IS NULL OR s.state = 'idle' AND p.waiting > p.postponed THEN 'starting'
            ELSE s.state END AS state,
       CASE WHEN current_setting('pulse.brokers', true) = '' THEN 'pulse.brokers is not set'
            WHEN p.waiting > 0 THEN coalesce(t.reason, s.reason) END AS reason,
       CASE WHEN current_setting('pulse.brokers', true) = '' THEN 'Name the Kafka brokers there and reload.'
            WHEN p.waiting > 0 THEN CASE WHEN t.reason IS NULL THEN s.hint ELSE t.hint END END AS hint,
       s.since, s.next_retry_at, p.waiting, p.postponed, p.oldest AS oldest_waiting_at,
       coalesce(s.in_flight, 0) AS in_flight, coalesce(s.sent, 0) AS sent, coalesce(s.refused, 0) AS refused, s.last_sent_at
  FROM (SELECT 'dead letters' AS source, l.name AS pipeline, l.topic, w.waiting, w.postponed, w.oldest
          FROM (SELECT name, coalesce(settings ->> 'dlq_topic', current_setting('pulse.dlq_topic', true)) AS topic FROM pulse.pipelines) l
         CROSS JOIN LATERAL pulse._waiting_letters(l.name) w WHERE l.topic <> ''
         UNION ALL
        SELECT 'produce', NULL, coalesce(o.topic, t.topic), coalesce(o.waiting, 0), coalesce(o.postponed, 0), o.oldest
          FROM (SELECT topic, count(*) AS waiting, count(send_after) AS postponed, min(queued_at) AS oldest
                  FROM pulse.outbox WHERE sent_at IS NULL GROUP BY topic) o
          FULL JOIN (SELECT topic FROM pulse._stat_sends() WHERE source = 'produce') t ON t.topic = o.topic) p
  LEFT JOIN pulse._stat_sends() s ON s.source = p.source AND s.pipeline IS NOT DISTINCT FROM p.pipeline AND s.topic = p.topic
 CROSS JOIN pulse._sender_trouble() t;
COMMENT ON VIEW pulse.stat_sender IS
'what goes to Kafka: a row per pipeline whose dead letters are forwarded (dlq_topic) and per topic of pulse.produce. state (idle: nothing to send;
starting, running, retrying with reason, hint and next_retry_at; failed: the pipeline reads that topic itself), records waiting (counted), how many of them Kafka
refused for themselves (postponed; the letter or the row of pulse.outbox says why), since when the oldest waits, records handed to Kafka and not
confirmed (in_flight), sent and refused since the server started';
