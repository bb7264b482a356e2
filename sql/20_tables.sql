CREATE TABLE pulse.pipelines (
    name          text PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 63),
    topics        text[] NOT NULL CHECK (cardinality(topics) > 0),
    target        text NOT NULL,
    settings      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    columns       text[] NOT NULL,
    owner         text NOT NULL,
    desired_state text NOT NULL DEFAULT 'running' CHECK (desired_state IN ('running', 'paused', 'stopped')),
    reason        text,
    hint          text,
    version       bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    created_at    timestamptz NOT NULL DEFAULT now(),
    changed_at    timestamptz NOT NULL DEFAULT now(),
    retained_from timestamptz
);
COMMENT ON TABLE pulse.pipelines IS 'topics -> target table; change it with create_pipeline, alter_pipeline, drop_pipeline';
COMMENT ON COLUMN pulse.pipelines.topics IS 'topic names, or regular expressions with leading ^';
COMMENT ON COLUMN pulse.pipelines.target IS 'schema-qualified name of the table that is written';
COMMENT ON COLUMN pulse.pipelines.settings IS 'settings of this pipeline, without the prefix pulse.';
COMMENT ON COLUMN pulse.pipelines.columns IS 'columns of the target the pipeline counts on; when one is gone the pipeline fails instead of dropping its values';
COMMENT ON COLUMN pulse.pipelines.owner IS 'role the target is written as, unless pulse.role names another';
COMMENT ON COLUMN pulse.pipelines.desired_state IS 'running, paused or stopped: what pause, resume, stop and the breaker asked for';
COMMENT ON COLUMN pulse.pipelines.retained_from IS 'retention has dropped the rows whose event_timestamp is before it, and rejects such events (too_old); never goes back';
COMMENT ON COLUMN pulse.pipelines.version IS 'another one after every change, also of a pipeline dropped and made again; workers start again with it';

CREATE TABLE pulse.offsets (
    pipeline             text NOT NULL,
    topic                text NOT NULL,
    partition            int NOT NULL,
    next_offset          bigint NOT NULL CHECK (next_offset >= 0),
    highest_offset       bigint NOT NULL,
    topic_epoch          int NOT NULL DEFAULT 0,
    fence                bigint NOT NULL DEFAULT 0,
    records              bigint NOT NULL DEFAULT 0,
    rows                 bigint NOT NULL DEFAULT 0,
    duplicates           bigint NOT NULL DEFAULT 0,
    rejects              bigint NOT NULL DEFAULT 0,
    filtered             bigint NOT NULL DEFAULT 0,
    expired_rows         bigint NOT NULL DEFAULT 0,
    adopted_rows         bigint NOT NULL DEFAULT 0,
    adopted_letters      bigint NOT NULL DEFAULT 0,
    rejects_accepted_to  bigint,
    fp_offset            bigint,
    fp_timestamp         bigint,
    fp_crc               bigint,
    last_kafka_timestamp timestamptz,
    updated_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, topic, partition)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
COMMENT ON TABLE pulse.offsets IS 'the next offset of every partition, moved in the transaction of its rows; everything below it is accounted for';
COMMENT ON COLUMN pulse.offsets.next_offset IS 'the next Kafka offset to read';
COMMENT ON COLUMN pulse.offsets.highest_offset IS 'the largest next_offset ever reached; records below it are read again after a seek';
COMMENT ON COLUMN pulse.offsets.topic_epoch IS 'raised when a recreated topic is accepted: its records are others than those that had their offsets before';
COMMENT ON COLUMN pulse.offsets.fence IS 'raised by each worker that takes the partition; a batch of an earlier owner does not commit';
COMMENT ON COLUMN pulse.offsets.records IS 'records committed = rows + duplicates + rejects + filtered';
COMMENT ON COLUMN pulse.offsets.rows IS 'rows inserted into the target';
COMMENT ON COLUMN pulse.offsets.duplicates IS 'records that were in the target, or in raw.dlq, already';
COMMENT ON COLUMN pulse.offsets.rejects IS 'dead letters written';
COMMENT ON COLUMN pulse.offsets.expired_rows IS 'rows of this partition that retention has dropped: the target holds so many less';
COMMENT ON COLUMN pulse.offsets.filtered IS 'records a stage, or a BEFORE trigger of the target that returned NULL, filtered out';
COMMENT ON COLUMN pulse.offsets.adopted_rows IS 'rows of this partition that the target held when the pipeline was created: rows in the target = rows + adopted_rows + replayed ones (pulse.replays) - expired_rows';
COMMENT ON COLUMN pulse.offsets.adopted_letters IS 'dead letters of this partition that were there when the pipeline was created';
COMMENT ON COLUMN pulse.offsets.rejects_accepted_to IS 'the breaker does not count records before this offset: pulse.resume(name, force => true) set it to the end of the log of that moment';
COMMENT ON COLUMN pulse.offsets.fp_offset IS 'the last record written: read again to tell whether the topic is still the same';
COMMENT ON COLUMN pulse.offsets.fp_timestamp IS 'its Kafka timestamp, milliseconds since 1970; -1 = it has none';
COMMENT ON COLUMN pulse.offsets.fp_crc IS 'CRC-32C of its key and value';

