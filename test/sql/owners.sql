-- Whoever may make pipelines has the rights of his own roles in them, and no others'.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_pulse_boss SUPERUSER;
CREATE ROLE regress_pulse_app;
CREATE ROLE regress_pulse_team;
CREATE ROLE regress_pulse_writer;
GRANT CREATE, USAGE ON SCHEMA public TO regress_pulse_app, regress_pulse_team;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA pulse TO regress_pulse_app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pulse TO regress_pulse_app;
SELECT pulse.create_pipeline('theirs', '{theirs}');
UPDATE pulse.pipelines SET owner = 'regress_pulse_boss';
GRANT USAGE ON SCHEMA raw TO regress_pulse_app;
SELECT pulse.add_stage('theirs', 'small', 'filter', 'SELECT * FROM batch WHERE length(event_id) < 100');
CREATE VIEW everything AS
SELECT name, owner, settings, (SELECT array_agg(s.name ORDER BY at_position) FROM pulse.stages s WHERE s.pipeline = p.name) AS stages
  FROM pulse.pipelines p;

SET ROLE regress_pulse_app;
CREATE TABLE public.mine (event_id text PRIMARY KEY);
SELECT pulse.create_pipeline('mine', '{mine}', 'public.mine');
SELECT pulse.add_stage('mine', 'own', 'filter', 'SELECT * FROM batch');
SELECT pulse.alter_pipeline('mine', '{"workers": 2}');

-- Pipelines of others, by the functions.
SELECT pulse.alter_pipeline('theirs', '{}');
SELECT pulse.drop_pipeline('theirs');
SELECT pulse.add_stage('theirs', 'planted', 'filter', 'SELECT b.* FROM batch b WHERE public.attack()');
SELECT pulse.drop_stage('theirs', 'small');

-- And around them.
\set VERBOSITY terse
UPDATE pulse.pipelines SET owner = 'regress_pulse_boss' WHERE name = 'mine';
UPDATE pulse.pipelines SET owner = 'no such role' WHERE name = 'mine';
UPDATE pulse.pipelines SET owner = 'regress_pulse_app' WHERE name = 'theirs';
UPDATE pulse.pipelines SET settings = '{"role": "regress_pulse_app"}' WHERE name = 'theirs';
UPDATE pulse.pipelines SET settings = '{"role": "regress_pulse_writer"}' WHERE name = 'mine';
UPDATE pulse.pipelines SET settings = '{"brokers": "elsewhere:9092"}' WHERE name = 'mine';
UPDATE pulse.pipelines SET settings = '{"kafka_options": "socket.timeout.ms=1000"}' WHERE name = 'mine';
UPDATE pulse.pipelines SET settings = '{"secrets_file": "/etc/passwd"}' WHERE name = 'mine';
UPDATE pulse.pipelines SET settings = '{"schema": {"properties": {"a": {"pattern": "("}}}}' WHERE name = 'mine';
DELETE FROM pulse.pipelines WHERE name = 'theirs';
TRUNCATE pulse.stages;
TRUNCATE pulse.pipelines CASCADE;
INSERT INTO pulse.pipelines (name, topics, target, columns, owner) VALUES ('planted', '{x}', 'public.mine', '{event_id}', 'regress_pulse_boss');
INSERT INTO pulse.pipelines (name, topics, target, columns, owner, settings)
VALUES ('planted', '{x}', 'public.mine', '{event_id}', current_user, '{"brokers": "elsewhere:9092"}');
INSERT INTO pulse.pipelines (name, topics, target, columns, owner) VALUES ('theirs', '{x}', 'public.mine', '{event_id}', current_user)
    ON CONFLICT (name) DO UPDATE SET settings = '{}';
