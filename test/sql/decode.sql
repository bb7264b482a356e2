-- The decoder with a pipeline's own columns: each error code once, and what becomes of good events.
\set SHOW_CONTEXT never
SELECT pulse.create_pipeline('events', ARRAY['events'], settings => '{"max_message_bytes": "8kB", "reject_older_than": "0"}');
CREATE FUNCTION pg_temp.try(value text) RETURNS TABLE (code text, path text, message text) LANGUAGE sql AS $$
    SELECT coalesce(error_code, 'event'), error_path, error_message
      FROM pulse.decode('events', convert_to(value, 'UTF8'))
$$;
CREATE FUNCTION pg_temp.event(more text DEFAULT '') RETURNS text LANGUAGE sql AS $$
    SELECT '{"event_id": "e1", "event_type": "page_view", "user_id": "u1", "event_timestamp": "2026-11-20T12:34:56.789Z"' || more || '}'
$$;

SELECT jsonb_pretty(event) FROM pulse.decode('events', convert_to(pg_temp.event(
    ', "funnel_step_index": 3, "page_url": "/a", "device": null, "price": 12.50, "properties": {"list": [1, 2]}'), 'UTF8'));
SELECT event FROM pulse.decode('events', '{"event_type": 7, "user_id": true, "event_timestamp": 1795178096789}');
SELECT event -> 'event_timestamp' AS at FROM pulse.decode('events',
    '{"event_type": "a", "user_id": "u", "event_timestamp": "2026-11-20T23:59:59.9999999+05:30"}');

-- decode
SELECT * FROM pg_temp.try('{"event_type": ');
SELECT error_code, error_message FROM pulse.decode('events', '\xff7b7d');
SELECT error_code, error_path, error_message FROM pulse.decode('events', convert_to('{"event_type": "', 'UTF8') || '\xc0af'::bytea || convert_to('"}', 'UTF8'));
SELECT * FROM pg_temp.try(pg_temp.event(', "x": "a\u0000b"'));
SELECT * FROM pg_temp.try(pg_temp.event(', "x": "\ud800"'));
SELECT code, path FROM pg_temp.try(pg_temp.event(', "x": ' || repeat('[', 100) || repeat(']', 100)));
SELECT * FROM pg_temp.try(pg_temp.event(', "x": "' || repeat('x', 9000) || '"'));
SELECT * FROM pg_temp.try(pg_temp.event(', "funnel_step_index": 40000'));
SELECT * FROM pg_temp.try(pg_temp.event(', "user_id": "u2"'));
SELECT * FROM pg_temp.try('[1, 2]');
SELECT * FROM pg_temp.try('"text"');
SELECT * FROM pg_temp.try('');
SELECT error_code, error_message FROM pulse.decode('events', NULL);
SELECT error_code, error_message FROM pulse.decode('events', '\x0000000001020304');
-- schema
SELECT * FROM pg_temp.try('{"event_type": "a", "event_timestamp": 1}');
SELECT * FROM pg_temp.try('{"event_type": "a", "user_id": null, "event_timestamp": 1}');
SELECT * FROM pg_temp.try(pg_temp.event(', "funnel_step_index": "3"'));
SELECT * FROM pg_temp.try(pg_temp.event(', "page_url": {"a": 1}'));
SELECT * FROM pg_temp.try('{"event_type": "a", "user_id": "u", "event_timestamp": "20.11.2026"}');
SELECT * FROM pg_temp.try('{"event_type": "a", "user_id": "u", "event_timestamp": "2026-02-30T00:00:00Z"}');
SELECT code, path FROM pg_temp.try('{"event_type": "a", "user_id": "u", "event_timestamp": "9000-01-01T00:00:00Z"}');
SELECT code, path FROM pg_temp.try('{"event_id": "' || repeat('x', 3000) || '", "event_type": "a", "user_id": "u", "event_timestamp": 1}');
SELECT pulse.alter_pipeline('events', '{"reject_older_than": "1d"}');
SELECT code, path FROM pg_temp.try('{"event_type": "a", "user_id": "u", "event_timestamp": "2020-01-01T00:00:00Z"}');
SELECT pulse.alter_pipeline('events', '{"unknown_fields": "reject", "reject_older_than": "0"}');
SELECT * FROM pg_temp.try(pg_temp.event(', "colour": "red"'));
SELECT pulse.alter_pipeline('events', '{"unknown_fields": "drop"}');
SELECT event ? 'colour' AS has_it, event -> 'properties' AS properties
  FROM pulse.decode('events', convert_to(pg_temp.event(', "colour": "red"'), 'UTF8'));
-- B5 aborted the whole server in another extension: an exponent that underflows.
SELECT code FROM pg_temp.try(pg_temp.event(', "x": 1e-99999999999999999999'));
-- An existing server process has been well all along.
SELECT error_code FROM pulse.decode('events', '{}');

-- Other types, by the table's columns.
CREATE TABLE typed (id uuid PRIMARY KEY, i2 int2, i4 int4, i8 int8, f4 real, f8 double precision, n numeric(6, 2),
    b boolean, t text, v varchar(3), d date, ts timestamp, tz timestamptz, j json, jb jsonb, ip inet);
SELECT pulse.create_pipeline('typed', ARRAY['typed'], 'public.typed');
SELECT jsonb_pretty(event) FROM pulse.decode('typed', convert_to(
    '{"id": "550e8400-e29b-41d4-a716-446655440000", "i2": -32768, "i4": 2147483647, "i8": 9223372036854775807, "f4": 0.5,
      "f8": 1e30, "n": 1234.56, "b": false, "t": "ü", "v": "abc", "d": "2026-02-28", "ts": "2026-11-20T00:00:00Z",
      "tz": 0, "j": {"a": 1}, "jb": [1, {"b": null}], "ip": "10.0.0.1"}', 'UTF8'));
SELECT v AS value, error_code, error_path FROM unnest(ARRAY['{"id": 1}', '{"id": "550e8400"}', '{"i2": 32768}', '{"i4": 1.5}',
    '{"i8": 9223372036854775808}', '{"f4": 1e39}', '{"f8": 1e309}', '{"b": 1}', '{"b": "true"}', '{"d": "2026-13-01"}',
    '{"ts": "2026-11-20"}', '{"tz": 1.5}', '{"i4": "12"}', '{"i4": true}']) v,
    pulse.decode('typed', convert_to(regexp_replace(v, '^\{(?!"id)', '{"id": "550e8400-e29b-41d4-a716-446655440000", '), 'UTF8'));

SELECT * FROM pulse.decode('nobody', '{}');
SELECT * FROM pulse.decode(NULL, '{}');
SELECT pulse.drop_pipeline(name) FROM pulse.pipelines ORDER BY name;
DROP TABLE typed;
SET client_min_messages = warning;
DROP SCHEMA raw, live CASCADE;
