-- Questions to the counters, their recount, metrics and health, without a worker.
\set SHOW_CONTEXT never
SET timezone = 'Pacific/Auckland';
SELECT pulse.create_pipeline('counters', ARRAY['counted'], settings => '{"partition_by": "none", "counters": "hour,user_day"}');
SELECT pulse.daily_count('page_view', '2026-11-20');
SELECT count(*), sum(count) FROM pulse.hourly_counts('page_view', '2026-11-20');
INSERT INTO raw.events (event_id, event_type, user_id, event_timestamp)
SELECT n::text, CASE WHEN n < 8 THEN 'page_view' ELSE 'payment' END, 'u-' || n % 2, '2026-11-20 23:30+00'::timestamptz - n * interval '90 min'
  FROM generate_series(0, 19) n;
SELECT what, ok FROM pulse.verify('counters') WHERE what LIKE 'counters%';
SELECT pulse.rebuild_counters('counters');
SELECT what, expected, found, ok FROM pulse.verify('counters') WHERE what LIKE 'counters%';
SELECT hour, count FROM pulse.hourly_counts('page_view', '2026-11-20') WHERE count > 0;
SELECT pulse.user_daily_count('u-1', 'page_view', '2026-11-20'), pulse.user_daily_count('nobody', 'page_view', '2026-11-20');
SELECT pulse.alter_pipeline('counters', '{"counters": "minute,hour,day"}');
SELECT pulse.user_daily_count('u-1', 'page_view', '2026-11-20');
-- Only the days the range touches.
DELETE FROM raw.events;
SELECT pulse.rebuild_counters('counters', '2026-11-19 12:00+00', '2026-11-20 00:00+00');
SELECT bucket AT TIME ZONE 'UTC' AS day, sum(count) FROM (SELECT date_trunc('day', bucket, 'UTC') AS bucket, count FROM live._events_hour) h GROUP BY 1;
SELECT pulse.rebuild_counters('nobody');
SELECT pulse.rebuild_counters(NULL);
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT pulse.rebuild_counters('counters');
ROLLBACK;
CREATE TABLE public.plain (id text PRIMARY KEY);
SELECT pulse.create_pipeline('plain', ARRAY['plain'], 'public.plain');
SELECT pulse.rebuild_counters('plain');
SELECT pulse.create_pipeline('second', ARRAY['counted']);
SELECT pulse.rebuild_counters('counters');

SELECT * FROM pulse.metrics('counters');
SELECT * FROM pulse.metrics('nobody');
SELECT pipeline, status, reason FROM pulse.health();
SELECT pipeline, item, state, lag, note FROM pulse.top;

-- However the list is written.
SELECT pulse.drop_pipeline('second');
SELECT pulse.alter_pipeline('counters', '{"counters": " \"minute\", Hour,DAY"}');
SELECT pulse.rebuild_counters('counters');
SELECT accepted, rejected FROM pulse.ingest('counters', jsonb_build_object('event_id', 'x', 'event_type', 'View', 'user_id', 'u', 'event_timestamp', now()));
SELECT what, expected, found, ok FROM pulse.verify('counters') WHERE what LIKE 'counters%';
SELECT sum(count) FROM live.events_hour;

SELECT pulse.drop_pipeline(name) FROM pulse.pipelines;
SET client_min_messages = warning;
DROP TABLE public.plain;
DROP SCHEMA raw, live CASCADE;
