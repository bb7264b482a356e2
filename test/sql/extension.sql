-- The extension comes and goes; what pulse wrote stays.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT extname, nspname, extrelocatable FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
 WHERE extname = 'pulse';

CREATE EXTENSION pulse; -- twice is an error, not a second pipeline
SELECT pulse.create_pipeline('clicks', ARRAY['clicks']);
INSERT INTO raw.dlq (pipeline, error_class, error_code) VALUES ('clicks', 'decode', 'syntax');

DROP EXTENSION pulse; -- no CASCADE needed: nothing of raw and live depends on it
SELECT count(*) AS schema_left FROM pg_namespace WHERE nspname = 'pulse';
SELECT count(*) AS functions_left FROM pg_proc WHERE probin LIKE '%pulse%';
SELECT error_code FROM raw.dlq;
SELECT count(*) FROM live.events_minute;

-- Over the data of the installation before.
CREATE EXTENSION pulse;
SELECT count(*) AS pipelines FROM pulse.pipelines;
SELECT pulse.create_pipeline('clicks', ARRAY['clicks']);
SELECT name, topics, target, settings, columns, desired_state FROM pulse.pipelines;
SELECT error_code FROM raw.dlq;
SELECT pulse.drop_pipeline('clicks');

-- It can't be put into another schema, and takes a schema of the same name from nobody.
DROP EXTENSION pulse;
CREATE EXTENSION pulse SCHEMA public;
CREATE TABLE pulse.offsets (mine int);
CREATE EXTENSION pulse;
DROP SCHEMA pulse CASCADE; -- DROP EXTENSION left it, as it leaves every schema
CREATE EXTENSION pulse;

-- Only a superuser may create it.
CREATE ROLE regress_pulse_user;
GRANT CREATE ON DATABASE contrib_regression TO regress_pulse_user;
DROP EXTENSION pulse;
SET ROLE regress_pulse_user;
CREATE EXTENSION pulse;
RESET ROLE;
CREATE EXTENSION pulse;
REVOKE CREATE ON DATABASE contrib_regression FROM regress_pulse_user;
DROP ROLE regress_pulse_user;
DROP SCHEMA raw, live CASCADE;
