-- Stages: SQL of the pipeline's owner over the relation batch. They are run in src/store/stages.cpp.

CREATE TABLE pulse.stages (
    pipeline    text NOT NULL REFERENCES pulse.pipelines ON DELETE CASCADE,
    name        text NOT NULL,
    at_position int NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('transform', 'filter', 'enrich', 'sink')),
    body        text NOT NULL,
    added_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    added_by    text NOT NULL DEFAULT current_user,
    PRIMARY KEY (pipeline, name)
);
SELECT pg_catalog.pg_extension_config_dump('pulse.stages', '');
COMMENT ON TABLE pulse.stages IS 'what runs between decoding and the target of a pipeline, or behind it; made by pulse.add_stage()';
COMMENT ON COLUMN pulse.stages.at_position IS '1, 2, ...: the order in which they run; sinks run behind the INSERT into the target, in this order too';
CREATE TRIGGER owners BEFORE INSERT OR UPDATE OR DELETE ON pulse.stages FOR EACH ROW EXECUTE FUNCTION pulse._guard_stages();
CREATE TRIGGER owners_truncate BEFORE TRUNCATE ON pulse.stages FOR EACH STATEMENT EXECUTE FUNCTION pulse._guard_truncate();
COMMENT ON COLUMN pulse.stages.body IS 'SQL over the relation batch, run as the role that writes the target, with search_path pg_catalog';

CREATE FUNCTION pulse._change_stages(name text) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE pulse.pipelines p SET version = p.version + 1, changed_at = clock_timestamp() WHERE p.name = _change_stages.name;
    IF NOT FOUND THEN
        PERFORM pulse._refuse_unknown(name);
    END IF;
END
$$;
COMMENT ON FUNCTION pulse._change_stages(text) IS 'locks the pipeline against others who change its stages, and makes its workers start again at commit';

CREATE FUNCTION pulse._check_stages(name text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_check_stages';
COMMENT ON FUNCTION pulse._check_stages(text) IS 'raises unless the stages of the pipeline could be run with its target as it is now';

CREATE FUNCTION pulse.add_stage(pipeline text, name text, kind text, body text, at_position int DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    count int;
    place int;
BEGIN
    PERFORM pulse._require('pipeline', pipeline IS NOT NULL), pulse._require('name', name IS NOT NULL),
            pulse._require('kind', kind IS NOT NULL), pulse._require('body', body IS NOT NULL);
    IF kind = 'aggregate' THEN
        RAISE EXCEPTION 'there are no windows yet for an aggregate stage' USING ERRCODE = 'feature_not_supported',
            HINT = 'A sink can keep aggregates: INSERT INTO table SELECT ... FROM batch GROUP BY ... ON CONFLICT ... DO UPDATE.';
    ELSIF kind NOT IN ('transform', 'filter', 'enrich', 'sink') THEN
        RAISE EXCEPTION 'stages are of kind transform, filter, enrich or sink, not %', kind USING ERRCODE = 'invalid_parameter_value';
    ELSIF name = '' OR octet_length(name) > 63 THEN
        RAISE EXCEPTION 'the name of a stage has 1 to 63 bytes' USING ERRCODE = 'invalid_parameter_value';
    ELSIF at_position < 1 THEN
        RAISE EXCEPTION 'at_position counts from 1' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pulse._change_stages(pipeline);
    SELECT count(*) INTO count FROM pulse.stages s WHERE s.pipeline = add_stage.pipeline;
    IF EXISTS (SELECT FROM pulse.stages s WHERE s.pipeline = add_stage.pipeline AND s.name = add_stage.name) THEN
        RAISE EXCEPTION 'pipeline "%" has a stage "%" already', pipeline, name USING ERRCODE = 'duplicate_object',
            HINT = format('pulse.drop_stage(%L, %L) in the same transaction replaces it.', pipeline, name);
    END IF;
    place := least(coalesce(at_position, count + 1), count + 1);
    UPDATE pulse.stages s SET at_position = s.at_position + 1 WHERE s.pipeline = add_stage.pipeline AND s.at_position >= place;
    INSERT INTO pulse.stages (pipeline, name, at_position, kind, body) VALUES (pipeline, name, place, kind, body);
    PERFORM pulse._check_stages(pipeline), pulse._wake();
END
$$;
COMMENT ON FUNCTION pulse.add_stage(text, text, text, text, int) IS
'adds a stage to the pipeline, at the end or at_position (from 1). body is SQL over the relation batch, whose columns are those of the
target, run as the role that writes the target with search_path pg_catalog, in the transaction of the rows. transform, enrich: one SELECT whose columns
carry names of target columns; one it leaves out is NULL or its default (event_id and event_timestamp stay), kafka_* and ingested_at are the record''s own whatever it says. filter: one
SELECT; a record it returns no row for is left out and counted as filtered. Each sees its record alone in batch: at most one row a record. sink: one INSERT ... SELECT from the
rows of batch that were really inserted, never a duplicate. A row that a stage refuses (SQLSTATE 21, 22, 23, 44, 54, P0) is a dead letter, stage_error. The batch in flight commits, then workers start again with it (pause the pipeline before, or they may take a few records first).
Errors: 42704 no such pipeline, 42501 the caller has not its rights, 42710 the name is taken, 22023 kind, position or not one statement, 42601, 42703 and 42804 the body or its columns, 54000 more than 32 stages, 0A000 aggregate';

CREATE FUNCTION pulse.drop_stage(pipeline text, name text) RETURNS void
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place int;
BEGIN
    PERFORM pulse._require('pipeline', pipeline IS NOT NULL), pulse._require('name', name IS NOT NULL);
    PERFORM pulse._change_stages(pipeline);
    DELETE FROM pulse.stages s WHERE s.pipeline = drop_stage.pipeline AND s.name = drop_stage.name RETURNING s.at_position INTO place;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'pipeline "%" has no stage "%"', pipeline, name USING ERRCODE = 'undefined_object';
    END IF;
    UPDATE pulse.stages s SET at_position = s.at_position - 1 WHERE s.pipeline = drop_stage.pipeline AND s.at_position > place;
    PERFORM pulse._wake();
END
$$;
COMMENT ON FUNCTION pulse.drop_stage(text, text) IS 'takes a stage away; the batch in flight commits, then workers start again without it. Errors: 42704, 42501';

CREATE FUNCTION pulse._stat_stages(OUT pipeline text, OUT name text, OUT runs bigint, OUT records_in bigint, OUT records_out bigint,
                                   OUT refused bigint, OUT total_ms double precision)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_stat_stages';
COMMENT ON FUNCTION pulse._stat_stages() IS 'the counts of pulse.stat_stage';

CREATE VIEW pulse.stat_stage AS
SELECT s.pipeline, s.name, s.at_position, s.kind, coalesce(r.runs, 0) AS runs, coalesce(r.records_in, 0) AS records_in,
       coalesce(r.records_out, 0) AS records_out, coalesce(r.refused, 0) AS refused, coalesce(r.total_ms, 0) AS total_ms
  FROM pulse.stages s LEFT JOIN pulse._stat_stages() r USING (pipeline, name);
COMMENT ON VIEW pulse.stat_stage IS
'what stages have done since the server started, by workers, replays and ingest() alike, batches that were rolled back included: runs, records_in,
records_out (of a sink: rows it wrote), refused (dead letters with stage_error), total_ms (milliseconds of runs that did not fail)';
