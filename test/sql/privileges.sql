-- Who may do what (hazards: a function left to PUBLIC, a definer without search_path, a secret).
\set SHOW_CONTEXT never
CREATE ROLE regress_pulse_nobody;
CREATE ROLE regress_pulse_monitor IN ROLE pg_monitor;
CREATE ROLE regress_pulse_operator;

-- What PUBLIC may call: the batch of a running worker, and constants.
SELECT p.oid::regprocedure AS for_public FROM pg_proc p
 WHERE pronamespace = 'pulse'::regnamespace AND has_function_privilege('regress_pulse_nobody', p.oid, 'EXECUTE')
 ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT c.oid::regclass AS for_public, privilege
  FROM pg_class c CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) privilege
 WHERE relnamespace = 'pulse'::regnamespace AND relkind IN ('r', 'v')
   AND has_table_privilege('regress_pulse_nobody', c.oid, privilege) ORDER BY 1, 2;
SELECT p.oid::regprocedure AS definer_without_search_path FROM pg_proc p
 WHERE pronamespace = 'pulse'::regnamespace AND prosecdef
   AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false);
-- A name that a caller's search path would decide: none (C functions and views have no names to look up).
SELECT p.oid::regprocedure AS without_search_path FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
 WHERE pronamespace = 'pulse'::regnamespace AND l.lanname NOT IN ('c', 'internal') AND p.prokind <> 'a'
   AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false);
-- What views, defaults, constraints and SQL bodies were bound to at CREATE EXTENSION: pulse and pg_catalog only.
SELECT DISTINCT o.identity AS of_somebody_else
  FROM pg_depend d
 CROSS JOIN pg_identify_object(d.classid, d.objid, d.objsubid) i
 CROSS JOIN pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) o
 WHERE i.schema = 'pulse' AND o.schema NOT IN ('pulse', 'pg_catalog')
    OR d.classid = 'pg_rewrite'::regclass AND o.schema NOT IN ('pulse', 'pg_catalog')
   AND EXISTS (SELECT FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
                WHERE r.oid = d.objid AND c.relnamespace = 'pulse'::regnamespace);
-- The script adopts nothing that somebody may have planted, and only a superuser runs it.
SELECT s.line AS adopts
  FROM pg_config c CROSS JOIN pg_extension e
 CROSS JOIN LATERAL regexp_split_to_table(pg_read_file(c.setting || '/extension/pulse--' || e.extversion || '.sql'), E'\n')
       AS s (line)
 WHERE c.name = 'SHAREDIR' AND e.extname = 'pulse' AND s.line ~* 'or replace|create.*if not exists|@extowner@';
SELECT superuser, trusted, relocatable, schema FROM pg_available_extension_versions WHERE name = 'pulse' AND installed;
-- Objects of the extension that PUBLIC, or anybody but pg_monitor, may change.
SELECT c.oid::regclass AS changed_by, a.grantee::regrole, a.privilege_type
  FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
 WHERE c.relnamespace = 'pulse'::regnamespace AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT';
-- A setting that could hold a secret is not for everybody's eyes, and no setting is a user's to change.
SELECT name FROM pg_settings WHERE name LIKE 'pulse.%' AND name ~ 'password|secret' AND name <> 'pulse.secrets_file';
CREATE FUNCTION told(secret text, before text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    hint text;
BEGIN
    PERFORM pulse._check_settings(jsonb_build_object('kafka_options', before || secret || '=x'));
    RETURN 'taken';
EXCEPTION WHEN invalid_parameter_value THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN CASE WHEN hint LIKE '%secrets_file%' AND message LIKE '%' || secret || '%' THEN 'refused' ELSE message END;
END
$$;
SELECT secret, told(secret), told(upper(secret)) AS shouted, told(secret, 'fetch.min.bytes=1, ') AS behind_another FROM unnest(ARRAY[
    'sasl.password', 'sasl.oauthbearer.config', 'sasl.oauthbearer.client.secret', 'ssl.key.password', 'ssl.key.pem',
    'ssl.keystore.password', 'ssl.certificate.pem', 'ssl.key.location', 'ssl.keystore.location', 'ssl.ca.pem']) secret;
DROP FUNCTION told(text, text);
SELECT name, context FROM pg_settings WHERE name LIKE 'pulse.%' AND context NOT IN ('sighup', 'postmaster');

-- What pg_monitor may read.
SELECT c.oid::regclass AS for_monitor FROM pg_class c
 WHERE relnamespace = 'pulse'::regnamespace AND relkind IN ('r', 'v')
   AND has_table_privilege('regress_pulse_monitor', c.oid, 'SELECT') ORDER BY c.relname COLLATE "C";
SET ROLE regress_pulse_monitor;
SELECT count(*) FROM pulse.stat_pipeline;
SELECT count(*) FROM pulse.stat_partition;
SELECT count(*) FROM pulse.stat_worker;
DELETE FROM pulse.offsets;
SELECT pulse.pause('events');
RESET ROLE;

SET ROLE regress_pulse_nobody;
SELECT * FROM pulse.pipelines;
SELECT * FROM pulse.stat_worker;
SELECT pulse.create_pipeline('mine', ARRAY['mine']);
SELECT * FROM pulse.decode('events', '{}');
SELECT * FROM pulse.verify('events');
SELECT pulse._wake();
SELECT count(*) > 20 AS has_codes FROM pulse.error_codes;
-- The batch of a worker is nowhere else.
SELECT * FROM pulse._batch() AS (a int);
SELECT pulse._at_record(0);
RESET ROLE;

-- Somebody else's tables in raw or live are not adopted.
CREATE SCHEMA raw AUTHORIZATION regress_pulse_operator;
SELECT pulse.create_pipeline('planted', ARRAY['planted']);
DROP SCHEMA raw;
DROP ROLE regress_pulse_nobody, regress_pulse_monitor, regress_pulse_operator;
