-- Pipelines over rows, counters and letters of others: of before, of another name, of another table.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';

CREATE FUNCTION pg_temp.write(pipeline text, target text, at_partition int, first int, last int) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN -- as a worker would
    EXECUTE format('INSERT INTO %s (event_id, event_type, user_id, event_timestamp, kafka_topic, kafka_partition, kafka_offset) '
                   'SELECT $1 || n, ''view'', ''u'', ''2026-11-20 12:34:56+00'', ''t'', $2, n FROM generate_series($3, $4) n', target)
      USING at_partition || '-', at_partition, first, last;
    INSERT INTO pulse.offsets AS o (pipeline, topic, partition, next_offset, highest_offset, records, rows, adopted_rows)
    SELECT write.pipeline, 't', at_partition, last + 1, last + 1, last - first + 1, last - first + 1, coalesce(max(l.rows), 0)
      FROM pulse._leftovers l WHERE l.pipeline = write.pipeline AND l.topic = 't' AND l.partition = at_partition
    ON CONFLICT ON CONSTRAINT offsets_pkey DO UPDATE SET next_offset = EXCLUDED.next_offset,
       highest_offset = EXCLUDED.highest_offset, records = o.records + EXCLUDED.records, rows = o.rows + EXCLUDED.rows;
    DELETE FROM pulse._leftovers l WHERE l.pipeline = write.pipeline AND l.partition = at_partition;
    INSERT INTO live._events_minute AS c VALUES ('2026-11-20 12:34+00', 'view', pipeline, 0, last - first + 1)
        ON CONFLICT ON CONSTRAINT _events_minute_pkey DO UPDATE SET count = c.count + EXCLUDED.count;
    INSERT INTO live._events_hour AS c VALUES ('2026-11-20 12:00+00', 'view', pipeline, 0, last - first + 1)
        ON CONFLICT ON CONSTRAINT _events_hour_pkey DO UPDATE SET count = c.count + EXCLUDED.count;
    INSERT INTO live._events_day AS c VALUES ('2026-11-20 00:00+00', 'view', pipeline, 0, last - first + 1)
        ON CONFLICT ON CONSTRAINT _events_day_pkey DO UPDATE SET count = c.count + EXCLUDED.count;
END
$$;
CREATE FUNCTION pg_temp.books(pipeline text) RETURNS TABLE (what text, expected bigint, found bigint, ok boolean)
    LANGUAGE sql AS $$ SELECT v.what, sum(v.expected)::bigint, sum(v.found)::bigint, bool_and(v.ok) FROM pulse.verify(pipeline) v
    WHERE v.what LIKE 'rows in%' OR v.what LIKE 'counters%' GROUP BY 1 ORDER BY 1 $$;
SELECT pulse.create_pipeline('first', ARRAY['t'], settings => '{"partition_by": "none"}');

-- The one that writes on has the rows and counters of both, whichever goes first.
SELECT pg_temp.write('first', 'raw.events', 0, 0, 4);
SELECT pulse.create_pipeline('second', ARRAY['t']);
SELECT pg_temp.write('second', 'raw.events', 0, 5, 6), pg_temp.write('first', 'raw.events', 0, 7, 9), pg_temp.write('second', 'raw.events', 1, 0, 2);
BEGIN;
SELECT pulse.drop_pipeline('first');
SELECT * FROM pg_temp.books('second');
SELECT pulse.rebuild_counters('second');
SELECT bool_and(ok) FROM pg_temp.books('second');
ROLLBACK;
BEGIN;
SELECT pulse.drop_pipeline('second');
SELECT * FROM pg_temp.books('first');
SELECT pulse.drop_pipeline('first');
SELECT pulse.create_pipeline('first', ARRAY['t']);
SELECT * FROM pg_temp.books('first');
ROLLBACK;
SELECT pulse.drop_pipeline('second');

-- The same name over another table: its counters are of the rows there.
CREATE TABLE public.others (LIKE raw.events INCLUDING ALL);
INSERT INTO others (event_id, event_type, user_id, event_timestamp) VALUES ('o', 'buy', 'u', '2026-11-20 12:34:56+00');
BEGIN;
SELECT pulse.drop_pipeline('first');
SELECT pulse.create_pipeline('first', ARRAY['t'], 'public.others');
SELECT * FROM pg_temp.books('first');
SELECT bucket, event_type, count FROM live.events_hour;
ROLLBACK;

-- Its table emptied meanwhile, or the extension dropped: known by no name.
BEGIN;
SELECT pulse.drop_pipeline('first');
TRUNCATE raw.events;
SELECT pulse.create_pipeline('first', ARRAY['t']);
SELECT * FROM pg_temp.books('first');
ROLLBACK;
BEGIN;
DELETE FROM pulse.pipelines;
DELETE FROM pulse.offsets;
DELETE FROM pulse._leftovers;
SELECT pulse.create_pipeline('heir', ARRAY['t']);
SELECT bucket, event_type, count FROM live.events_hour;
SELECT * FROM pg_temp.books('heir');
ROLLBACK;

-- What was quarantined or skipped stays so under its name, also by its letters alone.
INSERT INTO raw.dlq (pipeline, kafka_topic, topic_epoch, kafka_partition, kafka_offset, error_class, error_code, error_message)
VALUES ('first', 't', 0, 0, 20, 'operator', 'quarantined', 'crashed'), ('first', 't', 0, 0, 21, 'decode', 'syntax', 'bad'),
       ('second', 't', 0, 0, 22, 'operator', 'skipped', 'by hand');
INSERT INTO pulse._set_aside VALUES ('first', 't', 0, 0, 99, 'skipped', 'one to come');
SELECT pulse.drop_pipeline('first');
SELECT pulse.create_pipeline('first', ARRAY['t']);
SELECT pipeline, at_offset, error_code, message FROM pulse._set_aside ORDER BY 2;

-- A target that became a view is not read: its owner's code would run as whoever looks.
CREATE TABLE public.turning (event_id text PRIMARY KEY, event_type text NOT NULL, event_timestamp timestamptz NOT NULL);
SELECT pulse.create_pipeline('turning', ARRAY['turning'], 'public.turning');
DROP TABLE turning;
CREATE FUNCTION public.trap() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the trap ran as %', current_user; END $$;
CREATE VIEW public.turning AS SELECT trap() AS event_id, 'view'::text AS event_type, now() AS event_timestamp WHERE trap() <> '';
SELECT * FROM pulse.verify('turning');
SELECT pulse.rebuild_counters('turning');
SELECT pulse.create_pipeline('trapped', ARRAY['turning'], 'public.turning');
DROP VIEW turning;
SELECT * FROM pulse.verify('turning');

-- No word that is not a unit gets into a statement.
SELECT pulse._has_counts('x', 'day c, public.others WHERE c.pipeline = $1) OR (SELECT true)--');
SELECT pulse._adopt_counts('x', 'y', 'day c USING public.others --', NULL, NULL, NULL, NULL);
SELECT pulse._has_counts('x', 'year');

SELECT pulse.drop_pipeline(name) FROM pulse.pipelines ORDER BY name;
DELETE FROM pulse.offset_log;
DELETE FROM pulse._leftovers;
DELETE FROM pulse._set_aside;
DROP TABLE others;
DROP FUNCTION trap;
DROP SCHEMA raw, live CASCADE;
