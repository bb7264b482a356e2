-- create_pipeline, alter_pipeline, drop_pipeline, and everything that asks a coordinator there isn't.
\set SHOW_CONTEXT never

SELECT pulse.create_pipeline('clicks', ARRAY['clicks_de', 'clicks_fr']);
SELECT name, topics, target, settings, columns, owner = current_user AS is_mine, desired_state
  FROM pulse.pipelines;
\d raw.events
\d raw.dlq
\d live.events_minute
SELECT * FROM pulse.stat_partition;
SELECT pipeline, topics, target, state, workers, lag FROM pulse.stat_pipeline;

-- Refused, with what to do about it.
SELECT pulse.create_pipeline('clicks', ARRAY['other']);
SELECT pulse.create_pipeline('', ARRAY['x']);
SELECT pulse.create_pipeline(repeat('x', 64), ARRAY['x']);
SELECT pulse.create_pipeline('none', ARRAY[]::text[]);
SELECT pulse.create_pipeline('bad', ARRAY['has space']);
SELECT pulse.create_pipeline('bad', ARRAY['ok', NULL]);
SELECT pulse.create_pipeline('bad', ARRAY[repeat('x', 250)]);
SELECT pulse.create_pipeline('bad', ARRAY['^' || repeat('(', 249)]); -- no longer than a topic's name: 100,000 of them overflow the stack of std::regex
SELECT pulse.create_pipeline('bad', ARRAY['^a\d']); -- the syntax is POSIX
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'public.nowhere');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'pg_catalog.pg_class');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'live._events_minute');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'pulse.offsets');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'raw.dlq');
CREATE TEMP TABLE passing (a text PRIMARY KEY);
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'pg_temp.passing');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'orders'); -- which orders?
SELECT pulse.create_pipeline('bad', ARRAY['x'], settings => '{"batch_max_rows": -1}');
-- No argument is missing in silence.
SELECT pulse.create_pipeline(NULL, ARRAY['x']);
SELECT pulse.create_pipeline('bad', NULL);
SELECT pulse.create_pipeline('bad', ARRAY['x'], NULL);
SELECT pulse.create_pipeline('bad', ARRAY['x'], settings => NULL);
SELECT pulse.alter_pipeline(NULL, '{}');
SELECT pulse.alter_pipeline('clicks', NULL);
SELECT pulse.drop_pipeline(NULL);
SELECT pulse.pause(NULL);
SELECT pulse.resume(NULL);
SELECT pulse.stop(NULL);
SELECT pulse.seek(NULL, 'earliest');
SELECT pulse.accept_gap('clicks', NULL, 0);
SELECT pulse.accept_gap('clicks', 'x', NULL);
SELECT pulse.skip('clicks', 'x', 0, NULL);
SELECT pulse.wait_until_caught_up(NULL);
SELECT pulse.wait_until_caught_up('clicks', NULL);
SELECT * FROM pulse.verify(NULL);
SELECT * FROM pulse.decode(NULL, '');
SELECT pulse.alter_pipeline('nobody', '{}');
SELECT pulse.drop_pipeline('nobody');
SELECT count(*) AS pipelines FROM pulse.pipelines;

-- Any table can be a target.
CREATE TABLE public.orders (id bigint PRIMARY KEY, amount numeric(10, 2) NOT NULL, at timestamptz, properties jsonb);
SELECT pulse.create_pipeline('orders', ARRAY['^orders_.*'], 'public.orders', '{"mapping": {"amount": "/price/total"}}');
SELECT target, columns, settings FROM pulse.pipelines WHERE name = 'orders';
CREATE TABLE public.heap (a text, b int);
SELECT pulse.create_pipeline('heap', ARRAY['heap'], 'public.heap');
CREATE TABLE public.numbered (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text);
SELECT pulse.create_pipeline('numbered', ARRAY['numbered'], 'public.numbered'); -- its key says nothing of the event
SELECT pulse.drop_pipeline('numbered');
DROP TABLE numbered;
CREATE TABLE public.deferred (a text PRIMARY KEY DEFERRABLE);
SELECT pulse.create_pipeline('deferred', ARRAY['deferred'], 'public.deferred');
CREATE TABLE public.guarded (a text PRIMARY KEY);
ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY;
CREATE ROLE regress_pulse_writer;
SELECT pulse.create_pipeline('guarded', ARRAY['guarded'], 'public.guarded', '{"role": "regress_pulse_writer"}');
ALTER ROLE regress_pulse_writer BYPASSRLS;
SELECT pulse.create_pipeline('guarded', ARRAY['guarded'], 'public.guarded', '{"role": "regress_pulse_writer"}');
SELECT pulse.drop_pipeline('guarded');
DROP ROLE regress_pulse_writer;
-- What is no table, or none that keeps the promise.
CREATE VIEW public.a_view AS SELECT a FROM public.heap;
CREATE MATERIALIZED VIEW public.a_matview AS SELECT a FROM public.heap;
CREATE SEQUENCE public.a_sequence;
CREATE TYPE public.a_type AS (a text);
CREATE UNLOGGED TABLE public.unlogged (a text PRIMARY KEY);
CREATE FOREIGN DATA WRAPPER regress_pulse_wrapper;
CREATE SERVER regress_pulse_server FOREIGN DATA WRAPPER regress_pulse_wrapper;
CREATE FOREIGN TABLE public.elsewhere (a text) SERVER regress_pulse_server;
CREATE TABLE public.ruled (a text PRIMARY KEY);
CREATE RULE nothing AS ON INSERT TO public.ruled DO INSTEAD NOTHING;
CREATE TABLE public.parted (a text, b int) PARTITION BY LIST (b);
CREATE FOREIGN TABLE public.parted_1 PARTITION OF public.parted FOR VALUES IN (1) SERVER regress_pulse_server;
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'public.a_view');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'public.a_matview');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'public.a_sequence');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'public.a_type');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'public.unlogged');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'public.elsewhere');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'public.ruled');
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'public.parted');
DROP FOREIGN DATA WRAPPER regress_pulse_wrapper CASCADE;
DROP TABLE unlogged, ruled, parted;
DROP MATERIALIZED VIEW a_matview;
DROP SEQUENCE a_sequence;
DROP TYPE a_type;
-- Metadata of a type that would lose some of it.
CREATE TABLE public.narrow (a text PRIMARY KEY, kafka_offset int);
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'public.narrow');
ALTER TABLE public.narrow ALTER kafka_offset TYPE bigint, ADD kafka_topic varchar(9);
SELECT pulse.create_pipeline('bad', ARRAY['x'], 'public.narrow');
DROP TABLE narrow;

