-- Stages around the target, with events from pulse.ingest(); every one of them sees what a worker's would.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT pulse.create_pipeline('shop', '{shop}', settings => '{"counters": "minute,hour,day,user_day"}');
RESET client_min_messages;
SET timezone = 'UTC';
CREATE TABLE moment AS SELECT date_trunc('day', now()) AS at;
CREATE FUNCTION good(more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('event_type', 'View', 'user_id', 'u1', 'event_timestamp', to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) || more FROM moment
$$;
CREATE VIEW wrong AS SELECT what, expected, found FROM pulse.verify('shop') WHERE NOT ok;
CREATE VIEW ledger AS SELECT sum(rows) AS rows, sum(duplicates) AS duplicates, sum(rejects) AS rejects, sum(filtered) AS filtered FROM pulse.ingests;
CREATE TABLE pages (url text PRIMARY KEY, title text);
INSERT INTO pages VALUES ('/a', 'Apples'), ('/b', 'Bread');
CREATE TABLE totals (event_type text PRIMARY KEY, count bigint NOT NULL);

-- What is refused, and says so.
SELECT pulse.add_stage('nowhere', 'x', 'filter', 'SELECT * FROM batch');
SELECT pulse.add_stage('shop', 'x', 'window', 'SELECT * FROM batch');
SELECT pulse.add_stage('shop', 'x', 'aggregate', 'per_minute');
SELECT pulse.add_stage('shop', NULL, 'filter', 'SELECT * FROM batch');
SELECT pulse.add_stage('shop', '', 'filter', 'SELECT * FROM batch');
SELECT pulse.add_stage('shop', 'x', 'filter', 'SELECT * FROM batch', 0);
SELECT pulse.add_stage('shop', 'x', 'filter', 'SELEC * FROM batch');
SELECT pulse.add_stage('shop', 'x', 'filter', 'SELECT 1; SELECT 2');
SELECT pulse.add_stage('shop', 'x', 'filter', 'SELECT 1) AS a, (SELECT 2');
SELECT pulse.add_stage('shop', 'x', 'filter', 'DELETE FROM public.pages');
SELECT pulse.add_stage('shop', 'x', 'filter', 'SELECT * INTO public.copy FROM batch');
\set VERBOSITY terse
SELECT pulse.add_stage('shop', 'x', 'filter', 'WITH gone AS (DELETE FROM public.pages RETURNING *) SELECT * FROM batch, gone');
SELECT pulse.add_stage('shop', 'x', 'filter', 'SELECT * FROM pages');
\set VERBOSITY default
SELECT pulse.add_stage('shop', 'x', 'transform', 'SELECT *, 1 AS number FROM batch');
SELECT pulse.add_stage('shop', 'x', 'transform', 'SELECT *, event_type AS funnel_step_index FROM batch');
SELECT pulse.add_stage('shop', 'x', 'sink', 'SELECT * FROM batch');
SELECT pulse.add_stage('shop', 'x', 'sink', 'WITH a AS (SELECT 1) INSERT INTO public.totals SELECT event_type, 1 FROM batch');
SELECT count(*) FROM pulse.stages;

-- A filter, a transform, an enrichment, and totals of what was inserted.
SELECT version AS before FROM pulse.pipelines \gset
SELECT pulse.add_stage('shop', 'totals', 'sink', 'INSERT INTO public.totals AS t SELECT event_type, count(*) FROM batch GROUP BY 1
    ON CONFLICT (event_type) DO UPDATE SET count = t.count + EXCLUDED.count;');
SELECT pulse.add_stage('shop', 'title', 'enrich', 'SELECT batch.*, coalesce(batch.referrer, p.title) AS referrer FROM batch LEFT JOIN public.pages p ON p.url = batch.page_url -- the end');
SELECT pulse.add_stage('shop', 'lower', 'transform', $$SELECT *, lower(event_type) AS event_type, properties - 'secret' AS properties, 'x' AS kafka_topic FROM batch$$, 1);
SELECT pulse.add_stage('shop', 'people', 'filter', $$ SELECT FROM batch WHERE user_id !~ '^bot' $$, 1);
SELECT pulse.add_stage('shop', 'people', 'filter', 'SELECT FROM batch');
SELECT name, at_position, kind FROM pulse.stages ORDER BY at_position;
SELECT version > :before AS workers_start_again FROM pulse.pipelines;
SELECT accepted, rejected FROM pulse.ingest('shop', jsonb_build_array(
    good('{"event_id": "1", "page_url": "/a", "secret": "x", "seen": 1}'), good('{"event_id": "2", "user_id": "bot7"}'),
    good('{"event_id": "3", "event_type": "BUY", "page_url": "/c", "referrer": "here"}'), good('{"event_id": "1"}'), good()));
SELECT CASE WHEN event_id LIKE 'ingest-%' THEN 'ingest' ELSE event_id END AS event_id, event_type, page_url, referrer, properties, event_timestamp = at AS at, kafka_topic
  FROM raw.events, moment ORDER BY 1;
SELECT * FROM totals ORDER BY 1;
SELECT event_type, sum(count) FROM live.events_day GROUP BY 1 ORDER BY 1;
SELECT event_type, sum(count) FROM live.user_day GROUP BY 1 ORDER BY 1;
SELECT * FROM ledger;
SELECT * FROM wrong;

-- One record that a stage refuses, in every way, takes none of its neighbours along.
SELECT pulse.add_stage('shop', 'ratio', 'transform', $$
    SELECT *, properties || jsonb_build_object('ratio', 10 / (properties ->> 'n')::int) AS properties, (properties ->> 'at')::timestamptz AS event_timestamp
      FROM batch CROSS JOIN LATERAL generate_series(1, coalesce((properties ->> 'times')::int, 1))$$, 2);
SELECT pulse.drop_stage('shop', 'ratio');
SELECT pulse.add_stage('shop', 'ratio', 'transform', $$
    SELECT batch.*, properties || jsonb_build_object('ratio', 10 / (properties ->> 'n')::int) AS properties, (properties ->> 'at')::timestamptz AS event_timestamp
      FROM batch CROSS JOIN LATERAL generate_series(1, coalesce((properties ->> 'times')::int, 1))$$, 2);
SELECT pulse.add_stage('shop', 'few', 'sink', $$INSERT INTO public.totals SELECT 'n' || (properties ->> 'n'), 1 FROM batch WHERE properties ->> 'n' = '7'$$);
SELECT accepted, rejected FROM pulse.ingest('shop', (SELECT jsonb_agg(good(jsonb_build_object('event_id', 'r' || n, 'n', n)
    || CASE n WHEN 30 THEN '{"times": 2}' WHEN 40 THEN '{"at": "2020-01-01"}' WHEN 50 THEN '{"n": "many"}' WHEN 60 THEN '{"times": 0}' ELSE '{}' END::jsonb))
    FROM generate_series(0, 99) n));
SELECT error_class, error_code, stage, sqlstate, error_message, convert_from(value, 'UTF8')::jsonb ->> 'event_id' AS event_id FROM raw.dlq ORDER BY dlq_id;
SELECT count(*), min((properties ->> 'ratio')::int), max((properties ->> 'ratio')::int) FROM raw.events WHERE event_id LIKE 'r%';
SELECT * FROM totals ORDER BY 1;
SELECT accepted, rejected FROM pulse.ingest('shop', good('{"event_id": "s7", "n": 7}')); -- the sink's own key refuses it
SELECT error_code, stage, sqlstate FROM raw.dlq ORDER BY dlq_id DESC LIMIT 1;
SELECT * FROM ledger;
SELECT * FROM wrong;

SELECT name, kind, records_in - records_out AS left_out, refused, total_ms > 0 AS measured FROM pulse.stat_stage WHERE kind <> 'sink' ORDER BY at_position;
SELECT name, runs > 0 AS ran, records_out, refused FROM pulse.stat_stage WHERE kind = 'sink' ORDER BY at_position;

-- Mended, they come back; one that a filter leaves out stays a letter.
SELECT pulse.drop_stage('shop', 'ratio'), pulse.drop_stage('shop', 'few');
UPDATE raw.dlq SET value = convert_to((convert_from(value, 'UTF8')::jsonb || '{"user_id": "bot"}')::text, 'UTF8') WHERE stage = 'few';
CALL pulse.dlq_replay('shop');
SELECT status, error_code, stage, error_message, count(*) FROM raw.dlq GROUP BY 1, 2, 3, 4 ORDER BY 1, 2;
SELECT * FROM totals ORDER BY 1;
SELECT * FROM wrong;

-- What a stage returns is cut, rounded and checked by the column like anything else.
CREATE DOMAIN short AS text CHECK (length(VALUE) < 5);
CREATE DOMAIN given AS text NOT NULL;
CREATE TABLE typed (id int PRIMARY KEY, code varchar(3), amount numeric(5, 1), word short, must given, fallback text DEFAULT 'none', filler char(2));
SELECT pulse.create_pipeline('typed', '{typed}', 'public.typed');
CREATE DOMAIN three AS varchar(3);
ALTER TABLE typed ADD tag three;
SELECT pulse.alter_pipeline('typed', '{}');
SELECT pulse.add_stage('typed', 'own', 'transform', 'SELECT id, fallback AS tag, code || code AS code, amount / 3 AS amount, word || word AS word, must, upper(fallback) AS fallback FROM batch');
SELECT accepted, rejected FROM pulse.ingest('typed', '[{"id": 1, "code": "a", "amount": 1, "word": "b", "must": "c", "filler": "d"},
    {"id": 2, "code": "ab", "must": "c"}, {"id": 3, "word": "abc", "must": "c"}, {"id": 4, "must": "c", "fallback": "giv"}, {"id": 8, "must": "c", "fallback": "given"}]');
SELECT * FROM typed ORDER BY id;
SELECT error_code, stage, sqlstate, error_message FROM raw.dlq WHERE pipeline = 'typed' ORDER BY dlq_id;
SELECT pulse.add_stage('typed', 'without', 'transform', 'SELECT id FROM batch');
SELECT accepted, rejected FROM pulse.ingest('typed', '{"id": 5, "must": "c"}');
SELECT error_code, stage, sqlstate, error_message FROM raw.dlq WHERE pipeline = 'typed' ORDER BY dlq_id DESC LIMIT 1;

SELECT pulse.drop_stage('typed', 'without');

-- Whatever code of a stage sets, pulse's own statements, which run as a superuser, see none of it.
CREATE SCHEMA regress_evil;
CREATE TABLE regress_evil.seen (who name);
CREATE FUNCTION regress_evil.plus(bigint, bigint) RETURNS bigint LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO regress_evil.seen VALUES (current_user); RETURN $1 OPERATOR(pg_catalog.+) $2; END $$;
CREATE OPERATOR regress_evil.+ (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = regress_evil.plus);
SELECT pulse.drop_stage('shop', name) FROM pulse.stages WHERE pipeline = 'shop';
SELECT pulse.add_stage('shop', 'path', 'filter', $$SELECT FROM batch WHERE set_config('search_path', 'regress_evil, pg_catalog', false) <> ''$$);
SELECT accepted FROM pulse.ingest('shop', good('{"event_id": "p1"}')), generate_series(1, 2);
SELECT accepted FROM pulse.ingest('shop', good('{"event_id": "p2"}'));
SELECT pulse.drop_stage('shop', 'path');
CREATE FUNCTION regress_evil.path() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM set_config('search_path', 'regress_evil, pg_catalog', false); RETURN NEW; END $$;
CREATE TRIGGER path BEFORE INSERT ON raw.events FOR EACH ROW EXECUTE FUNCTION regress_evil.path();
SELECT accepted FROM pulse.ingest('shop', good('{"event_id": "p3"}')), generate_series(1, 2);
SELECT * FROM regress_evil.seen;
SET client_min_messages = warning;
DROP SCHEMA regress_evil CASCADE;
RESET client_min_messages;

-- It cannot ingest while it is ingested, and sees the settings that a worker has.
SELECT pulse.add_stage('shop', 'again', 'filter', $$SELECT FROM batch WHERE (SELECT accepted FROM pulse.ingest('typed', '{}')) > 0$$);
SELECT accepted FROM pulse.ingest('shop', good());
SELECT pulse.drop_stage('shop', 'again');
SELECT pulse.add_stage('shop', 'zone', 'transform', $$SELECT *, properties || jsonb_build_object('zone', current_setting('TimeZone')) AS properties FROM batch$$);
SET timezone = 'Asia/Tokyo';
SELECT accepted FROM pulse.ingest('shop', good('{"event_id": "z"}'));
SELECT properties ->> 'zone' AS zone, current_setting('TimeZone') AS own FROM raw.events WHERE event_id = 'z';
SET timezone = 'UTC';

-- What is counted must fit the counters, whatever a stage makes of it.
SELECT pulse.add_stage('shop', 'long', 'transform', $$SELECT *, repeat(event_type, (properties ->> 'times')::int) AS event_type FROM batch$$);
SELECT accepted, rejected FROM pulse.ingest('shop', jsonb_build_array(good('{"event_id": "l1", "times": 2}'), good('{"event_id": "l2", "times": 5000}')));
SELECT error_code, sqlstate, error_message FROM raw.dlq ORDER BY dlq_id DESC LIMIT 1;
SELECT * FROM wrong;

CREATE TABLE loose (event_id text PRIMARY KEY, event_type text NOT NULL, user_id text NOT NULL, event_timestamp timestamptz NOT NULL);
SELECT pulse.create_pipeline('loose', '{loose}', 'public.loose');
SELECT pulse.add_stage('loose', 'end', 'transform', $$SELECT *, CASE event_id WHEN 'e1' THEN 'infinity' ELSE event_timestamp END AS event_timestamp FROM batch$$);
SELECT accepted, rejected FROM pulse.ingest('loose', jsonb_build_array(good('{"event_id": "e1"}'), good('{"event_id": "e2"}')));
SELECT error_code, sqlstate, error_message FROM raw.dlq ORDER BY dlq_id DESC LIMIT 1;
SELECT what, expected, found FROM pulse.verify('loose') WHERE NOT ok;

-- A duplicate is one as the column has rounded it, also where a trigger may have left it out.
CREATE TABLE rounded (key numeric(5, 1) PRIMARY KEY, n int);
CREATE FUNCTION same() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER same BEFORE INSERT ON rounded FOR EACH ROW EXECUTE FUNCTION same();
SELECT pulse.create_pipeline('rounded', '{rounded}', 'public.rounded');
SELECT pulse.add_stage('rounded', 'third', 'transform', 'SELECT *, key / 3 AS key FROM batch');
SELECT accepted FROM pulse.ingest('rounded', '{"key": 1}');
SELECT accepted FROM pulse.ingest('rounded', '{"key": 1}');
SELECT sum(rows) AS rows, sum(duplicates) AS duplicates, sum(filtered) AS filtered FROM pulse.ingests WHERE pipeline = 'rounded';
SELECT pulse.drop_pipeline('loose'), pulse.drop_pipeline('rounded');

-- A sink sees the rows as they are in the table, and writes another.
SELECT pulse.add_stage('shop', 'self', 'sink', 'INSERT INTO raw.events SELECT * FROM batch');
CREATE TABLE copies (id text, amount numeric, parent int REFERENCES typed DEFERRABLE INITIALLY DEFERRED);
SELECT pulse.add_stage('shop', 'copy', 'sink', 'INSERT INTO public.copies SELECT event_id FROM batch');
SELECT accepted FROM pulse.ingest('shop', jsonb_build_array(good('{"times": 1}'), good('{"times": 1}')));
SELECT count(*) AS in_both FROM copies JOIN raw.events ON event_id = id;
SELECT pulse.add_stage('typed', 'copy', 'sink', 'INSERT INTO public.copies SELECT code, amount, id FROM batch');
SELECT accepted, rejected FROM pulse.ingest('typed', '{"id": 7, "amount": 1, "must": "c"}');
SELECT * FROM copies WHERE parent IS NOT NULL;
SELECT pulse.drop_stage('typed', 'copy');

-- What is gone is an error of the definition, not of a record.
SELECT pulse.add_stage('typed', 'missing', 'filter', 'SELECT FROM batch WHERE EXISTS (SELECT FROM public.pages)');
DROP TABLE pages CASCADE;
SELECT pulse.ingest('typed', '{"id": 6, "must": "c"}');
SELECT pulse.drop_stage('typed', 'nothing');
SELECT pulse.drop_stage('nowhere', 'nothing');
SELECT pulse.drop_pipeline('typed'), pulse.drop_pipeline('shop');
SELECT count(*) FROM pulse.stages;
SET client_min_messages = warning;
DROP VIEW wrong, ledger;
DROP FUNCTION good(jsonb), same() CASCADE;
DROP TABLE moment, totals, copies, loose, rounded, typed;
DROP DOMAIN short, given, three;
DROP SCHEMA raw, live CASCADE;
