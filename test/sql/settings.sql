-- Every setting: default, unit, limits; and what bad values are told. (Test builds have more.)
\set SHOW_CONTEXT never
SELECT name, setting, unit, vartype AS type, min_val, max_val, context
  FROM pg_settings WHERE name LIKE 'pulse.%' AND extra_desc IS DISTINCT FROM 'Test builds only.' AND name <> 'pulse.database'
 ORDER BY name COLLATE "C";
SELECT name, context FROM pg_settings WHERE name = 'pulse.database';
SELECT name AS setting_without_description FROM pg_settings WHERE name LIKE 'pulse.%' AND coalesce(short_desc, '') = '';

-- They are the server's, not a session's.
SET pulse.brokers = 'elsewhere:9092';
ALTER SYSTEM SET pulse.batch_max_rows = 0;
ALTER SYSTEM SET pulse.batch_max_rows = 1000001;
ALTER SYSTEM SET pulse.batch_max_wait = '2min';
ALTER SYSTEM SET pulse.batch_max_wait = '1 fortnight';
ALTER SYSTEM SET pulse.max_error_ratio = 1.5;
ALTER SYSTEM SET pulse.on_offset_lost = 'ignore';
ALTER SYSTEM SET pulse.unknown_fields = 'maybe';
ALTER SYSTEM SET pulse.counters = 'minute,week';
ALTER SYSTEM SET pulse.counters = 'minute,,hour';
ALTER SYSTEM SET pulse.no_such_thing = 1;

-- The same for a pipeline's own settings.
SELECT pulse.create_pipeline('tuned', ARRAY['tuned'], settings =>
    '{"batch_max_rows": 500, "batch_max_wait": "20ms", "queue_memory": "8MB", "max_error_ratio": 0.25,
      "counters": "minute,user_day", "on_offset_lost": "latest", "retention": "30d", "start_position": "latest",
      "kafka_options": "fetch.min.bytes=1, fetch.wait.max.ms=100", "workers": 2, "unknown_fields": "reject"}');
SELECT settings FROM pulse.pipelines WHERE name = 'tuned';
SELECT version AS before FROM pulse.pipelines \gset
SELECT pulse.alter_pipeline('tuned', '{"workers": 3, "retention": null}');
SELECT version > :before AS is_newer, settings ->> 'workers' AS workers, settings ? 'retention' AS has_retention
  FROM pulse.pipelines WHERE name = 'tuned';

-- However a list of counters is written, it is the same.
SELECT pulse._counters_kept(jsonb_build_object('counters', list)) FROM unnest(ARRAY['minute,hour', ' Minute,	HOUR ', '"minute",hour', 'user_day', '']) list;

SELECT pulse.alter_pipeline('tuned', '{"batch_max_rows": 0}');
SELECT pulse.alter_pipeline('tuned', '{"batch_max_rows": "many"}');
SELECT pulse.alter_pipeline('tuned', '{"batch_max_wait": "1 fortnight"}');
SELECT pulse.alter_pipeline('tuned', '{"dlq_retention": "-1 day"}');
SELECT pulse.alter_pipeline('tuned', '{"queue_memory": "1kB"}');
SELECT pulse.alter_pipeline('tuned', '{"max_error_ratio": 2}');
SELECT pulse.alter_pipeline('tuned', '{"counters": "week"}');
SELECT pulse.alter_pipeline('tuned', '{"counters": "\"Minute\""}');
SELECT pulse.alter_pipeline('tuned', '{"on_offset_lost": "shrug"}');
SELECT pulse.alter_pipeline('tuned', '{"start_position": "yesterdayish"}');
SELECT pulse.alter_pipeline('tuned', '{"workers": 33}');
SELECT pulse.alter_pipeline('tuned', '{"workers": -1}');
SELECT pulse.alter_pipeline('tuned', '{"database": "elsewhere"}');
SELECT pulse.alter_pipeline('tuned', '{"topic": "elsewhere"}');
SELECT pulse.alter_pipeline('tuned', '{"fsync": "off"}');
SELECT pulse.alter_pipeline('tuned', '{"partition_by": "week"}');
SELECT pulse.alter_pipeline('tuned', '{"mapping": "user"}');
SELECT pulse.alter_pipeline('tuned', '[1]');
SELECT pulse.alter_pipeline('tuned', '{"kafka_options": "sasl.kerberos.kinit.cmd=reboot"}');
SELECT pulse.alter_pipeline('tuned', '{"kafka_options": "plugin.library.paths=evil"}');
SELECT pulse.alter_pipeline('tuned', '{"kafka_options": "enable.auto.commit=true"}');
SELECT pulse.alter_pipeline('tuned', '{"kafka_options": "fetch.min.bytes=lots"}');
SELECT pulse.alter_pipeline('tuned', '{"kafka_options": "fetch.min.bytes"}');
-- Nothing of it stuck.
SELECT settings FROM pulse.pipelines WHERE name = 'tuned';
SELECT pulse.drop_pipeline('tuned');
SET client_min_messages = warning;
DROP SCHEMA raw, live CASCADE;
