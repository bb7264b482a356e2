-- What tables make of values, and what pulse counts of it: rows written by replays of letters, without a broker.
\set SHOW_CONTEXT never
SET client_min_messages = error;
SET timezone = 'UTC';
CREATE TYPE kind AS ENUM ('ab', 'cd');
CREATE DOMAIN some_text AS text NOT NULL;
CREATE TABLE lookup (v some_text);
CREATE FUNCTION turn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.event_type := upper(NEW.event_type); RETURN NEW; END $$;
CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.event_type := (SELECT v FROM public.lookup WHERE false); RETURN NEW; END $$;
CREATE FUNCTION keep_ab() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN NEW.event_type LIKE 'ab%' THEN NEW END; END $$;
CREATE FUNCTION pg_temp.make(name text, changes text, key text DEFAULT 'PRIMARY KEY (event_id, event_timestamp)', rest text DEFAULT '')
    RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE public.%I (event_id text NOT NULL, event_type char(10) NOT NULL, user_id char(8) NOT NULL, '
                   'event_timestamp timestamptz NOT NULL, %s) %s', name, key, rest);
    IF changes <> '' THEN
        EXECUTE format('ALTER TABLE public.%I %s', name, changes);
    END IF;
    PERFORM pulse.create_pipeline(name, ARRAY['t'], 'public.' || name,
                                  '{"counters": "minute,hour,day,user_day", "reject_older_than": 0}');
    INSERT INTO raw.dlq (pipeline, kafka_topic, kafka_partition, kafka_offset, value, error_class, error_code, error_message)
    SELECT name, 't', 0, n, convert_to(format('{"event_id": "%s", "event_type": "%s", "user_id": "u %s", '
                                              '"event_timestamp": "2026-11-20T23:59:%s"}', n, t.kind, repeat(' ', n::int), t.at), 'UTF8'),
           'schema', 'type', 'as it was'
      FROM unnest(ARRAY['ab', 'ab ', 'ab     ', 'cd'], ARRAY['59.7Z', '59.2Z', '59.5Z', '00Z']) WITH ORDINALITY AS t(kind, at, n);
END
$$;
CREATE FUNCTION pg_temp.counted(name text) RETURNS TABLE (at timestamptz, kind text, events bigint, per_user bigint, wrong bigint)
    LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT m.bucket, quote_literal(m.event_type COLLATE "C"), sum(m.count)::bigint,
           (SELECT sum(u.count)::bigint FROM live._user_day u WHERE u.pipeline = counted.name AND u.event_type = m.event_type),
           (SELECT count(*) FROM pulse.verify(counted.name) WHERE NOT ok)
      FROM live._events_minute m WHERE m.pipeline = counted.name GROUP BY 1, 2, m.event_type
    UNION ALL SELECT NULL, NULL, NULL, NULL, count(*) FROM pulse.verify(counted.name) WHERE NOT ok
    ORDER BY 1, 2;
END
$$;

-- Blanks are cut and padded, times rounded: counters and partitions go by the rows.
SELECT pg_temp.make('padded', '');
SELECT pg_temp.make('cut', 'ALTER event_type TYPE varchar(3), ALTER user_id TYPE varchar(3)');
SELECT pg_temp.make('turned', '');
CREATE TRIGGER t BEFORE INSERT ON turned FOR EACH ROW EXECUTE FUNCTION turn();
SELECT pg_temp.make('rounded', 'ALTER event_timestamp TYPE timestamptz(0)');
CALL pulse.dlq_replay('padded');
CALL pulse.dlq_replay('cut');
CALL pulse.dlq_replay('turned');
CALL pulse.dlq_replay('rounded');
SELECT * FROM pg_temp.counted('padded');
SELECT * FROM pg_temp.counted('cut');
SELECT * FROM pg_temp.counted('turned');
SELECT * FROM pg_temp.counted('rounded');
CREATE TABLE parted (event_id text NOT NULL, event_type text NOT NULL, user_id text, event_timestamp timestamptz(0) NOT NULL)
    PARTITION BY RANGE (event_timestamp);
SELECT pulse.create_pipeline('parted', ARRAY['t'], 'public.parted', '{"reject_older_than": 0}');
UPDATE raw.dlq SET pipeline = 'parted', status = 'new' WHERE pipeline = 'rounded';
CALL pulse.dlq_replay('parted');
SELECT tableoid::regclass AS partition, event_id, event_timestamp FROM parted ORDER BY event_id;
SELECT * FROM pg_temp.counted('parted');

