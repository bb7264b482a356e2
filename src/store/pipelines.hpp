// pulse.pipelines as the coordinator sees it. Regime: PG, inside a
// transaction.
#pragma once

#include <cstdint>

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
    char *on_offset_lost;
    int32_t workers;
    int64_t version;
    char desired_state[16];
    char *reason; // null = none
    char *hint;
};

bool ExtensionExists();
// The role that the tables of pulse belong to.
unsigned int OwnerOfPulse();
// Effective settings: the pipeline's own or those of postgresql.conf. Strings live in the caller's
// memory context. Returns the number of rows in *rows.
int ReadPipelines(PipelineRow **rows);

// The pipeline events -> raw.events, made once per CREATE EXTENSION as the extension's owner. False
// when there is nothing to make; *reason says why it waits for create_pipeline, null when it does
// not.
bool CreateDefaultPipeline(const char *topics, const char **reason);

// 'running', 'paused' or 'stopped'. False when there is no such pipeline.
bool SetDesiredState(const char *pipeline, const char *state);

// Deletes log rows older than seven days.
void PruneLogs();
// Adds up what the ledger of replays has from before. Raises 55P03 when somebody has locked it.
void AddUpReplays();

} // namespace pulse::store
