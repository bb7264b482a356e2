-- Questions to the live counters, and their recount. Who may ask is decided by the rights on live.*.

CREATE FUNCTION pulse._counters_kept(settings jsonb) RETURNS text[]
    LANGUAGE sql STABLE CALLED ON NULL INPUT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    RETURN string_to_array(regexp_replace(lower(coalesce(settings ->> 'counters', current_setting('pulse.counters'))), '[\s"]', '', 'g'), ',');
COMMENT ON FUNCTION pulse._counters_kept(jsonb) IS 'the counters that a pipeline with these settings keeps; its own text is written as workers read it';

CREATE FUNCTION pulse._require_counter(unit text) RETURNS void
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pulse.pipelines p
                    WHERE unit = ANY (pulse._counters_kept(p.settings))) THEN
        RAISE EXCEPTION 'no pipeline keeps the counters "%"', unit USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Name it in pulse.counters or in the pipeline''s setting, then call pulse.rebuild_counters.';
    END IF;
END
$$;
COMMENT ON FUNCTION pulse._require_counter(text) IS 'raises 55000 unless a pipeline keeps them: 0 would be a wrong answer then';

CREATE FUNCTION pulse.daily_count(event_type text, date date) RETURNS bigint
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pulse._require_counter('day');
    RETURN (SELECT coalesce(sum(c.count), 0)::bigint FROM live.events_day c
             WHERE c.bucket = daily_count.date::timestamp AT TIME ZONE 'UTC' AND c.event_type = daily_count.event_type);
END
$$;
COMMENT ON FUNCTION pulse.daily_count(text, date) IS
'events of that type on that day (UTC, by event_timestamp), from the live counters: 0 when there are none. Errors: 55000 when no pipeline keeps them';

CREATE FUNCTION pulse.hourly_counts(event_type text, date date, OUT hour int, OUT count bigint) RETURNS SETOF record
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE ROWS 24
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    midnight timestamptz := hourly_counts.date::timestamp AT TIME ZONE 'UTC';
BEGIN
    PERFORM pulse._require_counter('hour');
    RETURN QUERY
    SELECT h.hour, coalesce(c.count, 0)
      FROM generate_series(0, 23) h(hour)
      LEFT JOIN live.events_hour c ON c.event_type = hourly_counts.event_type AND c.bucket = midnight + make_interval(hours => h.hour)
     ORDER BY h.hour;
END
$$;
COMMENT ON FUNCTION pulse.hourly_counts(text, date) IS
'events of that type in each hour of that day (UTC): always 24 rows. Errors: 55000 when no pipeline keeps counters per hour';

CREATE FUNCTION pulse.user_daily_count(user_id text, event_type text, date date) RETURNS bigint
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pulse._require_counter('user_day');
    RETURN (SELECT coalesce(sum(c.count), 0)::bigint FROM live.user_day c
             WHERE c.day = user_daily_count.date AND c.user_id = user_daily_count.user_id
               AND c.event_type = user_daily_count.event_type);
END
$$;
COMMENT ON FUNCTION pulse.user_daily_count(text, text, date) IS
'events of that user and type on that day (UTC). Errors: 55000 when no pipeline keeps them (user_day is not in the default of pulse.counters)';

CREATE FUNCTION pulse.rebuild_counters(name text, from_time timestamptz DEFAULT NULL, to_time timestamptz DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    pipeline_row pulse.pipelines;
    wanted text[];
    kind text;
    low timestamptz := coalesce(date_trunc('day', from_time), '-infinity');
    high timestamptz := coalesce(date_trunc('day', to_time - interval '1 us') + interval '1 day', 'infinity');
BEGIN
    SELECT * INTO pipeline_row FROM pulse.pipelines p WHERE p.name = rebuild_counters.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'pipeline "%" does not exist', name USING ERRCODE = 'undefined_object';
    END IF;
    PERFORM pulse._require_table(pipeline_row.target);
    IF NOT pulse._is_counted(pipeline_row.target) THEN
        RAISE EXCEPTION 'pipeline "%" keeps no counters', name USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'They need event_type (text, NOT NULL, no default) and event_timestamp (timestamptz, NOT NULL, no default) in the target.';
    END IF;
    IF EXISTS (SELECT FROM pulse.pipelines p WHERE p.target = pipeline_row.target AND p.name <> rebuild_counters.name) THEN
        RAISE EXCEPTION 'other pipelines write % too: whose rows they are cannot be told', pipeline_row.target
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    -- The recount must see every batch whose counters are in, and none besides.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'counters are rebuilt in READ COMMITTED transactions only' USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    -- What retention has dropped can't be counted again.
    low := greatest(low, date_trunc('day', pipeline_row.retained_from + interval '1 day' - interval '1 us'));
    wanted := pulse._counters_kept(pipeline_row.settings);

    PERFORM pulse._require_trusted('live._events_minute', 'live._events_hour', 'live._events_day', 'live._user_day');
    -- A batch adds to its counters in this order, behind its rows. With the locks here no batch is between the two:
    -- one that has not come to its counters adds them after us, to rows that the snapshots below don't see.
    LOCK TABLE live._events_minute, live._events_hour, live._events_day, live._user_day IN SHARE ROW EXCLUSIVE MODE;
    FOREACH kind IN ARRAY ARRAY['minute', 'hour', 'day'] LOOP
        CONTINUE WHEN kind <> ALL (wanted);
        EXECUTE format('DELETE FROM live._events_%s WHERE pipeline = $1 AND bucket >= $2 AND bucket < $3', kind) USING name, low, high;
        EXECUTE format($q$
            INSERT INTO live._events_%2$s (bucket, event_type, pipeline, slot, count)
            SELECT date_trunc(%2$L, event_timestamp), event_type, $1, 0, count(*) FROM %1$s
             WHERE event_timestamp >= $2 AND event_timestamp < $3 GROUP BY 1, 2 $q$, pipeline_row.target, kind) USING name, low, high;
    END LOOP;
    IF 'user_day' = ANY (wanted) AND pulse._is_counted(pipeline_row.target, true) THEN
        DELETE FROM live._user_day c WHERE c.pipeline = rebuild_counters.name AND c.day >= low::date AND c.day < high::date;
        EXECUTE format($q$
            INSERT INTO live._user_day (day, user_id, event_type, pipeline, slot, count)
            SELECT (event_timestamp AT TIME ZONE 'UTC')::date, user_id, event_type, $1, 0, count(*) FROM %1$s
             WHERE event_timestamp >= $2 AND event_timestamp < $3 GROUP BY 1, 2, 3 $q$, pipeline_row.target) USING name, low, high;
    END IF;
END
$$;
COMMENT ON FUNCTION pulse.rebuild_counters(text, timestamptz, timestamptz) IS
'counts the rows of the target again, for whole days (UTC) that from_time and to_time touch, or all; for rows changed by users, or counters that were not kept before.
Days that retention has dropped keep their counters. Workers go on: they wait at their counters until this transaction ends. Errors: 42704, 42809 the target is no table any more, 42501 a superuser calls and live.* belongs to nobody of that kind, 55000 (target whose rows are not counted, or written by several pipelines)';
