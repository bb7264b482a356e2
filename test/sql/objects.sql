-- Everything the extension consists of. A new object shows up here: its volatility, strictness and
\set SHOW_CONTEXT never
-- parallel safety, its comment, and that nothing of raw or live is tied to it.
SELECT p.oid::regprocedure AS function, provolatile AS vol, proisstrict AS strict, proparallel AS par,
       prosecdef AS definer, l.lanname AS language
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
 WHERE pronamespace = 'pulse'::regnamespace ORDER BY p.oid::regprocedure::text COLLATE "C";

SELECT relkind, relname FROM pg_class WHERE relnamespace = 'pulse'::regnamespace AND relkind <> 'i'
 ORDER BY relkind, relname COLLATE "C";

SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull
  FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
 WHERE relnamespace = 'pulse'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped
 ORDER BY relname COLLATE "C", attnum;

-- All of it belongs to the extension.
SELECT 'function' AS kind, p.oid::regprocedure::text AS name FROM pg_proc p
 WHERE pronamespace = 'pulse'::regnamespace
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT 'relation', c.oid::regclass::text FROM pg_class c
 WHERE relnamespace = 'pulse'::regnamespace AND relkind IN ('r', 'v')
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');

-- No object without a comment; here and in what create_pipeline makes.
SELECT pulse.create_pipeline('objects', ARRAY['objects']);
SELECT p.oid::regprocedure AS function_without_comment FROM pg_proc p
 WHERE pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('pulse', 'raw', 'live'))
   AND obj_description(p.oid, 'pg_proc') IS NULL;
SELECT c.oid::regclass AS relation_without_comment FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
 WHERE nspname IN ('pulse', 'raw', 'live') AND relkind IN ('r', 'p', 'v') AND NOT relispartition
   AND obj_description(c.oid, 'pg_class') IS NULL;
SELECT nspname AS schema_without_comment FROM pg_namespace
 WHERE nspname IN ('pulse', 'raw', 'live') AND obj_description(oid, 'pg_namespace') IS NULL;

-- Every function that runs SQL has a search_path of its own.
SELECT p.oid::regprocedure AS function_without_search_path FROM pg_proc p JOIN pg_language l ON l.oid = prolang
 WHERE pronamespace = 'pulse'::regnamespace AND lanname IN ('sql', 'plpgsql')
   AND NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp'];

-- Nothing of raw or live depends on pulse, and nothing of pulse on raw or live: either would break DROP
-- EXTENSION or a restore.
CREATE FUNCTION pg_temp.schema_of(classid oid, objid oid) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce((pg_identify_object(classid, objid, 0)).schema, '')
$$;
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS object,
       pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) AS depends_on
  FROM pg_depend d
  LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
  CROSS JOIN LATERAL (SELECT CASE WHEN r.oid IS NULL THEN pg_temp.schema_of(d.classid, d.objid)
                                  ELSE pg_temp.schema_of('pg_class'::regclass, r.ev_class) END AS own,
                             pg_temp.schema_of(d.refclassid, d.refobjid) AS other) s
 WHERE d.deptype <> 'p' AND d.classid <> 0
   AND ((s.own IN ('raw', 'live') AND s.other = 'pulse') OR (s.own = 'pulse' AND s.other IN ('raw', 'live')));
SELECT pg_describe_object(classid, objid, objsubid) AS object_of_the_data FROM pg_depend
 WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pulse')
   AND pg_temp.schema_of(classid, objid) IN ('raw', 'live');
SELECT p.oid::regprocedure AS sql_function_that_names_data FROM pg_proc p JOIN pg_language l ON l.oid = prolang
 WHERE pronamespace = 'pulse'::regnamespace AND lanname = 'sql'
   AND coalesce(pg_get_function_sqlbody(p.oid), prosrc) ~ '\m(raw|live)\.';

-- What pg_dump takes along.
SELECT c.oid::regclass AS dumped, condition
  FROM pg_extension e CROSS JOIN LATERAL unnest(extconfig, extcondition) u (relation, condition)
  JOIN pg_class c ON c.oid = u.relation WHERE extname = 'pulse' ORDER BY c.oid::regclass::text COLLATE "C";

SELECT pulse.drop_pipeline('objects');
SET client_min_messages = warning;
DROP SCHEMA raw, live CASCADE;
