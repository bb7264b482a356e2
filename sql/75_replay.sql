-- Dead letters on their way back into the target. The work is done in src/worker/replay.cpp.

CREATE PROCEDURE pulse.dlq_replay(
        pipeline text DEFAULT NULL, max_letters bigint DEFAULT NULL, error_code text DEFAULT NULL, ids bigint[] DEFAULT NULL,
        since timestamptz DEFAULT NULL, dry_run boolean DEFAULT false,
        INOUT replayed bigint DEFAULT NULL, INOUT duplicates bigint DEFAULT NULL, INOUT failed bigint DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'pulse_dlq_replay';
COMMENT ON PROCEDURE pulse.dlq_replay(text, bigint, text, bigint[], timestamptz, boolean, bigint, bigint, bigint) IS
'decodes new dead letters again, with the pipeline and its target as they are now, and writes them as a worker would: replayed (they
are rows now), duplicates (their event was a row already) and failed (refused again: new reason, attempts + 1, parked after
max_replays). pipeline: NULL = all there are; max_letters: of this call; error_code, since (first_seen_at): only those;
ids: only these, parked ones too. Letters of class operator (skipped, quarantined) come back only by ids or error_code.
dry_run: does all of it and rolls it back. Committed every 1,000 letters, and a NOTICE tells every 5 seconds, so it may be cancelled
and called again; inside a transaction block it is part of that transaction. Several calls at a time share the letters.
An error of the environment leaves the letters of that step as they were. Errors: 42704, 22023, 55000, 53300,
54000 inside a transaction block: more than 32 new partitions are needed, and whatever the target raises';

CREATE FUNCTION pulse._dlq_replay_one(dlq_id bigint, pipeline text) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_dlq_replay_one';
COMMENT ON FUNCTION pulse._dlq_replay_one(bigint, text) IS 'the part of pulse.dlq_replay_as that replays';

CREATE FUNCTION pulse.dlq_replay_as(dlq_id bigint, value bytea, OUT outcome text, OUT error_code text, OUT error_message text)
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    letter record;
BEGIN
    IF dlq_id IS NULL OR value IS NULL THEN
        RAISE EXCEPTION 'dlq_id and value must be given' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM pulse._require_trusted('raw.dlq');
    EXECUTE 'SELECT d.pipeline, d.status FROM raw.dlq d WHERE d.dlq_id = $1 FOR UPDATE' INTO letter USING dlq_id;
    IF letter IS NULL THEN
        RAISE EXCEPTION 'dead letter % does not exist', dlq_id USING ERRCODE = 'undefined_object',
            HINT = 'pulse.dlq_summary() shows an example of each kind.';
    ELSIF letter.status NOT IN ('new', 'parked') THEN
        RAISE EXCEPTION 'dead letter % is % already', dlq_id, letter.status USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    UPDATE raw.dlq d SET corrected_value = dlq_replay_as.value WHERE d.dlq_id = dlq_replay_as.dlq_id;
    outcome := pulse._dlq_replay_one(dlq_id, letter.pipeline);
    IF outcome IS NULL THEN
        RAISE EXCEPTION 'dead letter % names a topic but no record of it', dlq_id USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF outcome = 'failed' THEN
        SELECT d.error_code, d.error_message INTO error_code, error_message FROM raw.dlq d WHERE d.dlq_id = dlq_replay_as.dlq_id;
    END IF;
END
$$;
COMMENT ON FUNCTION pulse.dlq_replay_as(bigint, bytea) IS
'replays a new or parked dead letter with a corrected payload, which is kept beside the original in raw.dlq.corrected_value.
outcome: replayed, duplicate, or failed with the new reason. Its record is not decoded again after a seek. Errors: 42704, 22004, 42501 a superuser calls and raw.dlq belongs to nobody of that kind, 55000, and whatever the target raises';

