-- Proof: the ledger of pulse.offsets against the rows that are there.

CREATE FUNCTION pulse._retained_from(name text) RETURNS timestamptz
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE -- VOLATILE: with a snapshot of its own
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT p.retained_from FROM pulse.pipelines p WHERE p.name = _retained_from.name);
END
$$;
COMMENT ON FUNCTION pulse._retained_from(text) IS 'what is committed at this moment, not at the begin of the query';

CREATE FUNCTION pulse.verify(name text, OUT what text, OUT topic text, OUT partition int, OUT expected bigint,
                             OUT found bigint, OUT ok boolean)
    RETURNS SETOF record
    -- STABLE: every query in it sees the snapshot of the calling query, so it is right while events flow.
    LANGUAGE plpgsql STABLE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    pipeline_row pulse.pipelines;
    has_position boolean;
    has_time boolean;
    has_key boolean;
    others boolean;
    same_epoch text; -- of row e and offsets o
    same_record text; -- of row e and letter d, which have the same offset
    wanted text;
    kept timestamptz; -- counters from here on have all their rows
    kind text;
BEGIN
    PERFORM pulse._require('name', name IS NOT NULL);
    SELECT * INTO pipeline_row FROM pulse.pipelines p WHERE p.name = verify.name;
    IF NOT FOUND THEN
        PERFORM pulse._refuse_unknown(name);
    END IF;
    PERFORM pulse._require_table(pipeline_row.target);
    -- A dropped partition is gone in every snapshot, also in those of before: the ledger must know of it. Reading the
    -- table keeps the next one from going.
    EXECUTE format('SELECT FROM %s LIMIT 0', pipeline_row.target);
    IF pulse._retained_from(name) IS DISTINCT FROM pipeline_row.retained_from THEN
        RAISE EXCEPTION 'retention dropped a partition since the snapshot of this query' USING ERRCODE = 'serialization_failure',
            HINT = 'Call it again.';
    END IF;
    SELECT count(*) FILTER (WHERE c IN ('kafka_topic', 'kafka_partition', 'kafka_offset')) = 3,
           pulse._is_counted(pipeline_row.target)
      INTO has_position, has_time FROM unnest(pipeline_row.columns) c;
    -- A topic made again has its offsets again. Without a column for the epoch the broker's timestamp tells them apart.
    same_epoch := CASE WHEN 'topic_epoch' = ANY (pipeline_row.columns) THEN 'e.topic_epoch = o.topic_epoch'
                       ELSE 'o.topic_epoch = 0' END;
    same_record := CASE WHEN 'topic_epoch' = ANY (pipeline_row.columns) THEN 'e.topic_epoch = d.topic_epoch'
                        WHEN 'kafka_timestamp' = ANY (pipeline_row.columns)
                        THEN 'e.kafka_timestamp IS NOT DISTINCT FROM d.kafka_timestamp'
                        ELSE 'NOT EXISTS (SELECT FROM pulse.offsets o WHERE o.pipeline = d.pipeline AND o.topic = d.kafka_topic'
                             ' AND o.partition = d.kafka_partition AND o.topic_epoch > 0)' END;
    others := EXISTS (SELECT FROM pulse.pipelines p WHERE p.target = pipeline_row.target AND p.name <> verify.name);

    RETURN QUERY
    SELECT 'records accounted for', o.topic, o.partition, o.records, o.rows + o.duplicates + o.rejects + o.filtered,
           o.records = o.rows + o.duplicates + o.rejects + o.filtered
      FROM pulse.offsets o WHERE o.pipeline = verify.name ORDER BY o.topic, o.partition;

    IF has_position AND NOT others THEN
        RETURN QUERY EXECUTE format($q$
            SELECT 'rows in the target', o.topic, o.partition, o.rows + o.adopted_rows + coalesce(r.rows, 0) - o.expired_rows,
                   coalesce(t.rows, 0),
                   o.rows + o.adopted_rows + coalesce(r.rows, 0) - o.expired_rows = coalesce(t.rows, 0)
              FROM pulse.offsets o
              LEFT JOIN (SELECT topic, partition, sum(replayed)::bigint AS rows FROM pulse.replays
                          WHERE pipeline = $1 GROUP BY 1, 2) r
                ON r.topic = o.topic AND r.partition = o.partition
              LEFT JOIN (SELECT kafka_topic, kafka_partition, count(*) AS rows FROM %1$s GROUP BY 1, 2) t
                ON t.kafka_topic = o.topic AND t.kafka_partition = o.partition
             WHERE o.pipeline = $1 ORDER BY 2, 3 $q$, pipeline_row.target) USING name;
        RETURN QUERY EXECUTE format($q$
            SELECT 'rows at or after next_offset', o.topic, o.partition, 0::bigint, coalesce(t.rows, 0), coalesce(t.rows, 0) = 0
              FROM pulse.offsets o
              LEFT JOIN (SELECT e.kafka_topic, e.kafka_partition, count(*) AS rows FROM %1$s e
                           JOIN pulse.offsets o ON o.pipeline = $1 AND o.topic = e.kafka_topic
                            AND o.partition = e.kafka_partition
                          WHERE e.kafka_offset >= o.highest_offset AND %2$s GROUP BY 1, 2) t
                ON t.kafka_topic = o.topic AND t.kafka_partition = o.partition
             WHERE o.pipeline = $1 ORDER BY 2, 3 $q$, pipeline_row.target, same_epoch) USING name;
        RETURN QUERY EXECUTE format($q$
            SELECT 'records stored twice', NULL::text, NULL::int, 0::bigint, count(*), count(*) = 0
              FROM (SELECT e.kafka_topic, e.kafka_partition, count(*) AS times FROM %1$s e WHERE e.kafka_offset IS NOT NULL
                     GROUP BY e.kafka_topic, e.kafka_partition, e.kafka_offset, %2$s HAVING count(*) > 1) t
              LEFT JOIN pulse.offsets o ON o.pipeline = $1 AND o.topic = t.kafka_topic AND o.partition = t.kafka_partition
             WHERE t.times > 1 + %3$s $q$, pipeline_row.target,
            CASE WHEN 'topic_epoch' = ANY (pipeline_row.columns) THEN 'e.topic_epoch' ELSE '()' END,
            CASE WHEN 'topic_epoch' = ANY (pipeline_row.columns) THEN '0' ELSE 'coalesce(o.topic_epoch, 0)' END)
            USING name;
        RETURN QUERY EXECUTE format($q$
            SELECT 'rows ingested', NULL::text, NULL::int, i.rows, t.rows, i.rows = t.rows
              FROM (SELECT coalesce(sum(rows + adopted_rows - expired_rows), 0)::bigint AS rows FROM pulse.ingests WHERE pipeline = $1) i,
                   (SELECT count(*) AS rows FROM %1$s WHERE kafka_topic IS NULL) t
             WHERE i.rows <> 0 OR t.rows <> 0 $q$, pipeline_row.target) USING name;
        RETURN QUERY EXECUTE format($q$
            SELECT 'rows that are dead letters too', NULL::text, NULL::int, 0::bigint, count(*), count(*) = 0
              FROM raw.dlq d JOIN %1$s e ON e.kafka_topic = d.kafka_topic AND e.kafka_partition = d.kafka_partition
               AND e.kafka_offset = d.kafka_offset AND %2$s
             WHERE d.pipeline = $1 AND d.status IN ('new', 'parked') $q$, pipeline_row.target, same_record) USING name;
    ELSE
        -- NULL: neither right nor wrong. It needs kafka_topic, kafka_partition and kafka_offset, and a
        -- target that no other pipeline writes.
        RETURN QUERY SELECT 'rows in the target: cannot be told apart', NULL::text, NULL::int, NULL::bigint,
                            NULL::bigint, NULL::boolean;
    END IF;

    RETURN QUERY EXECUTE $q$
        SELECT 'dead letters', o.topic, o.partition, o.rejects + o.adopted_letters - coalesce(r.purged, 0),
               coalesce(d.letters, 0), o.rejects + o.adopted_letters - coalesce(r.purged, 0) = coalesce(d.letters, 0)
          FROM pulse.offsets o
          LEFT JOIN (SELECT topic, partition, sum(purged)::bigint AS purged FROM pulse.replays
                      WHERE pipeline = $1 GROUP BY 1, 2) r
            ON r.topic = o.topic AND r.partition = o.partition
          LEFT JOIN (SELECT kafka_topic, kafka_partition, count(*) AS letters FROM raw.dlq
                      WHERE pipeline = $1 GROUP BY 1, 2) d
            ON d.kafka_topic = o.topic AND d.kafka_partition = o.partition
         WHERE o.pipeline = $1 ORDER BY 2, 3 $q$ USING name;

    RETURN QUERY EXECUTE $q$
        SELECT 'dead letters ingested', NULL::text, NULL::int, i.letters, d.letters, i.letters = d.letters
          FROM (SELECT coalesce(sum(rejects + adopted_letters - purged_letters), 0)::bigint AS letters FROM pulse.ingests
                 WHERE pipeline = $1) i,
               (SELECT count(*) AS letters FROM raw.dlq WHERE pipeline = $1 AND kafka_topic IS NULL) d
         WHERE i.letters <> 0 OR d.letters <> 0 $q$ USING name;

    RETURN QUERY
    SELECT 'gaps accepted', g.topic, g.partition, count(*), count(*), true
      FROM pulse.gaps g WHERE g.pipeline = verify.name GROUP BY g.topic, g.partition ORDER BY 2, 3;

    wanted := ',' || array_to_string(pulse._counters_kept(pipeline_row.settings), ',') || ',';
    IF has_time AND NOT others THEN
        FOREACH kind IN ARRAY ARRAY['minute', 'hour', 'day'] LOOP
            CONTINUE WHEN wanted NOT LIKE '%,' || kind || ',%';
            kept := date_trunc(kind, coalesce(pipeline_row.retained_from, '-infinity') + ('1 ' || kind)::interval - interval '1 us');
            RETURN QUERY EXECUTE format($q$
                SELECT 'counters per %2$s', NULL::text, NULL::int, coalesce(sum(r.count), 0)::bigint,
                       coalesce(sum(c.count), 0)::bigint,
                       count(*) FILTER (WHERE r.count IS DISTINCT FROM c.count) = 0
                  FROM (SELECT date_trunc(%2$L, event_timestamp) AS bucket, event_type, count(*) AS count
                          FROM %1$s WHERE event_timestamp >= $2 GROUP BY 1, 2) r
                  FULL JOIN (SELECT bucket, event_type, sum(count)::bigint AS count FROM live._events_%2$s
                              WHERE pipeline = $1 AND bucket >= $2 GROUP BY 1, 2) c USING (bucket, event_type) $q$,
                pipeline_row.target, kind) USING name, kept;
        END LOOP;
        kept := date_trunc('day', coalesce(pipeline_row.retained_from, '-infinity') + interval '1 day' - interval '1 us');
        IF wanted LIKE '%,user_day,%' AND pulse._is_counted(pipeline_row.target, true) THEN
            RETURN QUERY EXECUTE format($q$
                SELECT 'counters per user_day', NULL::text, NULL::int, coalesce(sum(r.count), 0)::bigint,
                       coalesce(sum(c.count), 0)::bigint,
                       count(*) FILTER (WHERE r.count IS DISTINCT FROM c.count) = 0
                  FROM (SELECT (event_timestamp AT TIME ZONE 'UTC')::date AS day, user_id, event_type, count(*) AS count
                          FROM %1$s WHERE event_timestamp >= $2 GROUP BY 1, 2, 3) r
                  FULL JOIN (SELECT day, user_id, event_type, sum(count)::bigint AS count FROM live._user_day
                              WHERE pipeline = $1 AND day >= $2::date GROUP BY 1, 2, 3) c USING (day, user_id, event_type) $q$,
                pipeline_row.target) USING name, kept;
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION pulse.verify(text) IS
'the ledger against the tables, in one snapshot, also while events flow: every row with ok = false is a broken promise (or a change made by users). Reads the whole target.
rows in the target = rows + adopted_rows - expired_rows; counters of days that retention dropped are not compared. Errors: 42704, 42809 the target is no table any more, 40001 retention dropped a partition just now (call again)';
