-- What is left of earlier pipelines: offsets that drop_pipeline kept, rows in the target and dead letters
-- after DROP EXTENSION. Without it a new pipeline would take old rows for a difference, a letter's record
-- for a new one, and a recreated topic for the old one.
--
-- Functions that write pulse's own tables run as the owner of the extension; whatever reads the target
-- runs as the caller, for it may be anybody's table.

CREATE FUNCTION pulse._record_crc(key bytea, value bytea) RETURNS bigint
    LANGUAGE c IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pulse_record_crc';
COMMENT ON FUNCTION pulse._record_crc(bytea, bytea) IS 'CRC-32C of a record, as in pulse.offsets.fp_crc';

CREATE FUNCTION pulse._keep_offsets(name text) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        INSERT INTO pulse._leftovers (pipeline, topic, partition, target, topic_epoch, highest_offset, fp_offset,
                                      fp_timestamp, fp_crc)
        SELECT o.pipeline, o.topic, o.partition, p.target, o.topic_epoch, greatest(o.highest_offset, o.next_offset),
               o.fp_offset, o.fp_timestamp, o.fp_crc
          FROM pulse.offsets o JOIN pulse.pipelines p ON p.name = o.pipeline WHERE o.pipeline = _keep_offsets.name
        ON CONFLICT (pipeline, topic, partition) DO UPDATE
           SET target = EXCLUDED.target, topic_epoch = EXCLUDED.topic_epoch, highest_offset = EXCLUDED.highest_offset,
               fp_offset = EXCLUDED.fp_offset, fp_timestamp = EXCLUDED.fp_timestamp, fp_crc = EXCLUDED.fp_crc;
    END;
COMMENT ON FUNCTION pulse._keep_offsets(text) IS 'for drop_pipeline: what a pipeline of this name should know when it is created again';

CREATE FUNCTION pulse._adopt_letters(name text) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM pulse._leftovers l WHERE l.pipeline = _adopt_letters.name AND l.target IS NULL;
    UPDATE pulse._leftovers l SET rows = 0, letters = 0 WHERE l.pipeline = _adopt_letters.name;
    EXECUTE $q$
        WITH newest AS (
            SELECT DISTINCT ON (kafka_topic, kafka_partition) dlq_id,
                   count(*) OVER (PARTITION BY kafka_topic, kafka_partition) AS letters
              FROM raw.dlq WHERE pipeline = $1 AND kafka_topic IS NOT NULL
             ORDER BY kafka_topic, kafka_partition, topic_epoch DESC, kafka_offset DESC)
        INSERT INTO pulse._leftovers AS l (pipeline, topic, partition, topic_epoch, highest_offset, letters, fp_offset,
                                           fp_timestamp, fp_crc)
        SELECT $1, d.kafka_topic, d.kafka_partition, d.topic_epoch, d.kafka_offset + 1, n.letters, d.kafka_offset,
               (extract(epoch FROM d.kafka_timestamp) * 1000)::bigint,
               CASE WHEN d.error_code <> 'too_large_to_fetch' THEN pulse._record_crc(d.kafka_key, d.value) END
          FROM newest n JOIN raw.dlq d USING (dlq_id)
        ON CONFLICT (pipeline, topic, partition) DO UPDATE SET letters = EXCLUDED.letters $q$ USING name;
END
$$;
COMMENT ON FUNCTION pulse._adopt_letters(text) IS 'for create_pipeline: counts the dead letters of earlier pipelines of this name';

CREATE FUNCTION pulse._adopt_rows(name text, found jsonb) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        INSERT INTO pulse._leftovers AS l (pipeline, topic, partition, highest_offset, rows, fp_offset, fp_timestamp)
        SELECT _adopt_rows.name, f.topic, f.partition, coalesce(f.newest[1] + 1, 0), f.rows, f.newest[1], f.newest[2]
          FROM jsonb_to_recordset(_adopt_rows.found) f(topic text, partition int, rows bigint, newest bigint[])
        ON CONFLICT (pipeline, topic, partition) DO UPDATE
           SET rows = EXCLUDED.rows,
               highest_offset = CASE WHEN l.target IS NULL THEN greatest(l.highest_offset, EXCLUDED.highest_offset)
                                     ELSE l.highest_offset END,
               (fp_offset, fp_timestamp, fp_crc) =
                   (SELECT CASE WHEN is_better THEN EXCLUDED.fp_offset ELSE l.fp_offset END,
                           CASE WHEN is_better THEN EXCLUDED.fp_timestamp ELSE l.fp_timestamp END,
                           CASE WHEN NOT is_better THEN l.fp_crc END
                      FROM (SELECT l.target IS NULL AND coalesce(EXCLUDED.fp_offset, -1) > coalesce(l.fp_offset, -1) AS is_better) b);
    END;
COMMENT ON FUNCTION pulse._adopt_rows(text, jsonb) IS 'for create_pipeline: the rows per partition that the target holds already';

