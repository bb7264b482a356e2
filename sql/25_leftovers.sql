-- What is left of earlier pipelines: offsets that drop_pipeline kept, rows in the target and dead letters
-- after DROP EXTENSION. Without it a new pipeline would take old rows for a difference, a letter's record
-- for a new one, and a recreated topic for the old one.
--
-- Functions that write pulse's own tables run as the owner of the extension; whatever reads the target
-- runs as the caller, for it may be anybody's table. raw.dlq and live.* they touch only when they are not a stranger's:
-- who may call them need not be who may create_pipeline, which looks at the owners first.

CREATE FUNCTION pulse._record_crc(key bytea, value bytea) RETURNS bigint
    LANGUAGE c IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pulse_record_crc';
COMMENT ON FUNCTION pulse._record_crc(bytea, bytea) IS 'CRC-32C of a record, as in pulse.offsets.fp_crc';

CREATE FUNCTION pulse._require_table(target text) RETURNS void
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (SELECT c.relkind FROM pg_class c WHERE c.oid = to_regclass(target)) NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is no table any more', target USING ERRCODE = 'wrong_object_type',
            HINT = 'A view or a foreign table would run what its owner wrote with the rights of whoever reads it.';
    END IF;
END
$$;
COMMENT ON FUNCTION pulse._require_table(text) IS
'raises 42809 when a target has become something that runs code when it is read; one that is gone is reported by the query';

CREATE FUNCTION pulse._keep_offsets(name text) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Statements of their own, for the next one to see what they waited for: no partition begins any more, and the batch
    -- in flight has committed.
    PERFORM FROM pulse.pipelines p WHERE p.name = _keep_offsets.name FOR UPDATE;
    PERFORM FROM pulse.offsets o WHERE o.pipeline = _keep_offsets.name ORDER BY o.topic, o.partition FOR UPDATE;
    INSERT INTO pulse._leftovers (pipeline, topic, partition, target, topic_epoch, highest_offset, fp_offset,
                                  fp_timestamp, fp_crc)
    SELECT o.pipeline, o.topic, o.partition, p.target, o.topic_epoch, greatest(o.highest_offset, o.next_offset),
           o.fp_offset, o.fp_timestamp, o.fp_crc
      FROM pulse.offsets o JOIN pulse.pipelines p ON p.name = o.pipeline WHERE o.pipeline = _keep_offsets.name
    ON CONFLICT ON CONSTRAINT _leftovers_pkey DO UPDATE
       SET target = EXCLUDED.target, topic_epoch = EXCLUDED.topic_epoch, highest_offset = EXCLUDED.highest_offset,
           fp_offset = EXCLUDED.fp_offset, fp_timestamp = EXCLUDED.fp_timestamp, fp_crc = EXCLUDED.fp_crc;
END
$$;
COMMENT ON FUNCTION pulse._keep_offsets(text) IS 'for drop_pipeline: what a pipeline of this name should know when it is created again';

