-- The schema pulse is made by CREATE EXTENSION (pulse.control). Data live elsewhere: raw, live and sim
-- are made by pulse.create_pipeline(), so that they outlive DROP EXTENSION and pg_dump dumps them.
-- Nothing in this script refers to them.

COMMENT ON SCHEMA pulse IS 'pulse: consumes Kafka inside PostgreSQL, exactly once';
