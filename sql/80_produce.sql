-- Records for Kafka out of a transaction. The sender (src/worker/sender.cpp) takes them from the table.

CREATE FUNCTION pulse._admit_outgoing(topic text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_admit_outgoing';
COMMENT ON FUNCTION pulse._admit_outgoing(text) IS
'counts one record more in this transaction, or raises 22023 for a bad topic name, 55000 where pulse does not run, 53400 when max_queue_depth of them wait';

CREATE FUNCTION pulse._stored_headers(headers jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stored jsonb;
BEGIN
    IF jsonb_typeof(headers) = 'null' THEN
        RETURN NULL;
    ELSIF jsonb_typeof(headers) <> 'object'
       OR EXISTS (SELECT FROM jsonb_each(headers) h WHERE jsonb_typeof(h.value) IN ('object', 'array')) THEN
        RAISE EXCEPTION 'headers must be a JSON object of texts' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'For example {"source": "shop", "trace": null}.';
    END IF;
    SELECT jsonb_agg(jsonb_build_object('key', h.key, 'value', h.value)) INTO stored FROM jsonb_each_text(headers) h;
    RETURN stored;
END
$$;
COMMENT ON FUNCTION pulse._stored_headers(jsonb) IS 'headers as a JSON object -> as tables keep them; raises 22023';

CREATE FUNCTION pulse.produce(topic text, value bytea, key bytea DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS bigint
    -- DEFINER: whoever may produce need not be allowed to read what others did.
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bytes bigint := coalesce(octet_length(value), 0) + coalesce(octet_length(key), 0) + coalesce(octet_length(headers::text), 0);
    id bigint;
BEGIN
    IF topic IS NULL THEN
        RAISE EXCEPTION 'topic must not be NULL' USING ERRCODE = 'null_value_not_allowed';
    ELSIF bytes > 8000000 THEN
        RAISE EXCEPTION 'a record of % bytes is too large', bytes USING ERRCODE = 'program_limit_exceeded',
            HINT = 'pulse sends up to 8,000,000 bytes of key, value and headers; brokers often allow less (max.message.bytes).';
    END IF;
    PERFORM pulse._admit_outgoing(topic);
    INSERT INTO pulse.outbox (topic, key, value, headers)
    VALUES (produce.topic, produce.key, produce.value, pulse._stored_headers(produce.headers)) RETURNING outbox_id INTO id;
    RETURN id;
END
$$;
COMMENT ON FUNCTION pulse.produce(text, bytea, bytea, jsonb) IS
'leaves a record for the topic in pulse.outbox and returns its outbox_id: it is sent when this transaction commits, and never when it rolls back, at the brokers of
postgresql.conf. value NULL is a tombstone; headers: a JSON object of texts or nulls. At least once: a record that arrives twice has the same header pulse.dedup_key, and
no other record has it (pulse.outbox_id begins again after a restore to an earlier point in time).
Order, per key (the same key goes to the same partition): records of a transaction in the order of the calls, and a record behind every other whose transaction
was committed before it was produced, so also when the two transactions waited for each other over a row; transactions that overlap otherwise have no order. A record that
Kafka refuses for itself (too large) is set aside, with its error, and tried again; later ones overtake it. Errors: 22004, 22023 bad topic or headers, 54000 too large,
53400 max_queue_depth records wait (hint: retry after N ms), 55000 pulse does not run in this database';

CREATE FUNCTION pulse.produce(topic text, value text, key text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS bigint
    LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    RETURN pulse.produce(topic, convert_to(value, 'UTF8'), convert_to(key, 'UTF8'), headers);
COMMENT ON FUNCTION pulse.produce(text, text, text, jsonb) IS 'the same for text, which is sent as UTF-8';

CREATE FUNCTION pulse.produce(topic text, value jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS bigint
    LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    RETURN pulse.produce(topic, convert_to(value::text, 'UTF8'), convert_to(key, 'UTF8'), headers);
COMMENT ON FUNCTION pulse.produce(text, jsonb, text, jsonb) IS 'the same for JSON';
