-- Functions that change what pulse does. All of them are for the owner of the extension and whoever it
-- grants EXECUTE to (90_privileges.sql).

CREATE FUNCTION pulse._batch() RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_batch';
COMMENT ON FUNCTION pulse._batch() IS 'the batch a worker is writing; an error anywhere else';

CREATE FUNCTION pulse._at_record(record int) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 1 AS 'MODULE_PATHNAME', 'pulse_at_record';
COMMENT ON FUNCTION pulse._at_record(int) IS 'notes which record of the batch is being evaluated';

CREATE FUNCTION pulse._wake() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_wake';
COMMENT ON FUNCTION pulse._wake() IS 'tells launcher and coordinator to look at the tables when this transaction commits';

CREATE FUNCTION pulse._check_setting(name text, value text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_check_setting';
COMMENT ON FUNCTION pulse._check_setting(text, text) IS 'raises 22023 unless a pipeline may have this setting with this value';

CREATE FUNCTION pulse._check_schema(schema text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_check_schema';
COMMENT ON FUNCTION pulse._check_schema(text) IS 'raises 22023, with a JSON pointer, unless events can be judged by this JSON Schema (draft 4)';

CREATE FUNCTION pulse._check_topic(topic text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_check_topic';
COMMENT ON FUNCTION pulse._check_topic(text) IS 'raises 22023 unless the regular expression (POSIX extended) can be used for topics';

CREATE FUNCTION pulse._check_target(name text) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_check_target';
COMMENT ON FUNCTION pulse._check_target(text) IS 'raises unless the pipeline can write its target; true when a unique index tells duplicates, also of records read again';

CREATE FUNCTION pulse._require(argument text, is_given boolean) RETURNS void
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT is_given THEN
        RAISE EXCEPTION '% must not be NULL', argument USING ERRCODE = 'null_value_not_allowed';
    END IF;
END
$$;
COMMENT ON FUNCTION pulse._require(text, boolean) IS 'raises 22004 with the name of an argument that is not given';

CREATE FUNCTION pulse._refuse_unknown(name text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'pipeline "%" does not exist', name USING ERRCODE = 'undefined_object',
        HINT = 'pulse.pipelines lists those there are.';
END
$$;
COMMENT ON FUNCTION pulse._refuse_unknown(text) IS 'raises 42704 for a pipeline that does not exist';

CREATE FUNCTION pulse._check_settings(settings jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    setting record;
BEGIN
    IF jsonb_typeof(settings) <> 'object' THEN
        RAISE EXCEPTION 'settings must be a JSON object' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'For example {"batch_max_rows": 5000, "workers": 2}.';
    END IF;
    FOR setting IN SELECT s.key, s.value, settings ->> s.key AS text_value FROM jsonb_each(settings) s LOOP
        IF setting.key = 'mapping' THEN
            IF jsonb_typeof(setting.value) <> 'object' THEN
                RAISE EXCEPTION 'mapping must be a JSON object, column -> JSON pointer'
                    USING ERRCODE = 'invalid_parameter_value',
                          HINT = 'For example {"mapping": {"price": "/order/price", "first_tag": "/tags/0"}}.';
            END IF;
        ELSIF setting.key = 'schema' THEN
            IF jsonb_typeof(setting.value) NOT IN ('object', 'null') THEN
                RAISE EXCEPTION 'schema must be a JSON Schema, which is an object'
                    USING ERRCODE = 'invalid_parameter_value',
                          HINT = 'For example {"schema": {"properties": {"price": {"type": "number", "minimum": 0}}}}.';
            END IF;
            PERFORM pulse._check_schema(setting.text_value);
        ELSIF setting.key = 'partition_by' THEN
            IF setting.text_value NOT IN ('day', 'hour', 'month', 'none') THEN
                RAISE EXCEPTION 'partition_by must be day, hour, month or none'
                    USING ERRCODE = 'invalid_parameter_value',
                          HINT = 'The partitions that pulse makes hold that much of event_timestamp; none makes none.';
            END IF;
        ELSIF setting.key IN ('brokers', 'kafka_options', 'secrets_file') AND NOT pulse._is_superuser() THEN
            RAISE EXCEPTION 'only a superuser may set %', setting.key USING ERRCODE = 'insufficient_privilege',
                HINT = 'It decides where the server connects to, and which files it reads for that.';
        ELSIF setting.key = 'role' AND setting.text_value <> '' AND NOT coalesce((
                SELECT pg_has_role(current_user, r.oid, 'MEMBER') FROM pg_roles r
                 WHERE r.rolname = setting.text_value), false) THEN
            RAISE EXCEPTION 'role "%" does not exist, or you are no member of it', setting.text_value
                USING ERRCODE = 'insufficient_privilege',
                      HINT = 'A pipeline writes with rights that whoever sets it up could use himself.';
        ELSIF setting.key = 'workers' AND setting.text_value !~ '^[0-9]{1,4}$' THEN
            RAISE EXCEPTION 'workers must be a number' USING ERRCODE = 'invalid_parameter_value',
                HINT = 'From 1 to 32; more than there are partitions would be idle.';
        ELSE
            PERFORM pulse._check_setting(setting.key, setting.text_value);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pulse._check_settings(jsonb) IS 'raises 22023 with the name of the first bad setting';

CREATE FUNCTION pulse._without_nulls(settings jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    RETURN (SELECT jsonb_strip_nulls(settings - 'schema')
                   || CASE WHEN jsonb_typeof(settings -> 'schema') <> 'null'
                           THEN jsonb_build_object('schema', settings -> 'schema') ELSE '{}' END);
COMMENT ON FUNCTION pulse._without_nulls(jsonb) IS 'settings without those that are taken back; a null inside a JSON Schema stays what it is';

-- They belong to the owner of the extension, whoever calls: anybody with CREATE on the database could have
-- planted a table with triggers, which would run as whoever writes it.
CREATE FUNCTION pulse._create_data_tables(partition_by text) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted text[] := ARRAY['raw.events', 'raw.dlq', 'live._events_minute', 'live._events_hour', 'live._events_day',
                           'live._user_day', 'live.events_minute', 'live.events_hour', 'live.events_day',
                           'live.user_day'];
    owner oid := (SELECT e.extowner FROM pg_extension e WHERE e.extname = 'pulse');
    existing int;
    stranger text;
    kind record;
BEGIN
    SELECT format('schema %I', n.nspname) INTO stranger FROM pg_namespace n
     WHERE n.nspname IN ('raw', 'live') AND n.nspowner <> owner LIMIT 1;
    IF stranger IS NULL THEN
        SELECT min(n.nspname || '.' || c.relname) FILTER (WHERE c.relowner <> owner), count(*) INTO stranger, existing
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname || '.' || c.relname = ANY (wanted);
    END IF;
    IF stranger IS NOT NULL THEN
        RAISE EXCEPTION '% does not belong to the owner of the extension', stranger
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'pulse adopts existing tables of raw and live only from there. Change the owner or drop it.';
    END IF;
    IF existing = cardinality(wanted) THEN
        RETURN;
    END IF;
    IF current_user <> pg_get_userbyid(owner) THEN
        RAISE EXCEPTION 'the tables of raw and live are not there yet' USING ERRCODE = 'insufficient_privilege',
            HINT = format('The first pipeline is for %I, who owns the extension, to create.', pg_get_userbyid(owner));
    END IF;

    IF to_regnamespace('raw') IS NULL THEN
        CREATE SCHEMA raw;
        COMMENT ON SCHEMA raw IS 'events and dead letters as pulse wrote them';
    END IF;
    IF to_regnamespace('live') IS NULL THEN
        CREATE SCHEMA live;
        COMMENT ON SCHEMA live IS 'counters that pulse keeps in the transaction of the events';
    END IF;

    IF to_regclass('raw.events') IS NULL THEN
        EXECUTE format($ddl$
            CREATE TABLE raw.events (
                event_id          text NOT NULL,
                event_type        text NOT NULL,
                user_id           text NOT NULL,
                event_timestamp   timestamptz NOT NULL,
                kafka_timestamp   timestamptz,
                funnel_step_index smallint,
                page_url          text,
                referrer          text,
                device            text,
                properties        jsonb,
                kafka_topic       text,
                kafka_partition   int,
                kafka_offset      bigint,
                ingested_at       timestamptz,
                PRIMARY KEY (event_id, event_timestamp)
            ) %s
        $ddl$, CASE WHEN partition_by = 'none' THEN '' ELSE 'PARTITION BY RANGE (event_timestamp)' END);
        COMMENT ON TABLE raw.events IS 'one row per event, exactly once; the key drops duplicates';
        COMMENT ON COLUMN raw.events.event_timestamp IS 'business time: sessions, windows, counters';
        COMMENT ON COLUMN raw.events.kafka_timestamp IS 'when the broker got it: freshness';
        COMMENT ON COLUMN raw.events.ingested_at IS 'when pulse wrote it; see pulse.ingest_horizon()';
        COMMENT ON COLUMN raw.events.properties IS 'every field without a column of its own';
    END IF;

    IF to_regclass('raw.dlq') IS NULL THEN
        CREATE TABLE raw.dlq (
            dlq_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            pipeline        text NOT NULL,
            kafka_topic     text,
            topic_epoch     int NOT NULL DEFAULT 0,
            kafka_partition int,
            kafka_offset    bigint,
            kafka_timestamp timestamptz,
            kafka_key       bytea,
            value           bytea,
            corrected_value bytea,
            kafka_headers   jsonb,
            error_class     text NOT NULL,
            error_code      text NOT NULL,
            error_message   text,
            error_path      text,
            stage           text,
            sqlstate        text,
            attempts        int NOT NULL DEFAULT 0,
            status          text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'replayed', 'discarded', 'parked')),
            first_seen_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
            last_attempt_at timestamptz,
            resolved_at     timestamptz,
            forwarded_at    timestamptz,
            forward_error   text,
            forward_attempts int NOT NULL DEFAULT 0,
            forward_after   timestamptz,
            UNIQUE (pipeline, kafka_topic, topic_epoch, kafka_partition, kafka_offset)
        );
        -- What waits for the sender, in the order in which it is sent.
        CREATE INDEX dlq_forward_idx ON raw.dlq (pipeline, forward_after, dlq_id) WHERE forwarded_at IS NULL;
        -- What dlq_purge and dlq_retention delete.
        CREATE INDEX dlq_settled_idx ON raw.dlq (resolved_at) WHERE status IN ('replayed', 'discarded');
        COMMENT ON TABLE raw.dlq IS 'every record that could not become a row, byte for byte, with its reason';
        COMMENT ON COLUMN raw.dlq.value IS 'the payload as it came; NULL for a tombstone';
        COMMENT ON COLUMN raw.dlq.corrected_value IS 'what pulse.dlq_replay_as replays instead';
        COMMENT ON COLUMN raw.dlq.attempts IS 'replays that failed';
        COMMENT ON COLUMN raw.dlq.forwarded_at IS 'when the letter was seen to be in the dead-letter topic; NULL = it waits, whatever its status';
        COMMENT ON COLUMN raw.dlq.forward_error IS 'why Kafka refused this letter; what concerns the whole topic is in pulse.stat_sender';
        COMMENT ON COLUMN raw.dlq.forward_attempts IS 'how often Kafka refused it';
        COMMENT ON COLUMN raw.dlq.forward_after IS 'when it is tried again; NULL = next';
        COMMENT ON COLUMN raw.dlq.error_path IS 'JSON pointer of the failing value';
        COMMENT ON COLUMN raw.dlq.sqlstate IS 'what PostgreSQL said, for error_code sql_error and stage_error';
    END IF;

    FOR kind IN SELECT unnest(ARRAY['minute', 'hour', 'day']) AS unit LOOP
        IF to_regclass('live._events_' || kind.unit) IS NULL THEN
            EXECUTE format($ddl$
                CREATE TABLE live._events_%1$s (
                    bucket     timestamptz NOT NULL,
                    event_type text NOT NULL,
                    pipeline   text NOT NULL,
                    slot       int NOT NULL,
                    count      bigint NOT NULL,
                    PRIMARY KEY (bucket, event_type, pipeline, slot)
                ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000)
            $ddl$, kind.unit);
            EXECUTE format('COMMENT ON TABLE live._events_%1$s IS %2$L', kind.unit,
                'per pipeline and worker slot, so that workers never wait for each other; read live.events_' || kind.unit);
        END IF;
        IF to_regclass('live.events_' || kind.unit) IS NULL THEN
            EXECUTE format($ddl$
                CREATE VIEW live.events_%1$s AS
                SELECT bucket, event_type, sum(count)::bigint AS count
                  FROM live._events_%1$s GROUP BY bucket, event_type
            $ddl$, kind.unit);
            EXECUTE format('COMMENT ON VIEW live.events_%1$s IS %2$L', kind.unit,
                'events per ' || kind.unit || ' (UTC, by event_timestamp) and event_type');
        END IF;
    END LOOP;

    IF to_regclass('live._user_day') IS NULL THEN
        CREATE TABLE live._user_day (
            day        date NOT NULL,
            user_id    text NOT NULL,
            event_type text NOT NULL,
            pipeline   text NOT NULL,
            slot       int NOT NULL,
            count      bigint NOT NULL,
            PRIMARY KEY (day, user_id, event_type, pipeline, slot)
        ) WITH (fillfactor = 70);
        COMMENT ON TABLE live._user_day IS 'per pipeline and worker slot; read live.user_day';
    END IF;
    IF to_regclass('live.user_day') IS NULL THEN
        CREATE VIEW live.user_day AS
        SELECT day, user_id, event_type, sum(count)::bigint AS count
          FROM live._user_day GROUP BY day, user_id, event_type;
        COMMENT ON VIEW live.user_day IS 'events per day (UTC), user and event_type; filled when pulse.counters names user_day';
    END IF;
END
$$;
COMMENT ON FUNCTION pulse._create_data_tables(text) IS 'raw.events, raw.dlq and the counters, unless they are there';

CREATE FUNCTION pulse._columns_of(target text) RETURNS text[]
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    RETURN (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
             WHERE a.attrelid = to_regclass(target) AND a.attnum > 0 AND NOT a.attisdropped
               AND a.attgenerated = '' AND a.attidentity = '');
COMMENT ON FUNCTION pulse._columns_of(text) IS 'the columns pulse writes';

CREATE FUNCTION pulse.create_pipeline(name text, topics text[], target text DEFAULT 'raw.events', settings jsonb DEFAULT '{}')
    RETURNS void LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    qualified text;
    topic text;
    start_position text;
    has_rows boolean;
    has_key boolean;
BEGIN
    PERFORM pulse._require('name', name IS NOT NULL), pulse._require('topics', topics IS NOT NULL),
            pulse._require('target', target IS NOT NULL), pulse._require('settings', settings IS NOT NULL);
    PERFORM pulse._wake(); -- at the commit; where pulse is not preloaded, this brings its settings in
    start_position := coalesce(settings ->> 'start_position', current_setting('pulse.start_position'));
    IF octet_length(name) NOT BETWEEN 1 AND 63 THEN
        RAISE EXCEPTION 'name of a pipeline must have 1 to 63 bytes' USING ERRCODE = 'invalid_parameter_value',
            HINT = format('This one has %s.', octet_length(name));
    END IF;
    IF cardinality(topics) = 0 THEN
        RAISE EXCEPTION 'a pipeline needs a topic' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'For example ARRAY[''events''], or ARRAY[''^events_.*''] for all that match.';
    END IF;
    FOREACH topic IN ARRAY topics LOOP
        IF topic IS NULL OR octet_length(topic) > 249 OR (topic !~ '^\^' AND topic !~ '^[a-zA-Z0-9._-]+$') THEN
            RAISE EXCEPTION 'bad topic name "%"', topic USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Letters, digits, dot, underscore and hyphen; a regular expression starts with ^.';
        END IF;
        IF topic LIKE '^%' THEN
            PERFORM pulse._check_topic(topic);
        END IF;
    END LOOP;
    IF (SELECT count(*) FROM pulse.pipelines) >= 64 THEN
        RAISE EXCEPTION 'pulse runs at most 64 pipelines' USING ERRCODE = 'program_limit_exceeded',
            HINT = 'Drop one, or read several topics with one pipeline.';
    END IF;
    PERFORM pulse._check_settings(settings);
    PERFORM pulse._create_data_tables(coalesce(settings ->> 'partition_by', 'day'));
    IF to_regclass(target) IS NULL THEN
        RAISE EXCEPTION 'table % does not exist', target USING ERRCODE = 'undefined_table',
            HINT = 'Name it with its schema. Only raw.events is made by pulse.';
    END IF;
    SELECT format('%I.%I', n.nspname, c.relname) INTO qualified
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(target)
       AND n.nspname NOT IN ('pulse', 'live', 'information_schema') AND n.nspname NOT LIKE 'pg\_%'
       AND (n.nspname, c.relname) <> ('raw', 'dlq');
    IF qualified IS NULL THEN
        RAISE EXCEPTION '% is no table for events', target USING ERRCODE = 'wrong_object_type',
            HINT = 'Catalogs, temporary tables and the tables of pulse itself are not written by pipelines.';
    END IF;
    INSERT INTO pulse.pipelines (name, topics, target, settings, columns, owner)
    VALUES (create_pipeline.name, create_pipeline.topics, qualified, create_pipeline.settings,
            pulse._columns_of(qualified), current_user)
    ON CONFLICT ON CONSTRAINT pipelines_pkey DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'pipeline "%" exists', name USING ERRCODE = 'duplicate_object',
            HINT = 'Change it with pulse.alter_pipeline, or drop it first.';
    END IF;
    has_key := pulse._check_target(name); -- before anything of the relation is read
    has_rows := has_table_privilege(qualified, 'SELECT');
    IF has_rows THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', qualified) INTO STRICT has_rows;
    ELSE
        RAISE WARNING 'rows that % may hold cannot be read', qualified
            USING HINT = 'pulse.verify will count them as a difference. Grant SELECT on the table before.';
    END IF;
    IF NOT has_key THEN
        IF has_rows AND lower(start_position) = 'earliest' THEN
            RAISE EXCEPTION '% has rows and no unique index that tells duplicates: what is read again would be inserted again', qualified
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Add one over columns that each event always has, or say where to begin: start_position after_rows, latest, an offset or a time.';
        END IF;
        RAISE WARNING '% has no unique index that tells duplicates', qualified
            USING HINT = 'Records read again, after a seek backwards for example, would be inserted again. Such a key is NOT NULL, without '
                   'ingested_at and without defaults like nextval() or now(): ALTER COLUMN ... DROP DEFAULT makes the field a required one.';
    END IF;
    PERFORM pulse._adopt(name, qualified, pulse._columns_of(qualified),
                         array_to_string(pulse._counters_kept(settings), ','), has_rows);
END
$$;
COMMENT ON FUNCTION pulse.create_pipeline(text, text[], text, jsonb) IS
'reads topics (names, or regular expressions with leading ^) into target, from the commit of this transaction on.
settings: a JSON object of settings without the prefix pulse., plus mapping (column -> JSON pointer), partition_by
(day, hour, month, none) and schema (a JSON Schema, draft 4, that every event must fulfil, else it is a dead letter with code schema; README.md
says what of draft 4 is not supported: it is refused here). Rows and dead letters that are there already are read once and adopted: verify adds them to what the
pipeline writes. Errors: 42710 exists, 42P01 no such table, 42809 no table to write events into, 42703 no such column, 42804
metadata column of another type, 0A000 key that can''t tell duplicates, 22004, 22023 bad setting or topic,
54000 more than 64 pipelines, 55000 the table has rows, no unique index that tells
duplicates (NOT NULL, the same at each read), and start_position is earliest';

CREATE FUNCTION pulse.alter_pipeline(name text, settings jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pulse._require('name', name IS NOT NULL), pulse._require('settings', settings IS NOT NULL);
    PERFORM pulse._check_settings(CASE WHEN jsonb_typeof(settings) = 'object' THEN pulse._without_nulls(settings) ELSE settings END);
    UPDATE pulse.pipelines p
       SET settings = pulse._without_nulls(p.settings || alter_pipeline.settings),
           columns = coalesce(pulse._columns_of(p.target), p.columns),
           version = p.version + 1, changed_at = clock_timestamp()
     WHERE p.name = alter_pipeline.name;
    IF NOT FOUND THEN
        PERFORM pulse._refuse_unknown(name);
    END IF;
    -- As a worker would look at it; a table that is gone for the moment is no reason to refuse.
    PERFORM pulse._check_target(p.name) FROM pulse.pipelines p
     WHERE p.name = alter_pipeline.name AND to_regclass(p.target) IS NOT NULL;
    PERFORM pulse._wake();
END
$$;
COMMENT ON FUNCTION pulse.alter_pipeline(text, jsonb) IS
'lays settings over those of the pipeline (null takes one back) and accepts the columns of the target as they are now; the batch in flight commits, then workers start again. Errors: 42704, 42501 the caller has not the rights of the pipeline, 22023, 42703 the mapping names a column that is gone, 42809 the target can no longer be written';

CREATE FUNCTION pulse.drop_pipeline(name text) RETURNS void
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pulse._require('name', name IS NOT NULL);
    PERFORM pulse._keep_offsets(name), pulse._hand_over(name);
    DELETE FROM pulse.pipelines p WHERE p.name = drop_pipeline.name;
    IF NOT FOUND THEN
        PERFORM pulse._refuse_unknown(name);
    END IF;
    INSERT INTO pulse.offset_log (pipeline, topic, partition, old_offset, new_offset, reason)
    SELECT o.pipeline, o.topic, o.partition, o.next_offset, o.next_offset, 'pipeline dropped'
      FROM pulse.offsets o WHERE o.pipeline = drop_pipeline.name;
    DELETE FROM pulse.offsets o WHERE o.pipeline = drop_pipeline.name;
    DELETE FROM pulse.ingests i WHERE i.pipeline = drop_pipeline.name;
    DELETE FROM pulse.replays r WHERE r.pipeline = drop_pipeline.name; -- its rows are counted when it is created again
    PERFORM pulse._wake();
END
$$;
COMMENT ON FUNCTION pulse.drop_pipeline(text) IS
'forgets the pipeline and its offsets; rows, dead letters and counters stay, and a pipeline of that name created again knows them.
Waits for the batch in flight. When another pipeline writes the same table, rows and counters go over into its accounts. Errors: 42704, 42501 the caller has not the rights of the pipeline,
or counters would go over and live.* belongs neither to the owner of the extension nor to a superuser';

CREATE FUNCTION pulse.pause(name text) RETURNS void
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_pause';
COMMENT ON FUNCTION pulse.pause(text) IS
'lets the batch in flight commit and returns when the workers are gone; holds until resume, through restarts. Not undone by ROLLBACK. Errors: 42704, 55000';

CREATE FUNCTION pulse.resume(name text, force boolean DEFAULT false) RETURNS void
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_resume';
COMMENT ON FUNCTION pulse.resume(text, boolean) IS
'goes on where the offsets are, after pause, stop or the breaker. force: accepts rejects, however many, among the records that are in the topics
now: the breaker does not count what is before the ends of the partitions at this moment (pulse.stat_partition.breaker_off_until, also after a restart),
and counts again behind them. Not undone by ROLLBACK. Errors: 42704, 55000, with force also 08000 (broker)';

CREATE FUNCTION pulse.stop(name text) RETURNS void
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_stop';
COMMENT ON FUNCTION pulse.stop(text) IS
'rolls the batch in flight back and returns when the workers are gone; its records are read again after resume. Not undone by ROLLBACK. Errors: 42704, 55000';

CREATE FUNCTION pulse._seek(name text, to_position text, partition int, topic text) RETURNS void
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_seek';
COMMENT ON FUNCTION pulse._seek(text, text, int, text) IS 'the part of pulse.seek that asks the coordinator';

CREATE FUNCTION pulse.seek(name text, to_position text, partition int DEFAULT NULL, topic text DEFAULT NULL,
                           force boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target_name text;
BEGIN
    PERFORM pulse._require('name', name IS NOT NULL), pulse._require('to_position', to_position IS NOT NULL);
    SELECT p.target INTO target_name FROM pulse.pipelines p WHERE p.name = seek.name;
    IF NOT FOUND THEN
        PERFORM pulse._refuse_unknown(name);
    END IF;
    IF NOT coalesce(force, false) AND to_position <> 'latest' AND NOT pulse._check_target(name) THEN
        RAISE EXCEPTION '% has no unique index that tells duplicates: records read again would be inserted again', target_name
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Add one over columns that each event always has, or pass force => true.';
    END IF;
    PERFORM pulse._seek(name, to_position, partition, topic);
END
$$;
COMMENT ON FUNCTION pulse.seek(text, text, int, text, boolean) IS
'moves the next offset of all partitions, or of one: earliest, latest, an offset, a timestamp, or an interval before now (-1 hour).
Rows that are there already are dropped as duplicates; records jumped over forwards are noted in pulse.gaps. The pipeline goes on as before.
A topic made again since (its log ends before what was read, or the record read last is another one) gets a new topic_epoch: its records
are told from those that had their offsets before.
Not undone by ROLLBACK. Errors: 42704, 22023 (position not in the log), 08000 (broker), 55000';

CREATE FUNCTION pulse.accept_gap(name text, topic text, partition int) RETURNS void
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_accept_gap';
COMMENT ON FUNCTION pulse.accept_gap(text, text, int) IS
'lets a partition that is offset_lost or topic_changed go on where Kafka''s log begins now; pulse.gaps notes what was lost: from the next offset to
the beginning of the log, or with open end when the topic was made again (then topic_epoch is raised). The other partitions go on meanwhile.
Not undone by ROLLBACK. Errors: 42704, 22023 no such partition, 55000 nothing is lost, 08000 (broker)';

CREATE FUNCTION pulse.skip(name text, topic text, partition int, at_offset bigint) RETURNS void
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_skip';
COMMENT ON FUNCTION pulse.skip(text, text, int, bigint) IS
'makes one record a dead letter (error_code skipped) with its bytes: at once when it is the next one of its partition, else when it is read. Nothing
else is passed over. The batch in flight is rolled back and read again. Not undone by ROLLBACK. After a seek backwards the record may be a row
already: the caller''s session looks for it in the target first, with the rights of the role that writes there (an index on kafka_topic, kafka_offset makes that quick).
Errors: 42704, 22023 no such partition, or no record at that offset, 55000 it is behind next_offset, 40001 the partition moved meanwhile, 42501 the writer
may not read the target, 08000 (broker)';

CREATE FUNCTION pulse.wait_until_caught_up(name text, timeout interval DEFAULT '1 minute') RETURNS boolean
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_wait_until_caught_up';
COMMENT ON FUNCTION pulse.wait_until_caught_up(text, interval) IS
'true when everything that was in the topics at the call is committed, false when the time is up. Errors: 42704, 55000 when paused or stopped,
54000 partitions are not read for want of room (pulse.stat_pipeline)';

CREATE FUNCTION pulse.ingest_horizon() RETURNS timestamptz
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_ingest_horizon';
COMMENT ON FUNCTION pulse.ingest_horizon() IS
'every row with ingested_at before it is committed: the safe mark for incremental readers. Take it before the query that reads up to it. Errors: 55000';

CREATE FUNCTION pulse.decode(name text, value bytea, OUT event jsonb, OUT error_class text, OUT error_code text,
                             OUT error_path text, OUT error_message text)
    LANGUAGE c STABLE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_decode';
COMMENT ON FUNCTION pulse.decode(text, bytea) IS
'what the pipeline makes of a payload: the event, or the reject. Reads and writes nothing. Errors: 42704';

CREATE FUNCTION pulse._error_codes(OUT error_code text, OUT error_class text, OUT meaning text, OUT remedy text)
    RETURNS SETOF record LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pulse_error_codes';
COMMENT ON FUNCTION pulse._error_codes() IS 'the rows of pulse.error_codes';