CREATE FUNCTION pulse._is_forwarding(pipeline text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (SELECT FROM pulse.pipelines p WHERE p.name = _is_forwarding.pipeline
                      AND coalesce(p.settings ->> 'dlq_topic', current_setting('pulse.dlq_topic')) <> ''
                      AND coalesce(p.settings ->> 'brokers', current_setting('pulse.brokers')) <> ''
                      AND NOT EXISTS (SELECT FROM pulse._stat_sends() s WHERE s.source = 'dead letters' AND s.pipeline = p.name AND s.state = 'failed'
                                         AND s.topic = coalesce(p.settings ->> 'dlq_topic', current_setting('pulse.dlq_topic'))));
COMMENT ON FUNCTION pulse._is_forwarding(text) IS
'true when the dead letters of a pipeline that wait are to be forwarded, though brokers or topic may be away now; false when it reads that topic itself (failed)';

CREATE FUNCTION pulse._purge_letters(older_than interval, pipeline text, max_letters bigint) RETURNS bigint
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    purged bigint;
BEGIN
    PERFORM pulse._require_trusted('raw.dlq');
    -- One that a worker is looking at has time until the next call. A pipeline that does not exist has no
    -- ledger: create_pipeline counts the letters that it finds.
    WITH forwarding AS MATERIALIZED (SELECT p.name FROM pulse.pipelines p WHERE pulse._is_forwarding(p.name)),
    settled AS (
        SELECT d.dlq_id FROM raw.dlq d
         WHERE d.status IN ('replayed', 'discarded') AND d.resolved_at < statement_timestamp() - older_than
           AND (d.pipeline = _purge_letters.pipeline OR _purge_letters.pipeline IS NULL)
           AND (d.forwarded_at IS NOT NULL OR d.forward_error IS NOT NULL OR d.pipeline NOT IN (SELECT f.name FROM forwarding f))
         LIMIT max_letters FOR UPDATE SKIP LOCKED),
    deleted AS (
        DELETE FROM raw.dlq d USING settled s WHERE d.dlq_id = s.dlq_id
        RETURNING d.pipeline, d.kafka_topic, d.kafka_partition, d.topic_epoch),
    noted AS (
        INSERT INTO pulse.replays (pipeline, topic, partition, topic_epoch, purged)
        SELECT d.pipeline, d.kafka_topic, d.kafka_partition, d.topic_epoch, count(*)
          FROM deleted d JOIN pulse.pipelines p ON p.name = d.pipeline
         WHERE d.kafka_topic IS NOT NULL AND d.kafka_partition IS NOT NULL GROUP BY 1, 2, 3, 4),
    noted_ingested AS (
        INSERT INTO pulse.ingests AS i (pipeline, writer, purged_letters)
        SELECT d.pipeline, -1, count(*) FROM deleted d JOIN pulse.pipelines p ON p.name = d.pipeline
         WHERE d.kafka_topic IS NULL GROUP BY 1
        ON CONFLICT (pipeline, writer) DO UPDATE SET purged_letters = i.purged_letters + EXCLUDED.purged_letters)
    SELECT count(*) INTO purged FROM deleted;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION pulse._purge_letters(interval, text, bigint) IS
'what pulse.dlq_purge() and dlq_retention do: deletes settled letters of a pipeline (NULL = all, also of pipelines that are gone), max_letters at most (NULL = all), and writes their number into the ledger';

CREATE FUNCTION pulse.dlq_purge(older_than interval) RETURNS bigint
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF older_than IS NULL OR older_than < interval '0' THEN
        RAISE EXCEPTION 'older_than must be an interval that is not negative' USING ERRCODE = 'invalid_parameter_value';
    ELSIF to_regclass('raw.dlq') IS NULL THEN
        RETURN 0; -- no pipeline yet
    END IF;
    RETURN pulse._purge_letters(older_than, NULL, NULL);
END
$$;
COMMENT ON FUNCTION pulse.dlq_purge(interval) IS
'deletes dead letters that were replayed or discarded longer than older_than ago, never new or parked ones. While the pipeline has
a dlq_topic and brokers, nor those that are not forwarded yet, whatever keeps them back, except one that Kafka refused for itself (forward_error) and
all of a pipeline that reads its dlq_topic itself. Returns how many. Errors: 22023, 42501 a superuser calls and raw.dlq belongs to nobody of that kind';