CREATE TABLE pulse.offset_log (
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    pipeline   text NOT NULL,
    topic      text NOT NULL,
    partition  int NOT NULL,
    old_offset bigint,
    new_offset bigint NOT NULL,
    reason     text NOT NULL,
    changed_by text NOT NULL DEFAULT current_user
);
CREATE INDEX offset_log_changed_at_idx ON pulse.offset_log (changed_at);
COMMENT ON TABLE pulse.offset_log IS 'who moved an offset, when and why; the moves of ordinary batches are not in it';

CREATE TABLE pulse.gaps (
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    pipeline    text NOT NULL,
    topic       text NOT NULL,
    partition   int NOT NULL,
    topic_epoch int NOT NULL,
    from_offset bigint NOT NULL,
    to_offset   bigint,
    reason      text NOT NULL,
    accepted_by text NOT NULL DEFAULT current_user
);
COMMENT ON TABLE pulse.gaps IS 'ranges of records that were jumped over, and who accepted that; a row stays when they are read later';
COMMENT ON COLUMN pulse.gaps.to_offset IS 'first offset after the gap; NULL when it is not known';

CREATE TABLE pulse._set_aside (
    pipeline    text NOT NULL,
    topic       text NOT NULL,
    topic_epoch int NOT NULL,
    partition   int NOT NULL,
    at_offset   bigint NOT NULL,
    error_code  text NOT NULL CHECK (error_code IN ('skipped', 'quarantined')),
    message     text NOT NULL,
    noted_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (pipeline, topic, topic_epoch, partition, at_offset)
);
COMMENT ON TABLE pulse._set_aside IS 'records that become dead letters with this code without being decoded, whenever they are read; workers look here when they take their partitions';

CREATE TABLE pulse._leftovers (
    pipeline       text NOT NULL,
    topic          text NOT NULL,
    partition      int NOT NULL,
    target         text,
    topic_epoch    int NOT NULL DEFAULT 0,
    highest_offset bigint NOT NULL,
    rows           bigint NOT NULL DEFAULT 0,
    letters        bigint NOT NULL DEFAULT 0,
    fp_offset      bigint,
    fp_timestamp   bigint,
    fp_crc         bigint,
    PRIMARY KEY (pipeline, topic, partition)
);
COMMENT ON TABLE pulse._leftovers IS
'what a pipeline of that name had read, written and dead-lettered before it was created (again); moves into pulse.offsets when the partition begins';
COMMENT ON COLUMN pulse._leftovers.target IS 'set by drop_pipeline, whose offsets these are; NULL = found in rows and dead letters';

CREATE TABLE pulse.replays (
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    pipeline    text NOT NULL,
    topic       text NOT NULL,
    partition   int NOT NULL,
    topic_epoch int NOT NULL,
    replayed    bigint NOT NULL DEFAULT 0,
    duplicates  bigint NOT NULL DEFAULT 0,
    failed      bigint NOT NULL DEFAULT 0,
    purged      bigint NOT NULL DEFAULT 0,
    changed_by  text NOT NULL DEFAULT current_user
);
CREATE INDEX replays_pipeline_idx ON pulse.replays (pipeline);
COMMENT ON TABLE pulse.replays IS
'what dlq_replay, dlq_replay_as, dlq_purge and dlq_retention did to the dead letters of a partition, a row per transaction, those older than seven days added up; part of the ledger: verify adds replayed to the rows and takes purged from the letters';
COMMENT ON COLUMN pulse.replays.replayed IS 'letters that became rows of the target';
COMMENT ON COLUMN pulse.replays.duplicates IS 'letters whose event was a row already';
COMMENT ON COLUMN pulse.replays.failed IS 'letters that were refused again';
COMMENT ON COLUMN pulse.replays.purged IS 'settled letters that were deleted';

