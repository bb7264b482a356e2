-- The SQL side of pulse.produce: arguments, what is stored, who may; nothing is sent here, for no broker is named.
\set SHOW_CONTEXT never
SELECT pulse.produce(NULL, 'x');
SELECT pulse.produce('bad name', 'x');
SELECT pulse.produce('..', 'x');
SELECT pulse.produce(repeat('x', 250), 'x');
SELECT pulse.produce('large', repeat('x', 8000001));
SELECT pulse.produce('headers', 'x', NULL, '[]');
SELECT pulse.produce('headers', 'x', NULL, '{"a": {"b": 1}}');
SELECT pulse.produce('headers', 'x', NULL, '"a"');

BEGIN;
SELECT pulse.produce('orders', 'text', 'key', '{"source": "shop", "none": null, "n": 1}') IS NOT NULL AS text;
SELECT pulse.produce('orders', '{"a": 1}'::jsonb) IS NOT NULL AS json;
SELECT pulse.produce('orders', '\x00ff'::bytea, '\xfe'::bytea, 'null') IS NOT NULL AS bytes;
SELECT pulse.produce('orders', NULL, 'tombstone') IS NOT NULL AS tombstone;
SELECT topic, key, value, headers, sent_at, attempts, error FROM pulse.outbox ORDER BY outbox_id;
SELECT pulse._outbox_depth() AS not_before_the_commit;
COMMIT;
SELECT pulse._outbox_depth();
SELECT source, topic, state, reason, waiting, postponed FROM pulse.stat_sender WHERE source = 'produce';

-- What a savepoint or an exception takes back does not count.
BEGIN;
SAVEPOINT one;
SELECT pulse.produce('orders', 'x') IS NOT NULL AS taken_back;
ROLLBACK TO one;
DO $$
BEGIN
    PERFORM pulse.produce('orders', 'x');
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
    NULL;
END
$$;
SAVEPOINT two;
SELECT pulse.produce('orders', 'x') IS NOT NULL AS kept;
RELEASE two;
COMMIT;
SELECT pulse._outbox_depth(), count(*) FROM pulse.outbox;

-- Nobody may until it is granted; then without seeing what is there.
CREATE ROLE regress_pulse_producer;
SET ROLE regress_pulse_producer;
SELECT pulse.produce('orders', 'x');
RESET ROLE;
GRANT EXECUTE ON FUNCTION pulse.produce(text, text, text, jsonb) TO regress_pulse_producer;
SET ROLE regress_pulse_producer;
SELECT pulse.produce('orders', 'x') IS NOT NULL AS granted;
SELECT * FROM pulse.outbox;
SELECT pulse._admit_outgoing('x');
RESET ROLE;
DROP OWNED BY regress_pulse_producer;
DROP ROLE regress_pulse_producer;

DELETE FROM pulse.outbox;