-- In one piece, so that live.* never counts an event under two names.
CREATE FUNCTION pulse._adopt_counts(name text, target text, unit text, buckets timestamptz[], event_types text[],
                                    counts bigint[], users text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    counters text := CASE WHEN unit = 'user_day' THEN 'live._user_day' ELSE 'live._events_' || unit END;
BEGIN
    EXECUTE format('DELETE FROM %s c WHERE c.pipeline = $1 OR c.pipeline IN (SELECT l.pipeline FROM '
                   'pulse._leftovers l WHERE l.target = $2 EXCEPT SELECT p.name FROM pulse.pipelines p)', counters)
      USING name, target;
    IF unit = 'user_day' THEN
        INSERT INTO live._user_day (day, user_id, event_type, pipeline, slot, count)
        SELECT u.bucket::date, u.user_id, u.event_type, name, 0, u.count
          FROM unnest(buckets, event_types, counts, users) u(bucket, event_type, count, user_id);
    ELSE
        EXECUTE format('INSERT INTO %s (bucket, event_type, pipeline, slot, count) SELECT u.bucket, u.event_type, $1, 0, '
                       'u.count FROM unnest($2, $3, $4) u(bucket, event_type, count)', counters)
          USING name, buckets, event_types, counts;
    END IF;
END
$$;
COMMENT ON FUNCTION pulse._adopt_counts(text, text, text, timestamptz[], text[], bigint[], text[]) IS
'for create_pipeline: makes the counters of a pipeline those of the rows its target holds';

CREATE FUNCTION pulse._has_counts(name text, unit text) RETURNS boolean
    LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s c WHERE c.pipeline = $1)',
                   CASE WHEN unit = 'user_day' THEN 'live._user_day' ELSE 'live._events_' || unit END)
       INTO found USING name;
    RETURN found;
END
$$;
COMMENT ON FUNCTION pulse._has_counts(text, text) IS 'whether live.* counts events of this pipeline';

CREATE FUNCTION pulse._recreated(name text, OUT topic text, OUT partition int, OUT since timestamptz) RETURNS SETOF record
    LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE $q$
        SELECT l.topic, l.partition, min(d.first_seen_at) FROM pulse._leftovers l
          JOIN raw.dlq d ON d.pipeline = l.pipeline AND d.kafka_topic = l.topic AND d.kafka_partition = l.partition
           AND d.topic_epoch = l.topic_epoch
         WHERE l.pipeline = $1 AND l.topic_epoch > 0 GROUP BY 1, 2 $q$ USING name;
END
$$;
COMMENT ON FUNCTION pulse._recreated(text) IS 'for create_pipeline: partitions whose dead letters tell of a recreated topic';

CREATE FUNCTION pulse._is_counted(target text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    RETURN (SELECT count(*) = 2 FROM pg_attribute a WHERE a.attrelid = to_regclass(target) AND a.attnotnull
               AND a.attname IN ('event_type', 'event_timestamp') AND NOT a.attisdropped);
COMMENT ON FUNCTION pulse._is_counted(text) IS 'whether live counters are kept of the rows of this table';

-- Reads the target once for the ledger, and once more for each kind of counter that is missing.
CREATE FUNCTION pulse._adopt(name text, target text, columns text[], wanted text, has_rows boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    found jsonb;
    newest text;
    unit text;
    buckets timestamptz[];
    event_types text[];
    counts bigint[];
    users text[];
BEGIN
    PERFORM pulse._adopt_letters(name);
    IF NOT has_rows THEN
        RETURN;
    END IF;
    IF columns @> ARRAY['kafka_topic', 'kafka_partition', 'kafka_offset'] THEN
        -- Offsets of a recreated topic begin again: there only rows written since tell how far it was read.
        newest := 'r.topic IS NULL' || CASE WHEN 'ingested_at' = ANY (columns) THEN ' OR e.ingested_at >= r.since' ELSE '' END;
        EXECUTE format($q$
            SELECT coalesce(jsonb_agg(t), '[]') FROM (
                SELECT e.kafka_topic AS topic, e.kafka_partition AS partition, count(*) AS rows,
                       max(ARRAY[e.kafka_offset::bigint, %s]) FILTER (WHERE %s) AS newest
                  FROM %s e LEFT JOIN pulse._recreated($1) r
                    ON r.topic = e.kafka_topic AND r.partition = e.kafka_partition
                 WHERE e.kafka_topic IS NOT NULL AND e.kafka_partition IS NOT NULL AND e.kafka_offset IS NOT NULL
                 GROUP BY 1, 2) t $q$,
            CASE WHEN 'kafka_timestamp' = ANY (columns)
                 THEN '(extract(epoch FROM e.kafka_timestamp) * 1000)::bigint' ELSE 'NULL::bigint' END, newest, target)
           INTO STRICT found USING name;
        PERFORM pulse._adopt_rows(name, found);
    END IF;
    IF NOT pulse._is_counted(target) OR EXISTS (
            SELECT FROM pulse.pipelines p WHERE p.target = _adopt.target AND p.name <> _adopt.name) THEN
        RETURN;
    END IF;
    FOREACH unit IN ARRAY string_to_array(replace(wanted, ' ', ''), ',') LOOP
        CONTINUE WHEN unit NOT IN ('minute', 'hour', 'day', 'user_day') OR pulse._has_counts(name, unit)
                   OR (unit = 'user_day' AND NOT 'user_id' = ANY (columns));
        EXECUTE format($q$
            SELECT array_agg(bucket), array_agg(event_type), array_agg(count), array_agg(user_id) FROM (
                SELECT date_trunc(%L, event_timestamp) AS bucket, event_type, count(*) AS count, %s AS user_id
                  FROM %s GROUP BY 1, 2, 4) t $q$,
            CASE WHEN unit = 'user_day' THEN 'day' ELSE unit END,
            CASE WHEN unit = 'user_day' THEN 'user_id' ELSE 'NULL::text' END, target)
           INTO STRICT buckets, event_types, counts, users;
        PERFORM pulse._adopt_counts(name, target, unit, buckets, event_types, counts, users);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pulse._adopt(text, text, text[], text, boolean) IS
'for create_pipeline: the baseline of the ledger and of the counters, so that verify adds up over rows that are there already';
