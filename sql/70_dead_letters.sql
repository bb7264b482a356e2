-- Looking at dead letters and settling them by hand. raw.dlq is not the extension's, so these are
-- plpgsql: nothing here is checked against it before it is there.

CREATE FUNCTION pulse.dlq_summary(OUT pipeline text, OUT error_class text, OUT error_code text, OUT stage text,
                                  OUT status text, OUT letters bigint, OUT first_seen_at timestamptz,
                                  OUT last_seen_at timestamptz, OUT example_id bigint)
    RETURNS SETOF record LANGUAGE plpgsql STABLE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF to_regclass('raw.dlq') IS NULL THEN
        RETURN; -- no pipeline yet
    END IF;
    RETURN QUERY
    SELECT d.pipeline, d.error_class, d.error_code, d.stage, d.status, count(*), min(d.first_seen_at),
           max(d.first_seen_at), min(d.dlq_id)
      FROM raw.dlq d GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 1, 3, 4, 5;
END
$$;
COMMENT ON FUNCTION pulse.dlq_summary() IS
'dead letters by pipeline, class, code, stage and status, the most frequent first; example_id is for pulse.dlq_show()';

-- jsonb_pretty with the value at the path marked. The marker is put where the value is, and exchanged
-- in the text; it is random, so no event can hold it.
CREATE FUNCTION pulse._pretty_event(event jsonb, path text, mark text) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tokens text[] := ARRAY(SELECT replace(replace(token, '~1', '/'), '~0', '~')
                             FROM unnest((string_to_array(path, '/'))[2:]) token);
    place text := '@' || gen_random_uuid() || '@';
BEGIN
    IF cardinality(tokens) = 0 OR event #> tokens IS NULL THEN
        RETURN jsonb_pretty(event); -- the path names what isn't there, a missing field for instance
    END IF;
    RETURN replace(jsonb_pretty(jsonb_set(event, tokens, to_jsonb(place))), '"' || place || '"',
                   (event #> tokens)::text || '   <-- ' || mark);
END
$$;
COMMENT ON FUNCTION pulse._pretty_event(jsonb, text, text) IS 'JSON for reading, with the value at a JSON pointer marked';

CREATE FUNCTION pulse.dlq_show(dlq_id bigint, OUT field text, OUT value text) RETURNS SETOF record
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    letter record;
    as_text text;
    as_json jsonb;
BEGIN
    EXECUTE 'SELECT * FROM raw.dlq d WHERE d.dlq_id = $1' INTO letter USING dlq_id;
    IF letter IS NULL THEN
        RAISE EXCEPTION 'dead letter % does not exist', dlq_id USING ERRCODE = 'undefined_object',
            HINT = 'pulse.dlq_summary() shows an example of each kind.';
    END IF;
    BEGIN
        as_text := convert_from(letter.value, 'UTF8');
        as_json := as_text::jsonb;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        NULL; -- whatever could be read of it is shown
    END;
    RETURN QUERY SELECT * FROM (VALUES
        ('pipeline', letter.pipeline),
        ('record', format('%s, partition %s, offset %s', letter.kafka_topic, letter.kafka_partition, letter.kafka_offset)
                   || CASE WHEN letter.topic_epoch > 0 THEN format(' (recreated %s times)', letter.topic_epoch) ELSE '' END),
        ('kafka_timestamp', letter.kafka_timestamp::text),
        ('error', format('%s (%s)', letter.error_code, letter.error_class)),
        ('message', letter.error_message),
        ('path', letter.error_path),
        ('stage', letter.stage),
        ('sqlstate', letter.sqlstate),
        ('remedy', (SELECT c.remedy FROM pulse.error_codes c WHERE c.error_code = letter.error_code)),
        ('status', letter.status),
        ('attempts', letter.attempts::text),
        ('first_seen_at', letter.first_seen_at::text),
        ('last_attempt_at', letter.last_attempt_at::text),
        ('resolved_at', letter.resolved_at::text),
        ('forwarded_at', letter.forwarded_at::text),
        ('not forwarded', CASE WHEN letter.forwarded_at IS NULL THEN
             coalesce(letter.forward_error || ', next try ' || letter.forward_after::timestamptz(0),
                      (SELECT f.reason FROM pulse._forward_trouble(letter.pipeline) f)) END),
        ('key', encode(letter.kafka_key, 'escape')),
        ('headers', jsonb_pretty(letter.kafka_headers)),
        ('bytes', octet_length(letter.value)::text),
        ('event', pulse._pretty_event(as_json, letter.error_path, letter.error_code)),
        ('text', CASE WHEN as_json IS NULL THEN as_text END),
        ('hex', CASE WHEN as_text IS NULL THEN encode(letter.value, 'hex') END)) AS f (field, value)
     WHERE f.value IS NOT NULL;
END
$$;
COMMENT ON FUNCTION pulse.dlq_show(bigint) IS
'one dead letter for reading, a line per field: where it comes from, what is wrong, what to do, and the payload: as JSON with the value at fault marked, else as text, else as hex. Errors: 42704';

CREATE FUNCTION pulse.dlq_discard(ids bigint[], reason text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    discarded bigint;
BEGIN
    IF ids IS NULL OR reason IS NULL OR reason = '' THEN
        RAISE EXCEPTION 'ids and reason must be given' USING ERRCODE = 'null_value_not_allowed',
            HINT = 'The reason is kept with each letter: say why nobody needs it.';
    END IF;
    PERFORM pulse._require_trusted('raw.dlq');
    UPDATE raw.dlq d
       SET status = 'discarded', resolved_at = clock_timestamp(),
           error_message = concat(d.error_message, ' [discarded by ', session_user, ': ', dlq_discard.reason, ']')
     WHERE d.dlq_id = ANY (ids) AND d.status IN ('new', 'parked');
    GET DIAGNOSTICS discarded = ROW_COUNT;
    RETURN discarded;
END
$$;
COMMENT ON FUNCTION pulse.dlq_discard(bigint[], text) IS
'settles letters that nobody needs: they stay in raw.dlq with status discarded and the reason in error_message, and are not replayed. Returns how many were new or parked. Errors: 22004, 42501 a superuser calls and raw.dlq belongs to nobody of that kind';
