// pulse.pipelines and the partitions it reads, as the coordinator sees them. Regime: PG, inside a
// transaction.
#pragma once

#include <cstdint>

#include "ingest/watcher.hpp"
#include "pg/shmem.hpp"

namespace pulse::store {

struct PipelineRow {
    char name[pg::kNameBytes];
    char *topics; // newline separated; palloc'd
    char *brokers;
    char *group_id;
    char *kafka_options;
    char *secrets_file;
    char *start_position;
    int32_t workers;
    int64_t version;
    char desired_state[16];
    char *reason; // null = none
    char *hint;
};

struct PartitionRow {
    char topic[pg::kTopicBytes];
    int32_t partition;
    int64_t next_offset;
};

bool ExtensionExists();
// Effective settings: the pipeline's own or those of postgresql.conf. Strings live in the caller's
// memory context. Returns the number of rows in *rows.
int ReadPipelines(PipelineRow **rows);
// Partitions of a pipeline with their offsets.
int ReadPartitions(const char *pipeline, PartitionRow **rows);

// The pipeline events -> raw.events, made once per CREATE EXTENSION as the extension's owner. False
// when there is nothing to make; *reason says why it waits for create_pipeline, null when it does
// not.
bool CreateDefaultPipeline(const char *topics, const char **reason);

// A partition of that version of the pipeline begins: a row in pulse.offsets and one in
// pulse.offset_log. False when it was there, or when the pipeline is not.
bool StartPartition(const char *pipeline, int64_t version, const char *topic, int32_t partition,
                    int64_t next_offset, const char *reason);

// Moves an offset at the operator's word; what was never read and now is jumped over is a gap.
void SeekPartition(const char *pipeline, const char *topic, int32_t partition, int64_t next_offset,
                   const char *reason, const char *caller);

// 'running', 'paused' or 'stopped'. False when there is no such pipeline.
bool SetDesiredState(const char *pipeline, const char *state);

// earliest, latest, an offset, a timestamp, or an interval from now (-1 hour). Raises 22023.
ingest::Position ParsePosition(const char *text);

// Deletes log rows older than seven days.
void PruneLogs();

} // namespace pulse::store
