-- Looking at dead letters and settling them.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT * FROM pulse.dlq_summary();
SELECT pulse.create_pipeline('letters', '{letters}');
INSERT INTO raw.dlq (pipeline, kafka_topic, kafka_partition, kafka_offset, kafka_timestamp, kafka_key, value, kafka_headers,
                     error_class, error_code, error_message, error_path, stage, first_seen_at)
VALUES ('letters', 'letters', 0, 1, '2026-11-20 10:00Z', 'user-1', '{"user_id": "user-1", "properties": {"a/b": [1, {"price": "x"}]}}',
        '[{"key": "source", "value": "web"}]', 'schema', 'type', 'expected a number, found a string',
        '/properties/a~1b/1/price', 'decode', '2026-11-20 10:00:01Z'),
       ('letters', 'letters', 0, 2, '2026-11-20 10:01Z', NULL, '{"user_id": ', NULL, 'decode', 'syntax', 'unexpected end', NULL, 'decode',
        '2026-11-20 10:01:01Z'),
       ('letters', 'letters', 1, 1, '2026-11-20 10:02Z', NULL, '\xff00', NULL, 'decode', 'encoding', 'not UTF-8', NULL, 'decode',
        '2026-11-20 10:02:01Z'),
       ('letters', 'letters', 1, 2, '2026-11-20 10:03Z', NULL, NULL, NULL, 'decode', 'tombstone', 'no value', NULL, 'decode',
        '2026-11-20 10:03:01Z'),
       ('letters', 'letters', 1, 3, '2026-11-20 10:04Z', NULL, '{"event_type": "a"}', NULL, 'schema', 'missing_field', 'user_id is required',
        '/user_id', 'decode', '2026-11-20 10:04:01Z'),
       ('letters', 'letters', 1, 4, '2026-11-20 10:05Z', NULL, '{"event_type": 1}', NULL, 'schema', 'type', 'expected text', '/event_type',
        'decode', '2026-11-20 10:05:01Z');
SET timezone = 'UTC';
SELECT pipeline, error_class, error_code, stage, status, letters, first_seen_at, last_seen_at,
       example_id - (SELECT min(dlq_id) FROM raw.dlq) AS example FROM pulse.dlq_summary();

CREATE FUNCTION show(at_offset bigint, at_partition int) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT s.field || ': ' || s.value FROM raw.dlq d, pulse.dlq_show(d.dlq_id) s
     WHERE d.kafka_offset = at_offset AND d.kafka_partition = at_partition AND s.field <> 'remedy'
$$;
\pset format unaligned
\pset tuples_only on
SELECT show(1, 0);
SELECT show(2, 0);
SELECT show(1, 1);
SELECT show(2, 1);
SELECT show(3, 1);
\pset format aligned
\pset tuples_only off
SELECT pulse.dlq_show(-1);

-- Discarded letters stay, with the reason; settled ones are left alone.
SELECT pulse.dlq_discard(ARRAY(SELECT dlq_id FROM raw.dlq WHERE error_code = 'tombstone'), 'cleaned up by compaction');
SELECT pulse.dlq_discard(ARRAY(SELECT dlq_id FROM raw.dlq WHERE error_code IN ('tombstone', 'syntax')), 'test traffic');
SELECT error_code, status, resolved_at IS NOT NULL AS resolved,
       replace(error_message, session_user, 'somebody') AS error_message FROM raw.dlq WHERE status <> 'new' ORDER BY dlq_id;
SELECT pulse.dlq_discard(NULL, 'why');
SELECT pulse.dlq_discard('{1}', '');

DROP FUNCTION show;
SELECT pulse.drop_pipeline('letters');
DROP SCHEMA raw, live CASCADE;
