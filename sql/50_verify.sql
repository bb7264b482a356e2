-- Proof: the ledger of pulse.offsets against the rows that are there.

CREATE FUNCTION pulse.verify(name text, OUT what text, OUT topic text, OUT partition int, OUT expected bigint,
                             OUT found bigint, OUT ok boolean)
    RETURNS SETOF record
    -- STABLE: every query in it sees the snapshot of the calling query, so it is right while events flow.
    LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    pipeline_row pulse.pipelines;
    has_position boolean;
    has_time boolean;
    has_key boolean;
    others boolean;
    wanted text;
    kind text;
BEGIN
    SELECT * INTO pipeline_row FROM pulse.pipelines p WHERE p.name = verify.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'pipeline "%" does not exist', name USING ERRCODE = 'undefined_object';
    END IF;
    SELECT count(*) FILTER (WHERE c IN ('kafka_topic', 'kafka_partition', 'kafka_offset')) = 3,
           count(*) FILTER (WHERE c IN ('event_type', 'event_timestamp')) = 2
      INTO has_position, has_time FROM unnest(pipeline_row.columns) c;
    others := EXISTS (SELECT FROM pulse.pipelines p WHERE p.target = pipeline_row.target AND p.name <> verify.name);

    RETURN QUERY
    SELECT 'records accounted for', o.topic, o.partition, o.records, o.rows + o.duplicates + o.rejects + o.filtered,
           o.records = o.rows + o.duplicates + o.rejects + o.filtered
      FROM pulse.offsets o WHERE o.pipeline = verify.name ORDER BY o.topic, o.partition;

    IF has_position AND NOT others THEN
        RETURN QUERY EXECUTE format($q$
            SELECT 'rows in the target', o.topic, o.partition, o.rows, coalesce(t.rows, 0), o.rows = coalesce(t.rows, 0)
              FROM pulse.offsets o
              LEFT JOIN (SELECT kafka_topic, kafka_partition, count(*) AS rows FROM %1$s GROUP BY 1, 2) t
                ON t.kafka_topic = o.topic AND t.kafka_partition = o.partition
             WHERE o.pipeline = $1 ORDER BY 2, 3 $q$, pipeline_row.target) USING name;
        RETURN QUERY EXECUTE format($q$
            SELECT 'rows at or after next_offset', o.topic, o.partition, 0::bigint, coalesce(t.rows, 0), coalesce(t.rows, 0) = 0
              FROM pulse.offsets o
              LEFT JOIN (SELECT e.kafka_topic, e.kafka_partition, count(*) AS rows FROM %1$s e
                           JOIN pulse.offsets p ON p.pipeline = $1 AND p.topic = e.kafka_topic
                            AND p.partition = e.kafka_partition
                          WHERE e.kafka_offset >= p.highest_offset GROUP BY 1, 2) t
                ON t.kafka_topic = o.topic AND t.kafka_partition = o.partition
             WHERE o.pipeline = $1 ORDER BY 2, 3 $q$, pipeline_row.target) USING name;
        RETURN QUERY EXECUTE format($q$
            SELECT 'records stored twice', NULL::text, NULL::int, 0::bigint, count(*), count(*) = 0
              FROM (SELECT 1 FROM %1$s WHERE kafka_offset IS NOT NULL
                     GROUP BY kafka_topic, kafka_partition, kafka_offset HAVING count(*) > 1) t $q$,
            pipeline_row.target);
        RETURN QUERY EXECUTE format($q$
            SELECT 'rows that are dead letters too', NULL::text, NULL::int, 0::bigint, count(*), count(*) = 0
              FROM raw.dlq d JOIN %1$s e ON e.kafka_topic = d.kafka_topic AND e.kafka_partition = d.kafka_partition
               AND e.kafka_offset = d.kafka_offset
             WHERE d.pipeline = $1 AND d.status = 'new' $q$, pipeline_row.target) USING name;
    ELSE
        -- NULL: neither right nor wrong. It needs kafka_topic, kafka_partition and kafka_offset, and a
        -- target that no other pipeline writes.
        RETURN QUERY SELECT 'rows in the target: cannot be told apart', NULL::text, NULL::int, NULL::bigint,
                            NULL::bigint, NULL::boolean;
    END IF;

    RETURN QUERY EXECUTE $q$
        SELECT 'dead letters', o.topic, o.partition, o.rejects, coalesce(d.letters, 0), o.rejects = coalesce(d.letters, 0)
          FROM pulse.offsets o
          LEFT JOIN (SELECT kafka_topic, topic_epoch, kafka_partition, count(*) AS letters FROM raw.dlq
                      WHERE pipeline = $1 GROUP BY 1, 2, 3) d
            ON d.kafka_topic = o.topic AND d.kafka_partition = o.partition AND d.topic_epoch = o.topic_epoch
         WHERE o.pipeline = $1 ORDER BY 2, 3 $q$ USING name;

    RETURN QUERY
    SELECT 'gaps accepted', g.topic, g.partition, count(*), count(*), true
      FROM pulse.gaps g WHERE g.pipeline = verify.name GROUP BY g.topic, g.partition ORDER BY 2, 3;

    wanted := ',' || replace(coalesce(pipeline_row.settings ->> 'counters', current_setting('pulse.counters')), ' ', '') || ',';
    IF has_time AND NOT others THEN
        FOREACH kind IN ARRAY ARRAY['minute', 'hour', 'day'] LOOP
            CONTINUE WHEN wanted NOT LIKE '%,' || kind || ',%';
            RETURN QUERY EXECUTE format($q$
                SELECT 'counters per %2$s', NULL::text, NULL::int, coalesce(sum(r.count), 0)::bigint,
                       coalesce(sum(c.count), 0)::bigint,
                       count(*) FILTER (WHERE r.count IS DISTINCT FROM c.count) = 0
                  FROM (SELECT date_trunc(%2$L, event_timestamp) AS bucket, event_type, count(*) AS count
                          FROM %1$s GROUP BY 1, 2) r
                  FULL JOIN (SELECT bucket, event_type, sum(count)::bigint AS count FROM live._events_%2$s
                              WHERE pipeline = $1 GROUP BY 1, 2) c USING (bucket, event_type) $q$,
                pipeline_row.target, kind) USING name;
        END LOOP;
        IF wanted LIKE '%,user_day,%' AND 'user_id' = ANY (pipeline_row.columns) THEN
            RETURN QUERY EXECUTE format($q$
                SELECT 'counters per user_day', NULL::text, NULL::int, coalesce(sum(r.count), 0)::bigint,
                       coalesce(sum(c.count), 0)::bigint,
                       count(*) FILTER (WHERE r.count IS DISTINCT FROM c.count) = 0
                  FROM (SELECT (event_timestamp AT TIME ZONE 'UTC')::date AS day, user_id, event_type, count(*) AS count
                          FROM %1$s GROUP BY 1, 2, 3) r
                  FULL JOIN (SELECT day, user_id, event_type, sum(count)::bigint AS count FROM live._user_day
                              WHERE pipeline = $1 GROUP BY 1, 2, 3) c USING (day, user_id, event_type) $q$,
                pipeline_row.target) USING name;
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION pulse.verify(text) IS
'the ledger against the tables, in one snapshot, also while events flow: every row with ok = false is a broken promise (or a change made by users). Reads the whole target. Errors: 42704';
