-- Events without Kafka: pulse.ingest(), its letters, its ledger.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT pulse.create_pipeline('shop', '{shop}', settings => '{"counters": "minute,hour,day,user_day", "schema": {"properties": {"price": {"minimum": 0}}}}');
RESET client_min_messages;
SET timezone = 'UTC';
CREATE TABLE moment AS SELECT date_trunc('day', now()) AS at;
CREATE FUNCTION good(more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('event_type', 'sale', 'user_id', 'u1', 'event_timestamp', to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) || more FROM moment
$$;
CREATE VIEW ledger AS SELECT sum(rows) AS rows, sum(duplicates) AS duplicates, sum(rejects) AS rejects, sum(filtered) AS filtered,
    sum(expired_rows) AS expired, sum(adopted_rows) AS adopted, sum(adopted_letters) AS adopted_letters, sum(purged_letters) AS purged
    FROM pulse.ingests;
CREATE VIEW wrong AS SELECT what, expected, found FROM pulse.verify('shop') WHERE NOT ok;

SELECT accepted, rejected, processing_ms >= 0 AS measured FROM pulse.ingest('shop', good());
SELECT accepted, rejected FROM pulse.ingest('shop', jsonb_build_array(good('{"event_id": "a"}'), good('{"event_id": "b", "price": 2.50}'),
    good('{"event_id": "c", "price": -1}'), '[1]'::jsonb, '7'::jsonb, 'null'::jsonb, '{"event_type": "sale"}'::jsonb));
SELECT accepted, rejected FROM pulse.ingest('shop', good('{"event_id": "a"}')); -- again: a duplicate is accepted
SELECT accepted, rejected FROM pulse.ingest('shop', '[]');
SELECT accepted, rejected FROM pulse.ingest('shop', '"text"');
SELECT event_id ~ '^ingest-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' OR event_id IN ('a', 'b') AS id, properties,
       kafka_topic, kafka_partition, kafka_offset, kafka_timestamp, ingested_at IS NOT NULL AS ingested
  FROM raw.events ORDER BY event_id;
SELECT pipeline, kafka_topic, kafka_partition, kafka_offset, error_code, error_path, convert_from(value, 'UTF8') AS value
  FROM raw.dlq WHERE error_code <> 'schema' ORDER BY dlq_id;
SELECT error_message, convert_from(value, 'UTF8')::jsonb -> 'price' AS price FROM raw.dlq WHERE error_code = 'schema';
SELECT * FROM ledger;
SELECT * FROM wrong;
SELECT what, expected, found FROM pulse.verify('shop') WHERE what LIKE '%ingested';
SELECT sum(count) FROM live.events_hour;
SELECT sum(count) FROM live.user_day;
SELECT events_accepted, events_rejected, dlq_size FROM pulse.metrics('shop');

-- In the caller's transaction; a row that the table refuses takes none with it, however many there are.
ALTER TABLE raw.events ADD CONSTRAINT not_13 CHECK (coalesce(properties ->> 'n', '') NOT LIKE '%13');
BEGIN;
SELECT accepted, rejected FROM pulse.ingest('shop', (SELECT jsonb_agg(good(jsonb_build_object('n', n))) FROM generate_series(1, 300) n));
SELECT pulse.ingest_horizon() <= max(ingested_at) AS waits FROM raw.events;
SELECT * FROM wrong;
ROLLBACK;
SELECT count(*) FROM raw.events;
SELECT accepted, rejected FROM pulse.ingest('shop', (SELECT jsonb_agg(good(jsonb_build_object('n', n * 100 + CASE WHEN n <= 80 THEN 13 ELSE 1 END)))
                                                       FROM generate_series(1, 200) n));
SELECT error_code, sqlstate, count(*) FROM raw.dlq WHERE sqlstate IS NOT NULL GROUP BY 1, 2;
SELECT * FROM wrong;
BEGIN;
SELECT accepted FROM pulse.ingest('shop', good());
PREPARE TRANSACTION 'shop';

-- Triggers, errors of the table as a whole, unknown names.
CREATE FUNCTION drop_u9() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.user_id = 'u9' THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER drop_u9 BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION drop_u9();
SELECT accepted, rejected FROM pulse.ingest('shop', jsonb_build_array(good('{"user_id": "u9"}'), good('{"user_id": "u8"}'), good('{"event_id": "a"}')));
SELECT duplicates, filtered FROM ledger;
SELECT * FROM wrong;
CREATE OR REPLACE FUNCTION drop_u9() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk full' USING ERRCODE = '53100'; END $$;
SELECT pulse.ingest('shop', good());
DROP TRIGGER drop_u9 ON raw.events;
SELECT pulse.ingest('nowhere', good());
SELECT pulse.ingest(NULL, '{}');
SELECT pulse.ingest('shop', NULL);
SELECT * FROM wrong;

-- Its letters come back like others, mended or as they are; discarded ones are purged from the ledger, too.
SELECT count(*) AS letters FROM raw.dlq \gset
CALL pulse.dlq_replay('shop', dry_run => true);
SELECT * FROM wrong;
ALTER TABLE raw.events DROP CONSTRAINT not_13;
CALL pulse.dlq_replay('shop');
SELECT status, attempts, error_code, count(*) FROM raw.dlq GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT count(*), count(DISTINCT event_id), bool_and(event_id LIKE 'ingest-%' AND kafka_partition IS NULL AND kafka_offset IS NULL) AS ingested
  FROM raw.events WHERE properties ->> 'n' LIKE '%13';
SELECT r.* FROM raw.dlq d, pulse.dlq_replay_as(d.dlq_id, convert_to(good('{"event_id": "c", "price": 1}')::text, 'UTF8')) r WHERE d.error_code = 'schema';
SELECT properties ->> 'price' AS price FROM raw.events WHERE event_id = 'c';
SELECT count(*) FROM pulse._set_aside;
SELECT count(*) FROM pulse.replays;
CALL pulse.dlq_replay('shop');
SELECT sum(count) = (SELECT count(*) FROM raw.events) AS counted FROM live.events_hour;
SELECT * FROM wrong;
SELECT pulse.dlq_discard(ARRAY[min(dlq_id), min(dlq_id) + 1], 'a test') FROM raw.dlq;
SELECT pulse.dlq_purge('0') >= 2 AS purged;
SELECT count(*) = :letters - (SELECT purged FROM ledger) AS left FROM raw.dlq;
SELECT * FROM wrong;

-- Dropped and created again, and handed to another pipeline of the table.
SELECT pulse.drop_pipeline('shop');
SELECT count(*) FROM pulse.ingests;
SELECT pulse.create_pipeline('shop', '{shop}', settings => '{"start_position": "latest"}');
SELECT rows, adopted = (SELECT count(*) FROM raw.events) AS adopted, adopted_letters = (SELECT count(*) FROM raw.dlq) AS letters FROM ledger;
SELECT * FROM wrong;
SELECT pulse.create_pipeline('other', '{other}', settings => '{"start_position": "latest"}');
SELECT accepted FROM pulse.ingest('other', good());
SELECT accepted FROM pulse.ingest('shop', good());
SELECT pulse.drop_pipeline('other');
SELECT * FROM wrong;
SELECT pulse.create_pipeline('other', '{other}', settings => '{"start_position": "latest"}');
SELECT accepted FROM pulse.ingest('other', good());
SELECT accepted FROM pulse.ingest('shop', good());
SELECT pulse.drop_pipeline('shop');
SELECT what, expected, found FROM pulse.verify('other') WHERE NOT ok;

-- EXECUTE is all that an application needs.
CREATE ROLE regress_pulse_app;
SET ROLE regress_pulse_app;
SELECT pulse.ingest('other', '{}');
RESET ROLE;
GRANT EXECUTE ON FUNCTION pulse.ingest(text, jsonb) TO regress_pulse_app;
SELECT good() AS event \gset
SET ROLE regress_pulse_app;
SELECT accepted, rejected FROM pulse.ingest('other', :'event');
SELECT count(*) FROM raw.events;
RESET ROLE;
DROP OWNED BY regress_pulse_app;
DROP ROLE regress_pulse_app;
SELECT pulse.drop_pipeline('other');
SET client_min_messages = warning;
DROP VIEW wrong, ledger;
DROP FUNCTION good(jsonb), drop_u9();
DROP TABLE moment;
DROP SCHEMA raw, live CASCADE;