CREATE FUNCTION pulse._adopt_ingested(name text, rows bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    letters bigint;
BEGIN
    PERFORM pulse._require_own('raw.dlq');
    EXECUTE 'SELECT count(*) FROM raw.dlq d WHERE d.pipeline = $1 AND d.kafka_topic IS NULL' INTO letters USING name;
    INSERT INTO pulse.ingests (pipeline, writer, adopted_rows, adopted_letters)
    SELECT name, -1, _adopt_ingested.rows, letters WHERE _adopt_ingested.rows > 0 OR letters > 0;
END
$$;
COMMENT ON FUNCTION pulse._adopt_ingested(text, bigint) IS 'for create_pipeline: rows and letters of no topic that are there already';

CREATE FUNCTION pulse._adopt_letters(name text) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pulse._require_own('raw.dlq');
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
    EXECUTE $q$
        INSERT INTO pulse._set_aside (pipeline, topic, topic_epoch, partition, at_offset, error_code, message)
        SELECT $1, d.kafka_topic, d.topic_epoch, d.kafka_partition, d.kafka_offset, d.error_code, coalesce(d.error_message, '')
          FROM raw.dlq d WHERE d.pipeline = $1 AND d.error_code IN ('quarantined', 'skipped')
           AND d.kafka_topic IS NOT NULL AND d.kafka_partition IS NOT NULL AND d.kafka_offset IS NOT NULL
        ON CONFLICT DO NOTHING $q$ USING name;
END
$$;
COMMENT ON FUNCTION pulse._adopt_letters(text) IS
'for create_pipeline: counts the dead letters of earlier pipelines of this name; what was quarantined or skipped stays so, undecoded';

CREATE FUNCTION pulse._adopt_rows(name text, found jsonb) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        INSERT INTO pulse._leftovers AS l (pipeline, topic, partition, highest_offset, rows, fp_offset, fp_timestamp)
        SELECT _adopt_rows.name, f.topic, f.partition, coalesce(f.newest[1] + 1, 0), f.rows, f.newest[1], f.newest[2]
          FROM jsonb_to_recordset(_adopt_rows.found) f(topic text, partition int, rows bigint, newest bigint[])
        ON CONFLICT (pipeline, topic, partition) DO UPDATE
           SET rows = EXCLUDED.rows,
               (highest_offset, fp_offset, fp_timestamp, fp_crc) =
                   (SELECT CASE WHEN is_of_rows THEN greatest(l.highest_offset, EXCLUDED.highest_offset) ELSE l.highest_offset END,
                           CASE WHEN is_better THEN EXCLUDED.fp_offset ELSE l.fp_offset END,
                           CASE WHEN is_better THEN EXCLUDED.fp_timestamp ELSE l.fp_timestamp END,
                           CASE WHEN NOT is_better THEN l.fp_crc END
                      -- Offsets of a topic made again, or of another target, say nothing about these rows.
                      FROM (SELECT l.target IS NULL OR (l.topic_epoch = 0 AND l.target = (
                               SELECT p.target FROM pulse.pipelines p WHERE p.name = _adopt_rows.name)) AS is_of_rows) r,
                   LATERAL (SELECT is_of_rows AND coalesce(EXCLUDED.fp_offset, -1) > coalesce(l.fp_offset, -1) AS is_better) b);
    END;
COMMENT ON FUNCTION pulse._adopt_rows(text, jsonb) IS 'for create_pipeline: the rows per partition that the target holds already';

CREATE FUNCTION pulse._counters_of(unit text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF unit NOT IN ('minute', 'hour', 'day', 'user_day') THEN
        RAISE EXCEPTION 'there are no counters per "%"', unit USING ERRCODE = 'invalid_parameter_value',
            HINT = 'minute, hour, day or user_day.';
    END IF;
    RETURN CASE WHEN unit = 'user_day' THEN '_user_day' ELSE '_events_' || unit END;
END
$$;
COMMENT ON FUNCTION pulse._counters_of(text) IS 'the table in schema live with the counters per unit; raises 22023 for any other word';

-- In one piece, so that live.* never counts an event under two names.
CREATE FUNCTION pulse._adopt_counts(name text, target text, unit text, buckets timestamptz[], event_types text[],
                                    counts bigint[], users text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    counters text := pulse._counters_of(unit);
BEGIN
    PERFORM pulse._require_own('live.' || counters);
    -- Of a name that nothing is known of (the extension was dropped since) nobody could ever take them over.
    EXECUTE format('DELETE FROM live.%I c WHERE c.pipeline = $1 OR NOT EXISTS (SELECT FROM pulse.pipelines p WHERE p.name = c.pipeline) '
                   'AND (NOT EXISTS (SELECT FROM pulse._leftovers l WHERE l.pipeline = c.pipeline) '
                   'OR EXISTS (SELECT FROM pulse._leftovers l WHERE l.pipeline = c.pipeline AND l.target = $2))', counters)
      USING name, target;
    IF unit = 'user_day' THEN
        INSERT INTO live._user_day (day, user_id, event_type, pipeline, slot, count)
        SELECT u.bucket::date, u.user_id, u.event_type, name, 0, u.count
          FROM unnest(buckets, event_types, counts, users) u(bucket, event_type, count, user_id);
    ELSE
        EXECUTE format('INSERT INTO live.%I (bucket, event_type, pipeline, slot, count) SELECT u.bucket, u.event_type, $1, 0, '
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
    counters text := pulse._counters_of(unit);
    found boolean;
BEGIN
    PERFORM pulse._require_own('live.' || counters);
    EXECUTE format('SELECT EXISTS (SELECT FROM live.%I c WHERE c.pipeline = $1)', counters) INTO found USING name;
    RETURN found;
END
$$;
COMMENT ON FUNCTION pulse._has_counts(text, text) IS 'whether live.* counts events of this pipeline';

CREATE FUNCTION pulse._forget_counts(name text, target text, has_rows boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unit text;
BEGIN
    IF has_rows AND NOT EXISTS (SELECT FROM pulse._leftovers l WHERE l.pipeline = _forget_counts.name
                                   AND l.target <> _forget_counts.target) THEN
        RETURN;
    END IF;
    PERFORM pulse._require_own('live._events_minute', 'live._events_hour', 'live._events_day', 'live._user_day');
    FOREACH unit IN ARRAY ARRAY['minute', 'hour', 'day', 'user_day'] LOOP
        EXECUTE format('DELETE FROM live.%I c WHERE c.pipeline = $1', pulse._counters_of(unit)) USING name;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pulse._forget_counts(text, text, boolean) IS
'for create_pipeline: takes counters of this name away when they are of rows in another table, or of rows that are gone';

CREATE FUNCTION pulse._hand_over(name text) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    mine pulse.pipelines;
    heir pulse.pipelines;
    unit text;
    counters text;
    key text;
    bucket text;
BEGIN
    SELECT * INTO mine FROM pulse.pipelines p WHERE p.name = _hand_over.name;
    SELECT * INTO heir FROM pulse.pipelines p WHERE p.target = mine.target AND p.name <> mine.name
     ORDER BY p.created_at, p.name LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- The oldest pipeline of a table has adopted the rows that no living one wrote; others have adopted rows of each other.
    UPDATE pulse.offsets h
       SET adopted_rows = o.rows - o.expired_rows
                        + (SELECT coalesce(sum(r.replayed), 0) FROM pulse.replays r
                            WHERE r.pipeline = mine.name AND r.topic = o.topic AND r.partition = o.partition)
                        + CASE WHEN (mine.created_at, mine.name) < (heir.created_at, heir.name)
                               THEN o.adopted_rows ELSE h.adopted_rows END
      FROM pulse.offsets o
     WHERE h.pipeline = heir.name AND o.pipeline = mine.name AND h.topic = o.topic AND h.partition = o.partition;
    INSERT INTO pulse.ingests AS h (pipeline, writer, adopted_rows)
    SELECT heir.name, -1, coalesce(sum(i.rows - i.expired_rows + CASE WHEN (mine.created_at, mine.name) < (heir.created_at, heir.name)
                                                                    THEN i.adopted_rows ELSE 0 END), 0)
      FROM pulse.ingests i WHERE i.pipeline = mine.name HAVING count(*) > 0
    ON CONFLICT (pipeline, writer) DO UPDATE
       SET adopted_rows = EXCLUDED.adopted_rows + CASE WHEN (mine.created_at, mine.name) < (heir.created_at, heir.name)
                                                       THEN 0 ELSE h.adopted_rows END;
    PERFORM pulse._require_own('live._events_minute', 'live._events_hour', 'live._events_day', 'live._user_day');
    -- In the order of a batch. Of days that retention dropped nobody counts again: those stay as they are.
    LOCK TABLE live._events_minute, live._events_hour, live._events_day, live._user_day IN SHARE ROW EXCLUSIVE MODE;
    FOREACH unit IN ARRAY ARRAY['minute', 'hour', 'day', 'user_day'] LOOP
        counters := pulse._counters_of(unit);
        bucket := CASE WHEN unit = 'user_day' THEN 'day' ELSE 'bucket' END;
        key := CASE WHEN unit = 'user_day' THEN 'day, user_id, event_type' ELSE 'bucket, event_type' END;
        EXECUTE format($q$
            WITH handed AS (DELETE FROM live.%1$I WHERE pipeline = $1 AND %3$s >= coalesce($3, '-infinity') RETURNING *)
            INSERT INTO live.%1$I AS c (%2$s, pipeline, slot, count)
            SELECT %2$s, $2, 0, sum(count) FROM handed GROUP BY %2$s
            ON CONFLICT (%2$s, pipeline, slot) DO UPDATE SET count = c.count + EXCLUDED.count $q$, counters, key, bucket)
          USING mine.name, heir.name, mine.retained_from;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pulse._hand_over(text) IS
'for drop_pipeline: rows and counters of a table that another pipeline writes too become those that it found there, so that its verify adds up';

CREATE FUNCTION pulse._recreated(name text, OUT topic text, OUT partition int, OUT since timestamptz) RETURNS SETOF record
    LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pulse._require_own('raw.dlq');
    RETURN QUERY EXECUTE $q$
        SELECT l.topic, l.partition, min(d.first_seen_at) FROM pulse._leftovers l
          JOIN raw.dlq d ON d.pipeline = l.pipeline AND d.kafka_topic = l.topic AND d.kafka_partition = l.partition
           AND d.topic_epoch = l.topic_epoch
         WHERE l.pipeline = $1 AND l.topic_epoch > 0 GROUP BY 1, 2 $q$ USING name;
END
$$;
COMMENT ON FUNCTION pulse._recreated(text) IS 'for create_pipeline: partitions whose dead letters tell of a recreated topic';

CREATE FUNCTION pulse._is_counted(target text, by_user boolean DEFAULT false) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pulse_is_counted';
COMMENT ON FUNCTION pulse._is_counted(text, boolean) IS
'whether workers keep live counters of the rows of this table, by_user: also per user. Errors: 42P01';

-- Reads the target once for the ledger, and once more for each kind of counter that is missing.
CREATE FUNCTION pulse._adopt(name text, target text, columns text[], wanted text, has_rows boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    found jsonb;
    newest text;
    unit text;
    ingested bigint;
    buckets timestamptz[];
    event_types text[];
    counts bigint[];
    users text[];
BEGIN
    PERFORM pulse._adopt_letters(name);
    IF has_rows OR has_table_privilege(target, 'SELECT') THEN
        PERFORM pulse._forget_counts(name, target, has_rows);
    END IF;
    IF NOT has_rows OR NOT columns @> ARRAY['kafka_topic', 'kafka_partition', 'kafka_offset'] THEN
        PERFORM pulse._adopt_ingested(name, 0);
    END IF;
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
        EXECUTE format('SELECT count(*) FROM %s e WHERE e.kafka_topic IS NULL', target) INTO ingested;
        PERFORM pulse._adopt_ingested(name, ingested);
    END IF;
    IF NOT pulse._is_counted(target) OR EXISTS (
            SELECT FROM pulse.pipelines p WHERE p.target = _adopt.target AND p.name <> _adopt.name) THEN
        RETURN;
    END IF;
    FOREACH unit IN ARRAY string_to_array(replace(wanted, ' ', ''), ',') LOOP
        CONTINUE WHEN unit NOT IN ('minute', 'hour', 'day', 'user_day') OR pulse._has_counts(name, unit)
                   OR (unit = 'user_day' AND NOT pulse._is_counted(target, true));
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