CREATE TABLE pulse.ingests (
    pipeline        text NOT NULL,
    writer          int NOT NULL,
    rows            bigint NOT NULL DEFAULT 0,
    duplicates      bigint NOT NULL DEFAULT 0,
    rejects         bigint NOT NULL DEFAULT 0,
    filtered        bigint NOT NULL DEFAULT 0,
    expired_rows    bigint NOT NULL DEFAULT 0,
    adopted_rows    bigint NOT NULL DEFAULT 0,
    adopted_letters bigint NOT NULL DEFAULT 0,
    purged_letters  bigint NOT NULL DEFAULT 0,
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (pipeline, writer)
) WITH (fillfactor = 30);
COMMENT ON TABLE pulse.ingests IS
'the ledger of events that came by pulse.ingest(): rows and letters without kafka_topic. verify adds it up; columns as in pulse.offsets';
COMMENT ON COLUMN pulse.ingests.rows IS 'inserted, by ingest() or when its letters were replayed';
COMMENT ON COLUMN pulse.ingests.writer IS
'sessions that write at the same time have different numbers, so that none waits for another; -1: retention, purges, and what was found when the pipeline was created';
COMMENT ON COLUMN pulse.ingests.purged_letters IS 'settled letters that dlq_purge or dlq_retention deleted';

CREATE TABLE pulse.outbox (
    outbox_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic           text NOT NULL,
    key             bytea,
    value           bytea,
    headers         jsonb,
    queued_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at         timestamptz,
    kafka_partition int,
    kafka_offset    bigint,
    attempts        int NOT NULL DEFAULT 0,
    error           text,
    send_after      timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
CREATE INDEX outbox_waiting_idx ON pulse.outbox (topic, send_after, outbox_id) WHERE sent_at IS NULL;
CREATE INDEX outbox_sent_idx ON pulse.outbox (sent_at) WHERE sent_at IS NOT NULL;
COMMENT ON TABLE pulse.outbox IS 'records left by pulse.produce: those with sent_at NULL wait for the sender, the others are kept for seven days';
COMMENT ON COLUMN pulse.outbox.queued_at IS 'when it was produced; the timestamp of the record';
COMMENT ON COLUMN pulse.outbox.sent_at IS 'when the brokers had confirmed it';
COMMENT ON COLUMN pulse.outbox.attempts IS 'how often Kafka refused it';
COMMENT ON COLUMN pulse.outbox.error IS 'why Kafka refused this record; what concerns the whole topic is in pulse.stat_sender';
COMMENT ON COLUMN pulse.outbox.send_after IS 'when it is tried again; NULL = next';

CREATE TABLE pulse.batch_log (
    finished_at timestamptz NOT NULL,
    started_at  timestamptz NOT NULL,
    pipeline    text NOT NULL,
    worker      int NOT NULL,
    batches     int NOT NULL,
    records     bigint NOT NULL,
    rows        bigint NOT NULL,
    duplicates  bigint NOT NULL,
    rejects     bigint NOT NULL,
    filtered    bigint NOT NULL,
    bytes       bigint NOT NULL,
    busy_ms     double precision NOT NULL,
    end_reason  text NOT NULL
);
CREATE INDEX batch_log_finished_at_idx ON pulse.batch_log (finished_at);
COMMENT ON TABLE pulse.batch_log IS 'recent batches; small batches of the same second share a row (batches says how many)';
COMMENT ON COLUMN pulse.batch_log.busy_ms IS 'time from the begin of the transactions to their commits, milliseconds';
COMMENT ON COLUMN pulse.batch_log.end_reason IS 'committed; batches that did not commit are in the server log';

CREATE TABLE pulse._installation (
    default_pipeline_created_at timestamptz NOT NULL
);
COMMENT ON TABLE pulse._installation IS 'one row once the default pipeline was made; dropping the pipeline does not bring it back';

-- So that a restored dump goes on exactly where its rows end.
SELECT pg_catalog.pg_extension_config_dump('pulse.pipelines', '');
SELECT pg_catalog.pg_extension_config_dump('pulse.offsets', '');
SELECT pg_catalog.pg_extension_config_dump('pulse.offset_log', '');
SELECT pg_catalog.pg_extension_config_dump('pulse.gaps', '');
SELECT pg_catalog.pg_extension_config_dump('pulse._set_aside', '');
SELECT pg_catalog.pg_extension_config_dump('pulse.replays', '');
SELECT pg_catalog.pg_extension_config_dump('pulse.ingests', '');
SELECT pg_catalog.pg_extension_config_dump('pulse._leftovers', '');
SELECT pg_catalog.pg_extension_config_dump('pulse.outbox', 'WHERE sent_at IS NULL');
SELECT pg_catalog.pg_extension_config_dump('pulse.outbox_outbox_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('pulse._installation', '');
