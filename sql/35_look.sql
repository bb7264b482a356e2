-- Looking before leaping: what the topics hold and whether they can be reached. Nothing here consumes, and
-- nothing is stored, neither in pulse.offsets nor in the consumer group. These do contact the broker.

CREATE FUNCTION pulse.preview(name text, n int DEFAULT 10,
    OUT kafka_topic text, OUT kafka_partition int, OUT kafka_offset bigint, OUT kafka_timestamp timestamptz,
    OUT kafka_key bytea, OUT event jsonb, OUT error_code text, OUT error_message text)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_preview';
COMMENT ON FUNCTION pulse.preview(text, int) IS
'the next n records as the pipeline would decode them, from any of its partitions, without consuming them: from next_offset on, or
from start_position where a topic was not started yet. event, or error_code and error_message of the reject; what only PostgreSQL would
refuse (a constraint) looks fine here. Less than n rows when there is no more. Reads with the credentials of pulse, in the caller''s session; can be cancelled.
Errors: 42704 no such pipeline or topic, 22023 next_offset is not in the log (the hint says which offsets are), 08000 broker, 55000 no brokers set, 53000 too many cancelled calls still closing';

CREATE FUNCTION pulse.extract(name text, topic text, partition int, from_offset bigint, to_offset bigint DEFAULT NULL,
    OUT kafka_topic text, OUT kafka_partition int, OUT kafka_offset bigint, OUT kafka_timestamp timestamptz,
    OUT kafka_key bytea, OUT event jsonb, OUT error_code text, OUT error_message text)
    RETURNS SETOF record LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_extract';
COMMENT ON FUNCTION pulse.extract(text, text, int, bigint, bigint) IS
'the records from from_offset up to, not including, to_offset (default: that one record) of a partition the pipeline reads, as it would decode them,
without consuming them; up to the end of the log when to_offset is beyond it. Columns and errors are those of pulse.preview; 22023 when from_offset is not in the log';

CREATE FUNCTION pulse.test_connection(name text DEFAULT NULL, OUT what text, OUT ok boolean, OUT detail text, OUT hint text)
    RETURNS SETOF record LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pulse_test_connection';
COMMENT ON FUNCTION pulse.test_connection(text) IS
'tries the connection to Kafka step by step from the caller''s session: settings, client, brokers, cluster, and for each topic whether it is there,
how many offsets its partitions hold, and whether they may be read. With the settings and topics of a pipeline, or without a name those of postgresql.conf (pulse.topic).
A step that fails is a row with ok = false, the text of librdkafka and a hint; each waits 5 s at most. Works while pulse is idle or stopped. Errors: 42704';