INSERT INTO pulse.stages (pipeline, name, at_position, kind, body) VALUES ('theirs', 'planted', 2, 'filter', 'SELECT 1');
INSERT INTO pulse.stages (pipeline, name, at_position, kind, body) VALUES ('not there yet', 'planted', 1, 'filter', 'SELECT 1');
UPDATE pulse.stages SET body = 'SELECT 1' WHERE pipeline = 'theirs';
UPDATE pulse.stages SET pipeline = 'theirs' WHERE pipeline = 'mine';
DELETE FROM pulse.stages WHERE pipeline = 'theirs';
COPY pulse.stages (pipeline, name, at_position, kind, body) FROM stdin;
theirs	planted	2	filter	SELECT 1
\.
\set VERBOSITY default
RESET ROLE;
SELECT * FROM everything ORDER BY name;

-- What a superuser has set is not taken back by others, and what he lets a pipeline write as is not theirs to use.
SELECT pulse.alter_pipeline('mine', '{"brokers": "nowhere.invalid:1"}');
SET ROLE regress_pulse_app;
SELECT pulse.alter_pipeline('mine', '{"brokers": null}');
SELECT pulse.alter_pipeline('mine', '{"workers": 3}');
RESET ROLE;
GRANT INSERT ON public.mine TO regress_pulse_writer;
SELECT pulse.alter_pipeline('mine', '{"role": "regress_pulse_writer"}');
SET ROLE regress_pulse_app;
SELECT pulse.add_stage('mine', 'planted', 'filter', 'SELECT * FROM batch');
RESET ROLE;
GRANT regress_pulse_writer TO regress_pulse_app;
SET ROLE regress_pulse_app;
SELECT pulse.drop_stage('mine', 'own');
RESET ROLE;
REVOKE regress_pulse_writer FROM regress_pulse_app;
SELECT pulse.alter_pipeline('mine', '{"brokers": null, "role": null}');

-- A member of the owner may, and the owner himself may go on to the end; his stages go with the pipeline.
GRANT regress_pulse_team TO regress_pulse_app;
SET ROLE regress_pulse_app;
UPDATE pulse.pipelines SET owner = 'regress_pulse_team' WHERE name = 'mine';
SELECT pulse.add_stage('mine', 'again', 'filter', 'SELECT * FROM batch');
SELECT pulse.drop_pipeline('mine');
SELECT count(*) AS left FROM pulse.stages WHERE pipeline = 'mine';
RESET ROLE;
SELECT * FROM everything ORDER BY name;

-- What runs as the owner of the extension, whoever calls, leaves tables of others alone, and says so.
SELECT pulse.create_pipeline('heir', '{heir}');
ALTER TABLE live._user_day OWNER TO regress_pulse_app;
SELECT pulse.drop_pipeline('theirs');
SET ROLE regress_pulse_app;
SELECT pulse._forget_counts('theirs', 'public.mine', false);
SELECT pulse._adopt_counts('theirs', 'raw.events', 'user_day', NULL, NULL, NULL, NULL);
SELECT pulse._has_counts('theirs', 'user_day');
SELECT pulse._adopt_counts('theirs', 'raw.events', 'day', NULL, NULL, NULL, NULL);
RESET ROLE;
ALTER TABLE live._user_day OWNER TO CURRENT_USER;
ALTER TABLE raw.dlq OWNER TO regress_pulse_app;
SET ROLE regress_pulse_app;
\set VERBOSITY terse
SELECT pulse._adopt_letters('theirs');
SELECT pulse._adopt_ingested('theirs', 0);
SELECT * FROM pulse._recreated('theirs');
\set VERBOSITY default
RESET ROLE;

SELECT pulse.drop_pipeline('theirs');
SELECT pulse.drop_pipeline('heir');
DROP VIEW everything;
DROP SCHEMA raw, live CASCADE;
DROP TABLE public.mine;
REVOKE ALL ON ALL TABLES IN SCHEMA pulse FROM regress_pulse_app;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pulse FROM regress_pulse_app;
REVOKE ALL ON SCHEMA public FROM regress_pulse_app, regress_pulse_team;
DROP ROLE regress_pulse_boss, regress_pulse_app, regress_pulse_team, regress_pulse_writer;