-- A mapping is checked whole.
SELECT pulse.alter_pipeline('orders', '{"mapping": {"no_such_column": "/x"}}');
SELECT pulse.alter_pipeline('orders', '{"mapping": {"amount": "price"}}');
SELECT pulse.alter_pipeline('orders', '{"mapping": {"amount": "/a~2b"}}');
SELECT pulse.alter_pipeline('orders', '{"mapping": {"amount": "/a~"}}');
SELECT pulse.alter_pipeline('orders', '{"mapping": {"amount": ""}}');
SELECT pulse.alter_pipeline('orders', jsonb_build_object('mapping', jsonb_build_object('amount', '/' || repeat('x', 255))));
SELECT pulse.alter_pipeline('orders', '{"mapping": {"amount": null}}');
SELECT settings FROM pulse.pipelines WHERE name = 'orders';
-- Elements of arrays by their number.
SELECT pulse.alter_pipeline('orders', '{"mapping": {"amount": "/lines/1/price"}}');
SELECT event, error_code, error_path FROM pulse.decode('orders', '{"id": 1, "lines": [{"price": 5}, {"price": 7.5}]}');
SELECT event, error_code, error_path FROM pulse.decode('orders', '{"id": 1, "lines": [{}, {"price": "7.5"}]}');
-- A column that the mapping names goes: said at once, and mended by another mapping.
ALTER TABLE public.orders RENAME amount TO price;
SELECT pulse.alter_pipeline('orders', '{}');
SELECT * FROM pulse.decode('orders', '{"id": 1}');
SELECT pulse.alter_pipeline('orders', '{"mapping": {"price": "/lines/0/price"}}');
SELECT event FROM pulse.decode('orders', '{"id": 1, "lines": [{"price": 5}]}');

-- As many as there is room for.
BEGIN;
SELECT count(pulse.create_pipeline('p' || n, ARRAY['x'], 'public.orders'))
  FROM generate_series(1, 64 - (SELECT count(*) FROM pulse.pipelines)::int) n;
SELECT pulse.create_pipeline('one_too_many', ARRAY['x'], 'public.orders');
ROLLBACK;

-- A column that comes is taken up by the next alter_pipeline.
ALTER TABLE public.orders ADD COLUMN note text;
SELECT pulse.alter_pipeline('orders', '{}');
SELECT columns FROM pulse.pipelines WHERE name = 'orders';

-- Without brokers nothing runs, and whoever asks is told so.
SELECT pulse.pause('clicks');
SELECT pulse.resume('clicks');
SELECT pulse.stop('clicks');
SELECT pulse.seek('clicks', 'earliest');
SELECT pulse.seek('heap', 'earliest');
SELECT pulse.seek('nobody', 'earliest');
SELECT pulse.seek('clicks', 'the day before yesterday');
SELECT pulse.seek('clicks', 'infinity');
SELECT pulse.seek('clicks', NULL);
SELECT pulse.seek('clicks', 'after_rows');
SELECT pulse.accept_gap('clicks', 'clicks_de', 0);
SELECT pulse.accept_gap('clicks', 'clicks_de', -1);
SELECT pulse.skip('clicks', 'clicks_de', 0, 5);
SELECT pulse._seek(NULL, NULL, NULL, NULL); -- crashed once
SELECT pulse.wait_until_caught_up('clicks', '1s');
SELECT pulse.wait_until_caught_up('nobody', '1s');
SELECT pulse.ingest_horizon() <= clock_timestamp() AS has_horizon;

-- Rows that could be inserted again.
CREATE TABLE public.full_heap (a text);
INSERT INTO full_heap VALUES ('there');
SELECT pulse.create_pipeline('full', ARRAY['full'], 'public.full_heap');
SELECT pulse.create_pipeline('full', ARRAY['full'], 'public.full_heap', '{"start_position": "after_rows"}');
DROP TABLE full_heap;

-- Dropping a pipeline keeps its data and says where it was.
INSERT INTO pulse.offsets (pipeline, topic, partition, next_offset, highest_offset) VALUES ('clicks', 'clicks_de', 0, 42, 42);
SELECT topic, partition, next_offset, lag, state FROM pulse.stat_partition;
SELECT pulse.drop_pipeline('clicks');
SELECT pipeline, topic, partition, old_offset, new_offset, reason FROM pulse.offset_log;
SELECT count(*) AS offsets FROM pulse.offsets;
SELECT to_regclass('raw.events') IS NOT NULL AS has_rows;
SELECT pulse.drop_pipeline(name) FROM pulse.pipelines ORDER BY name;
DELETE FROM pulse.offset_log;
DROP TABLE orders, heap, deferred, guarded CASCADE;
SET client_min_messages = warning;
DROP SCHEMA raw, live CASCADE;
