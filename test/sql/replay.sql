-- Dead letters come back: without a broker, from letters that are written here.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CALL pulse.dlq_replay(pipeline => 'replays');
CALL pulse.dlq_replay();
SELECT pulse.create_pipeline('replays', '{replays}', settings => '{"max_replays": 2, "partition_by": "day"}');
SELECT pulse.create_pipeline('others', '{others}');
RESET client_min_messages;
SET timezone = 'UTC';

CREATE FUNCTION letter(at_offset bigint, code text, class text, value text, pipeline text DEFAULT 'replays') RETURNS void LANGUAGE sql AS $$
    INSERT INTO raw.dlq (pipeline, kafka_topic, kafka_partition, kafka_offset, kafka_timestamp, value, error_class, error_code, error_message)
    VALUES (pipeline, 'replays', 3, at_offset, '2026-11-20 10:00:00.123Z', convert_to(value, 'UTF8'), class, code, 'as it was')
$$;
CREATE TABLE moment AS SELECT now() AS at;
CREATE FUNCTION good(at interval DEFAULT '1 hour', id text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object('event_id', id, 'event_type', 'view', 'user_id', 'user-1',
                                                'event_timestamp', to_char(moment.at - good.at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))::text FROM moment
$$;
CREATE VIEW letters AS
    SELECT kafka_offset AS at, status, attempts, error_class, error_code, sqlstate, error_message = 'as it was' AS untouched,
           last_attempt_at IS NOT NULL AS attempted, resolved_at IS NOT NULL AS resolved
      FROM raw.dlq ORDER BY pipeline DESC, kafka_offset;
CREATE VIEW counted AS
    SELECT (SELECT count(*) FROM raw.events) AS rows, (SELECT sum(count) FROM live.events_minute) AS minutes,
           (SELECT sum(count) FROM live.events_day) AS days;
CREATE VIEW ledger AS
    SELECT topic, partition, topic_epoch AS epoch, sum(replayed) AS replayed, sum(duplicates) AS duplicates, sum(failed) AS failed,
           sum(purged) AS purged, count(*) FROM pulse.replays GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

SELECT letter(1, 'missing_field', 'schema', good());
SELECT letter(2, 'too_old', 'schema', good('3 days'));
SELECT letter(3, 'type', 'schema', good(id => 'again'));
SELECT letter(4, 'type', 'schema', good(id => 'again'));
SELECT letter(5, 'syntax', 'decode', '{');
SELECT letter(6, 'skipped', 'operator', good());
SELECT letter(7, 'too_large_to_fetch', 'decode', NULL);
SELECT letter(8, 'tombstone', 'decode', NULL);
SELECT letter(1, 'type', 'schema', good(), 'others');
UPDATE raw.dlq SET topic_epoch = 2 WHERE kafka_offset = 2;

-- A dry run says what would happen, and nothing does.
CALL pulse.dlq_replay('replays', dry_run => true);
SELECT * FROM counted;
SELECT * FROM ledger;
SELECT count(*) AS changed FROM letters WHERE status <> 'new' OR attempts > 0 OR attempted OR NOT untouched;

-- Inside a transaction block nothing is committed before it is; the horizon waits for it, and it can't be prepared.
BEGIN;
CALL pulse.dlq_replay('replays');
SELECT * FROM counted;
SELECT pulse.ingest_horizon() <= min(ingested_at) AS waits FROM raw.events;
PREPARE TRANSACTION 'replays';
SELECT * FROM counted;
SELECT clock_timestamp() AS mark \gset
SELECT pulse.ingest_horizon() >= :'mark' AS moves;
BEGIN;
CALL pulse.dlq_replay('replays', error_code => 'missing_field');
SHOW search_path;
SHOW lock_timeout;
ROLLBACK;
SELECT * FROM counted;
SELECT count(*) AS changed FROM letters WHERE status <> 'new' OR attempts > 0 OR attempted OR NOT untouched;

-- Some of them.
CALL pulse.dlq_replay('replays', max_letters => 1);
CALL pulse.dlq_replay('replays', error_code => 'too_old', since => '2000-01-01');
CALL pulse.dlq_replay('replays', error_code => 'type', since => '2100-01-01');
SELECT event_id, kafka_topic, kafka_partition, kafka_offset, kafka_timestamp, ingested_at > now() - interval '1 minute' AS fresh
  FROM raw.events ORDER BY kafka_offset;

-- The rest; what is refused again is parked the second time. Of others nothing is touched.
CALL pulse.dlq_replay('replays');
SELECT * FROM letters;
CALL pulse.dlq_replay('replays');
CALL pulse.dlq_replay('replays');
SELECT * FROM letters WHERE status <> 'replayed';
SELECT * FROM counted;
SELECT * FROM ledger;

-- Parked letters, and what an operator set aside, by name.
SELECT array_agg(dlq_id) AS named FROM raw.dlq WHERE error_code IN ('syntax', 'too_large_to_fetch') \gset
CALL pulse.dlq_replay('replays', ids => :'named');
CALL pulse.dlq_replay('replays', error_code => 'skipped');
SELECT * FROM letters WHERE status <> 'replayed';

-- What PostgreSQL refuses.
ALTER TABLE raw.events ADD CONSTRAINT no_robots CHECK (user_id <> 'user-1') NOT VALID;
SELECT count(*) FROM generate_series(10, 60) n, letter(n, 'missing_field', 'schema', good());
CALL pulse.dlq_replay('replays');
SELECT DISTINCT status, attempts, error_class, error_code, sqlstate FROM letters WHERE at BETWEEN 10 AND 60;
ALTER TABLE raw.events DROP CONSTRAINT no_robots;
CALL pulse.dlq_replay('replays', dry_run => true);
CALL pulse.dlq_replay('replays');
SELECT * FROM counted;

-- Every pipeline that exists.
SELECT letter(99, 'type', 'schema', good(), 'dropped');
CALL pulse.dlq_replay();
SELECT * FROM letters WHERE status = 'new';

-- With a corrected payload, beside the original.
SELECT r.outcome, r.error_code FROM raw.dlq d, pulse.dlq_replay_as(d.dlq_id, '{"event_type": "view"}') r WHERE d.error_code = 'syntax';
SELECT r.* FROM raw.dlq d, pulse.dlq_replay_as(d.dlq_id, convert_to(good(id => 'corrected'), 'UTF8')) r WHERE d.kafka_offset = 5;
SELECT r.* FROM raw.dlq d, pulse.dlq_replay_as(d.dlq_id, convert_to(good(id => 'again'), 'UTF8')) r WHERE d.kafka_offset = 7;
SELECT convert_from(value, 'UTF8') AS value, status, corrected_value IS NOT NULL AS corrected FROM raw.dlq WHERE kafka_offset IN (5, 7) ORDER BY kafka_offset;
SELECT kafka_offset FROM raw.events WHERE event_id = 'corrected';
SELECT at_offset, error_code FROM pulse._set_aside ORDER BY 1;

-- Headers and keys as they were.
CREATE TABLE whole (n int NOT NULL, kafka_headers jsonb, kafka_key bytea, kafka_offset bigint PRIMARY KEY, added text);
SELECT pulse.create_pipeline('whole', '{whole}', 'public.whole');
INSERT INTO raw.dlq (pipeline, kafka_topic, kafka_partition, kafka_offset, kafka_key, value, kafka_headers, error_class, error_code)
VALUES ('whole', 'whole', 0, 1, '\x00ff', '{"n": 1, "added": "x"}', '[{"key": "a", "value": "1"}, {"key_hex": "ff", "value_hex": "00fe"}, {"key": "c", "value": null}]', 'schema', 'type'),
       ('whole', 'whole', 0, 2, NULL, '{"n": 2}', NULL, 'schema', 'type');
CALL pulse.dlq_replay('whole');
SELECT * FROM whole ORDER BY n;

-- Settled letters go, others stay.
SELECT pulse.dlq_purge('1 day');
SELECT pulse._purge_letters('0', 'whole', 1), pulse._purge_letters('0', 'nowhere', 1);
SELECT pulse.dlq_purge('0');
SELECT * FROM letters;
SELECT * FROM ledger;

SELECT pulse.dlq_purge(NULL);
SELECT pulse.dlq_purge('-1 day');
SELECT pulse.dlq_replay_as(NULL, '{}');
SELECT pulse.dlq_replay_as(-1, '{}');
SELECT pulse.dlq_discard(ARRAY(SELECT dlq_id FROM raw.dlq WHERE pipeline = 'replays'), 'no use');
SELECT outcome FROM (SELECT min(dlq_id) AS id FROM raw.dlq WHERE status = 'discarded') d, pulse.dlq_replay_as(d.id, '{}');
CALL pulse.dlq_replay('replays', max_letters => 0);
CALL pulse.dlq_replay('dropped');
ALTER TABLE whole RENAME TO hole;
SELECT letter(100, 'type', 'schema', '{"n": 3}', 'whole');
CALL pulse.dlq_replay('whole');
SELECT * FROM letters WHERE at = 100;

-- Whoever owns raw.dlq may change its columns, and has triggers: what can't be read as what it was is an error, no more.
SELECT letter(n, 'syntax', 'decode', '{') FROM generate_series(200, 202) n;
ALTER TABLE raw.dlq ALTER COLUMN kafka_topic TYPE int USING 1, ALTER COLUMN topic_epoch TYPE text, ALTER COLUMN kafka_partition TYPE text;
SELECT r.* FROM raw.dlq d, pulse.dlq_replay_as(d.dlq_id, convert_to(good(id => 'retyped'), 'UTF8')) r WHERE d.kafka_offset = 200;
SELECT kafka_topic, kafka_partition, kafka_offset FROM raw.events WHERE event_id = 'retyped';
SELECT pipeline, topic, topic_epoch, partition FROM pulse._set_aside WHERE at_offset = 200;
ALTER TABLE raw.dlq ALTER COLUMN pipeline DROP NOT NULL;
CREATE FUNCTION nameless() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'replayed' THEN
        NEW.pipeline := NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER nameless BEFORE UPDATE ON raw.dlq FOR EACH ROW EXECUTE FUNCTION nameless();
SELECT r.* FROM raw.dlq d, pulse.dlq_replay_as(d.dlq_id, convert_to(good(id => 'nameless'), 'UTF8')) r WHERE d.kafka_offset = 201;
SELECT pipeline, topic, topic_epoch, partition FROM pulse._set_aside WHERE at_offset = 201;
DROP TRIGGER nameless ON raw.dlq;
ALTER TABLE raw.dlq ALTER COLUMN kafka_key TYPE int USING 1;
CALL pulse.dlq_replay('replays');
SELECT status FROM raw.dlq WHERE kafka_offset = 202;

SELECT pulse.drop_pipeline(name) FROM pulse.pipelines ORDER BY name;
SELECT * FROM ledger;
DROP VIEW letters, counted, ledger;
DROP FUNCTION letter, good;
DROP TABLE hole, moment;
DELETE FROM pulse._leftovers;
SET client_min_messages = warning;
DROP SCHEMA raw, live CASCADE;
DROP FUNCTION nameless;
