-- JSON Schemas through alter_pipeline: what is refused and with which pointer, hostile ones too; what events are told.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT pulse.create_pipeline('judged', '{judged}');
RESET client_min_messages;
CREATE FUNCTION alter_schema(schema jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    PERFORM pulse.alter_pipeline('judged', jsonb_build_object('schema', schema));
    RETURN 'ok';
EXCEPTION WHEN invalid_parameter_value THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN SQLERRM || coalesce(' | ' || nullif(hint, ''), '');
END
$$;
SELECT alter_schema('[]');
SELECT alter_schema('{"properties": {"price": {"minimum": null}}}');
SELECT alter_schema('{"properties": {"price": {"typo": 1}}}');
SELECT alter_schema('{"properties": {"a/b": {"const": 1}}}');
SELECT alter_schema('{"properties": {"tree": {"$ref": "#"}}}');
SELECT alter_schema('{"not": {"$ref": "http://example.com/schema"}}');
SELECT alter_schema('{"pattern": "("}');
SELECT alter_schema('{"pattern": "(a*)*"}');
SELECT alter_schema('{"uniqueItems": true}');
SELECT alter_schema('{"enum": [{"a": 1}]}');
SELECT alter_schema('{"required": ["a"], "additionalProperties": false}');
SELECT alter_schema('{"patternProperties": {"^x": {}}, "additionalProperties": false}');
SELECT alter_schema('{"multipleOf": 0.01}');
SELECT alter_schema('{"minimum": 1e400}');
SELECT alter_schema(jsonb_build_object('title', repeat('x', 300000)));
SELECT alter_schema((repeat('{"not": ', 65) || '{}' || repeat('}', 65))::jsonb) LIKE '%nested deeper than 64 levels%' AS too_deep;
SELECT alter_schema((SELECT jsonb_build_object('definitions', jsonb_object_agg('d' || n, jsonb_build_object('allOf', jsonb_build_array(
    jsonb_build_object('$ref', '#/definitions/d' || n - 1), jsonb_build_object('$ref', '#/definitions/d' || n - 1)))) || '{"d0": {}}')
    FROM generate_series(1, 40) n)) LIKE '%more than 1000 subschemas%' AS too_many;
SELECT pulse.create_pipeline('never', '{never}', settings => '{"schema": {"type": "int"}}');
SELECT settings FROM pulse.pipelines;

-- A null inside a schema is part of it, beside it takes a setting back.
SELECT alter_schema('{"properties": {"price": {"$ref": "#/definitions/money"}, "kind": {"enum": [null, "a"]}}, "required": ["price"],
                     "definitions": {"money": {"type": "number", "minimum": 0, "default": null}}}');
SELECT settings #> '{schema,definitions,money}' AS money FROM pulse.pipelines;
CREATE FUNCTION try(more text) RETURNS TABLE (code text, path text, message text) LANGUAGE sql AS $$
    SELECT coalesce(error_code, 'event'), error_path, error_message FROM pulse.decode('judged', convert_to(
        '{"event_type": "sale", "user_id": "u", "event_timestamp": "' || to_char(now(), 'YYYY-MM-DD') || 'T00:00:00Z"' || more || '}', 'UTF8'))
$$;
SELECT * FROM try(', "price": 12.5, "kind": null');
SELECT * FROM try(', "price": -1');
SELECT * FROM try(', "price": "12.5"');
SELECT path, left(message, 36) AS message FROM try('');
SELECT * FROM try(', "price": 1, "kind": "b"');
SELECT pulse.alter_pipeline('judged', '{"schema": null}');
SELECT settings FROM pulse.pipelines;
SELECT * FROM try(', "price": -1');

-- One that got in by another way: the pipeline says so.
UPDATE pulse.pipelines SET settings = '{"schema": {"$ref": "#"}}';
SELECT * FROM try('');
SELECT pulse.drop_pipeline('judged');
SET client_min_messages = warning;
DROP FUNCTION try(text), alter_schema(jsonb);
DROP SCHEMA raw, live CASCADE;
