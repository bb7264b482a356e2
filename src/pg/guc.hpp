// Every pulse.* setting. Values are plain variables, read in the backend only.
// A worker serves one pipeline and lays the pipeline's own settings over postgresql.conf with
// OverrideSetting(), so the rest of the code reads one place.
// Regime: PG.
#pragma once

namespace pulse::pg {

extern char *guc_brokers;
extern char *guc_counters;
extern char *guc_database;
extern char *guc_dlq_topic;
extern char *guc_fault;       // test builds
extern char *guc_fault_token; // test builds
extern char *guc_group_id;
extern char *guc_kafka_options;
extern char *guc_on_offset_lost;
extern char *guc_role;
extern char *guc_secrets_file;
extern char *guc_start_position;
extern char *guc_topic;
extern char *guc_unknown_fields;
extern int guc_batch_max_bytes_kb;
extern int guc_batch_max_rows;
extern int guc_batch_max_wait_ms;
extern int guc_batch_timeout_ms;
extern int guc_budget_hour_ms; // set by test builds only
extern int guc_dlq_retention_s;
extern int guc_error_ratio_min_records;
extern int guc_expiry_patience_ms; // set by test builds only
extern int guc_late_after_s;
extern int guc_max_message_bytes;
extern int guc_max_queue_depth;
extern int guc_max_replays;
extern int guc_online_within_s;
extern int guc_partition_slots; // set by test builds only
extern int guc_queue_memory_kb;
extern int guc_reject_newer_than_s;
extern int guc_reject_older_than_s;
extern int guc_retention_s;
extern int guc_stall_after_ms; // set by test builds only
extern int guc_workers;
extern double guc_max_error_ratio;
extern bool guc_claim_all; // set by test builds only

// Defines them all; called by _PG_init. preloaded = from shared_preload_libraries.
void DefineSettings(bool preloaded);

// True in the database where pulse runs: shared memory is about that one.
bool IsHome();

// True when a pipeline may set it for itself (name without the prefix).
bool IsPipelineSetting(const char *name);

// Checks value as postgresql.conf would (units, range) without setting it; raises 22023.
void CheckSetting(const char *name, const char *value);

// Sets it for this process, over whatever a reload brings; or until the GUC nest level ends.
void OverrideSetting(const char *name, const char *value, bool until_nest_level_ends);

} // namespace pulse::pg