-- Nothing is counted where the value of the row is not known before it is one, or may be NULL.
SELECT pg_temp.make('filled', 'ALTER event_type SET DEFAULT ''unknown''');
SELECT pg_temp.make('stamped', 'ALTER event_timestamp SET DEFAULT now()');
SELECT pg_temp.make('local', 'ALTER event_timestamp TYPE timestamp');
SELECT pg_temp.make('kinds', 'ALTER event_type TYPE kind USING event_type::text::kind');
SELECT pg_temp.make('domained', 'ALTER event_type TYPE some_text, ALTER event_type DROP NOT NULL');
SELECT pg_temp.make('nobodys', 'ALTER user_id DROP NOT NULL');
CALL pulse.dlq_replay('filled');
CALL pulse.dlq_replay('stamped');
CALL pulse.dlq_replay('local');
CALL pulse.dlq_replay('kinds');
CALL pulse.dlq_replay('domained');
CALL pulse.dlq_replay('nobodys');
SELECT name, c.* FROM unnest(ARRAY['filled', 'stamped', 'local', 'kinds', 'domained', 'nobodys']) name, pg_temp.counted(name) c;

-- A trigger that gets past the NOT NULL of a domain: crashed once.
CREATE TRIGGER t BEFORE INSERT ON domained FOR EACH ROW EXECUTE FUNCTION lose();
SELECT pg_temp.make('strict', 'ALTER event_type TYPE some_text');
CREATE TRIGGER t BEFORE INSERT ON strict FOR EACH ROW EXECUTE FUNCTION lose();
TRUNCATE domained;
UPDATE raw.dlq SET status = 'new' WHERE pipeline = 'domained';
CALL pulse.dlq_replay('domained');
CALL pulse.dlq_replay('strict');
SELECT count(*), count(event_type) AS kinds FROM domained;
SELECT sqlstate, count(*) FROM raw.dlq WHERE pipeline = 'strict' AND status = 'new' GROUP BY 1;

-- What a trigger leaves out stays a letter; what is there already is a duplicate, whatever the key is made of.
SELECT pg_temp.make('left_out', '');
CREATE TRIGGER t BEFORE INSERT ON left_out FOR EACH ROW EXECUTE FUNCTION keep_ab();
SELECT pg_temp.make('made', '', 'k text GENERATED ALWAYS AS (upper(event_id) || 7) STORED PRIMARY KEY');
CREATE TRIGGER t BEFORE INSERT ON made FOR EACH ROW EXECUTE FUNCTION turn();
SELECT pg_temp.make('nulls', '', 'n int, UNIQUE NULLS NOT DISTINCT (event_id, n)');
CREATE TRIGGER t BEFORE INSERT ON nulls FOR EACH ROW EXECUTE FUNCTION turn();
SELECT pg_temp.make('off', '', 'k text GENERATED ALWAYS AS (upper(event_id)) STORED UNIQUE');
CREATE TRIGGER t BEFORE INSERT ON off FOR EACH ROW EXECUTE FUNCTION turn();
ALTER TABLE off DISABLE TRIGGER t;
CALL pulse.dlq_replay('left_out');
SELECT kafka_offset, status, attempts, error_code, sqlstate, error_message FROM raw.dlq WHERE pipeline = 'left_out' ORDER BY 1;
CALL pulse.dlq_replay('made');
CALL pulse.dlq_replay('nulls');
CALL pulse.dlq_replay('off');
UPDATE raw.dlq SET status = 'new' WHERE pipeline IN ('made', 'nulls', 'off');
CALL pulse.dlq_replay('made');
CALL pulse.dlq_replay('nulls');
CALL pulse.dlq_replay('off');

SELECT pulse.drop_pipeline(name) FROM pulse.pipelines;
DROP TABLE padded, cut, turned, rounded, parted, filled, stamped, local, kinds, domained, nobodys, strict, left_out, made, nulls, off, lookup;
DROP SCHEMA raw, live CASCADE;
DROP FUNCTION turn, lose, keep_ab;
DROP TYPE kind, some_text;
DELETE FROM pulse._leftovers;
DELETE FROM pulse.replays;
DELETE FROM pulse.offset_log;
