-- What verify says of a pipeline without offsets, of one whose books are right, and of each way they can be wrong.
\set SHOW_CONTEXT never
SELECT pulse.create_pipeline('events', ARRAY['events']);
SELECT * FROM pulse.verify('events');
SELECT * FROM pulse.verify('nobody');

-- Two records: a row and a dead letter.
CREATE TABLE raw.events_test PARTITION OF raw.events FOR VALUES FROM ('2026-11-20') TO ('2026-11-21');
INSERT INTO pulse.offsets (pipeline, topic, partition, next_offset, highest_offset, records, rows, rejects)
VALUES ('events', 'events', 0, 2, 2, 2, 1, 1);
INSERT INTO raw.events (event_id, event_type, user_id, event_timestamp, kafka_topic, kafka_partition, kafka_offset)
VALUES ('e1', 'page_view', 'u1', '2026-11-20 12:34:56+00', 'events', 0, 0);
INSERT INTO raw.dlq (pipeline, kafka_topic, kafka_partition, kafka_offset, error_class, error_code)
VALUES ('events', 'events', 0, 1, 'decode', 'syntax');
INSERT INTO live._events_minute VALUES ('2026-11-20 12:34+00', 'page_view', 'events', 0, 1);
INSERT INTO live._events_hour VALUES ('2026-11-20 12:00+00', 'page_view', 'events', 0, 1);
INSERT INTO live._events_day VALUES ('2026-11-20 00:00+00', 'page_view', 'events', 0, 1);
SELECT * FROM pulse.verify('events');
SET timezone = 'Asia/Kolkata'; -- buckets are UTC wherever the reader sits
SELECT count(*) FILTER (WHERE NOT ok) AS broken FROM pulse.verify('events');
RESET timezone;

CREATE FUNCTION pg_temp.broken(change text) RETURNS TABLE (what text, expected bigint, found bigint) LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        EXECUTE change;
        CREATE TEMP TABLE result ON COMMIT DROP AS SELECT v.* FROM pulse.verify('events') v WHERE NOT ok;
        RETURN QUERY SELECT r.what, r.expected, r.found FROM result r;
        RAISE EXCEPTION 'undo' USING ERRCODE = 'UNDO1';
    EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
        NULL;
    END;
END
$$;
SELECT * FROM pg_temp.broken('DELETE FROM raw.events');
SELECT * FROM pg_temp.broken('DELETE FROM raw.dlq');
SELECT * FROM pg_temp.broken('UPDATE pulse.offsets SET records = 3');
SELECT * FROM pg_temp.broken('UPDATE pulse.offsets SET next_offset = 0, highest_offset = 0');
SELECT * FROM pg_temp.broken('UPDATE live._events_hour SET count = 2');
SELECT * FROM pg_temp.broken('UPDATE live._events_day SET bucket = bucket + interval ''1 day''');
SELECT * FROM pg_temp.broken($$INSERT INTO raw.events SELECT 'e2', event_type, user_id, event_timestamp, kafka_timestamp,
    funnel_step_index, page_url, referrer, device, properties, kafka_topic, kafka_partition, kafka_offset FROM raw.events$$);
SELECT * FROM pg_temp.broken('UPDATE raw.dlq SET kafka_offset = 0');
-- A letter of a topic made again has the offset of an old row: with nothing that tells them apart it is no contradiction.
SELECT * FROM pg_temp.broken($$UPDATE raw.dlq SET kafka_offset = 0, topic_epoch = 1; UPDATE pulse.offsets SET topic_epoch = 1;
    ALTER TABLE raw.events DROP kafka_timestamp; SELECT pulse.alter_pipeline('events', '{}')$$);
SELECT count(*) FILTER (WHERE NOT ok) AS broken FROM pulse.verify('events');

SELECT pulse.drop_pipeline('events');
DELETE FROM pulse.offset_log;
SET client_min_messages = warning;
DROP SCHEMA raw, live CASCADE;
