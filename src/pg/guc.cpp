#include "pg/guc.hpp"

#include "pg/shmem.hpp"
#include "base/topic_name.hpp"
#include "pg/prelude.hpp"

namespace pulse::pg {

char *guc_brokers;
char *guc_counters;
char *guc_database;
char *guc_dlq_topic;
char *guc_fault;
char *guc_fault_token;
char *guc_group_id;
char *guc_kafka_options;
char *guc_on_offset_lost;
char *guc_role;
char *guc_secrets_file;
char *guc_start_position;
char *guc_topic;
char *guc_unknown_fields;
int guc_batch_max_bytes_kb;
int guc_batch_max_rows;
int guc_batch_max_wait_ms;
int guc_batch_timeout_ms;
int guc_dlq_retention_s;
int guc_error_ratio_min_records;
int guc_late_after_s;
int guc_max_message_bytes;
int guc_max_queue_depth;
int guc_max_replays;
int guc_online_within_s;
int guc_queue_memory_kb;
int guc_reject_newer_than_s;
int guc_reject_older_than_s;
int guc_retention_s;
int guc_stall_after_ms = 60000;
int guc_expiry_patience_ms = 3600000;
int guc_budget_hour_ms = 3600000;
int guc_partition_slots = kMaxPartitions;
int guc_workers;
double guc_max_error_ratio;
bool guc_claim_all = false;

namespace {

bool
IsOneOf(const char *value, const char *const *allowed)
{
    for (; *allowed != nullptr; allowed++)
        if (strcmp(value, *allowed) == 0)
            return true;
    return false;
}

bool
CheckOnOffsetLost(char **value, void **, GucSource)
{
    static const char *const allowed[] = {"stop", "earliest", "latest", nullptr};
    if (IsOneOf(*value, allowed))
        return true;
    GUC_check_errhint("Use stop, earliest or latest.");
    return false;
}

bool
CheckDlqTopic(char **value, void **, GucSource)
{
    if ((*value)[0] == '\0' || IsTopicName(*value))
        return true;
    GUC_check_errhint("Use the name of a topic, or nothing. %s", kTopicNameHint);
    return false;
}

bool
CheckUnknownFields(char **value, void **, GucSource)
{
    static const char *const allowed[] = {"keep", "drop", "reject", nullptr};
    if (IsOneOf(*value, allowed))
        return true;
    GUC_check_errhint("Use keep, drop or reject.");
    return false;
}

bool
CheckCounters(char **value, void **, GucSource)
{
    static const char *const allowed[] = {"minute", "hour", "day", "user_day", nullptr};
    List *names = NIL;
    char *copy = pstrdup(*value);
    if (!SplitIdentifierString(copy, ',', &names)) {
        GUC_check_errdetail("List syntax is invalid.");
        return false;
    }
    // As it is compared everywhere: small letters, no blanks, no quotes.
    StringInfoData canonical;
    initStringInfo(&canonical);
    ListCell *cell;
    foreach (cell, names) {
        const char *name = static_cast<char *>(lfirst(cell));
        if (!IsOneOf(name, allowed)) {
            GUC_check_errhint("Use a list of minute, hour, day and user_day, or nothing.");
            return false;
        }
        appendStringInfo(&canonical, "%s%s", canonical.len == 0 ? "" : ",", name);
    }
    char *replacement = strdup(canonical.data); // guc.c frees it
    if (replacement == nullptr)
        return false;
    free(*value);
    *value = replacement;
    return true;
}

// One row a setting, alphabetical (test/lint checks it).
struct StringSetting {
    const char *name;
    char **variable;
    const char *boot_value;
    GucStringCheckHook check;
    bool is_per_pipeline;
    const char *description;
    const char *detail;
};

const StringSetting string_settings[] = {
    {"brokers", &guc_brokers, "", nullptr, true,
     "Kafka bootstrap servers (host:port, comma separated).",
     "Empty: pulse is idle and holds no connection to the database."},
    {"counters", &guc_counters, "minute,hour,day", CheckCounters, true,
     "Live counters kept in the transaction of the events.",
     "A list of minute, hour, day and user_day; empty for none."},
    {"dlq_topic", &guc_dlq_topic, "events_dlq", CheckDlqTopic, true,
     "Kafka topic that dead letters are forwarded to.",
     "Empty: they stay in raw.dlq only. Letters that are there when it is set are forwarded too."},
    {"group_id", &guc_group_id, "pulse", nullptr, true,
     "Consumer group that committed offsets are mirrored to, for lag tools only; never read back.",
     "Empty: nothing is mirrored."},
    {"kafka_options", &guc_kafka_options, "", nullptr, true,
     "Further librdkafka properties as key=value, comma separated, from an allow-list.", nullptr},
    {"on_offset_lost", &guc_on_offset_lost, "stop", CheckOnOffsetLost, true,
     "What a partition does when Kafka no longer holds its next record: stop, earliest or latest.",
     "earliest and latest record the missing range in pulse.gaps."},
    {"role", &guc_role, "", nullptr, true, "Role that target tables are written as.",
     "Empty: the owner of the pipeline."},
    {"secrets_file", &guc_secrets_file, "", nullptr, true,
     "File of mode 0600 with sasl.* and ssl.* properties as key=value lines.", nullptr},
    {"start_position", &guc_start_position, "earliest", nullptr, true,
     "Where a topic seen for the first time begins: earliest, latest, an offset, a timestamp, "
     "-1 hour, or after_rows.",
     nullptr},
    {"topic", &guc_topic, "events", nullptr, false,
     "Topics of the default pipeline: a comma separated list, or a regular expression with leading "
     "^.",
     nullptr},
    {"unknown_fields", &guc_unknown_fields, "keep", CheckUnknownFields, true,
     "Fields that no column takes: keep (in properties), drop or reject.", nullptr},
};

struct IntSetting {
    const char *name;
    int *variable;
    int boot_value;
    int minimum;
    int maximum;
    int unit;
    bool is_per_pipeline;
    const char *description;
};

constexpr int kDay = 86400;

const IntSetting int_settings[] = {
    {"batch_max_bytes", &guc_batch_max_bytes_kb, 16 * 1024, 64, 1024 * 1024, GUC_UNIT_KB, true,
     "Payload bytes after which a batch is written."},
    {"batch_max_rows", &guc_batch_max_rows, 10000, 1, 1000000, 0, true,
     "Records after which a batch is written."},
    {"batch_max_wait", &guc_batch_max_wait_ms, 0, 0, 60000, GUC_UNIT_MS, true,
     "How long a batch may wait for more records; 0 writes whatever has arrived."},
    {"batch_timeout", &guc_batch_timeout_ms, 30000, 100, 3600000, GUC_UNIT_MS, true,
     "Time after which the transaction of a batch is cancelled and retried with half the records."},
    {"dlq_retention", &guc_dlq_retention_s, 0, 0, INT_MAX, GUC_UNIT_S, true,
     "Dead letters that were replayed or discarded longer ago are deleted, new and parked ones "
     "never; 0 keeps them."},
    {"error_ratio_min_records", &guc_error_ratio_min_records, 1000, 1, 10000, 0, true,
     "Records seen before max_error_ratio counts."},
    {"late_after", &guc_late_after_s, 300, 0, 400 * kDay, GUC_UNIT_S, true,
     "Reserved: an event will count as late when kafka_timestamp - event_timestamp is above this."},
    {"max_message_bytes", &guc_max_message_bytes, 1024 * 1024, 1024, 16 * 1024 * 1024,
     GUC_UNIT_BYTE, true,
     "Largest payload that is decoded; larger ones are dead letters (oversize)."},
    {"max_queue_depth", &guc_max_queue_depth, 100000, 1, INT_MAX, 0, true,
     "Records read but not written above which pulse.ingest() refuses, and records of "
     "pulse.produce() that may wait to be sent."},
    {"max_replays", &guc_max_replays, 5, 1, 1000, 0, true,
     "Failed replays after which a dead letter is parked."},
    {"online_within", &guc_online_within_s, 300, 1, kDay, GUC_UNIT_S, true,
     "Reserved: a user will count as online when seen within this time."},
    {"queue_memory", &guc_queue_memory_kb, 64 * 1024, 4096, 8 * 1024 * 1024, GUC_UNIT_KB, true,
     "Memory for records read but not written, per worker; its private memory stays within this, "
     "128 MB and one unpacked response (a 64th of this, compressed) per broker."},
    {"reject_newer_than", &guc_reject_newer_than_s, kDay, 0, INT_MAX, GUC_UNIT_S, true,
     "Events this far in the future are rejected (too_new); 0 never."},
    {"reject_older_than", &guc_reject_older_than_s, 400 * kDay, 0, INT_MAX, GUC_UNIT_S, true,
     "Events older than this are rejected (too_old); 0 never."},
    {"retention", &guc_retention_s, 0, 0, INT_MAX, GUC_UNIT_S, true,
     "Day partitions older than this are dropped; 0 keeps them."},
    {"workers", &guc_workers, 1, 1, 32, 0, true, "Workers per pipeline."},
};

void
DefineString(const StringSetting &setting, GucContext context)
{
    DefineCustomStringVariable(psprintf("pulse.%s", setting.name), setting.description,
                               setting.detail, setting.variable, setting.boot_value, context, 0,
                               setting.check, nullptr, nullptr);
}

} // namespace

void
DefineSettings(bool preloaded)
{
    for (const StringSetting &setting : string_settings)
        DefineString(setting, PGC_SIGHUP);
    // Read once by the launcher; after start-up PostgreSQL refuses new PGC_POSTMASTER settings.
    DefineString({"database", &guc_database, "postgres", nullptr, false,
                  "Database in which pulse runs.", nullptr},
                 preloaded ? PGC_POSTMASTER : PGC_SIGHUP);
    for (const IntSetting &setting : int_settings)
        DefineCustomIntVariable(psprintf("pulse.%s", setting.name), setting.description, nullptr,
                                setting.variable, setting.boot_value, setting.minimum,
                                setting.maximum, PGC_SIGHUP, setting.unit, nullptr, nullptr,
                                nullptr);
    DefineCustomRealVariable("pulse.max_error_ratio",
                             "Share of the last 10,000 records that may be rejected before the "
                             "pipeline stops; 1 never stops.",
                             nullptr, &guc_max_error_ratio, 0.5, 0.0, 1.0, PGC_SIGHUP, 0, nullptr,
                             nullptr, nullptr);
#ifdef PULSE_TESTING
    DefineCustomBoolVariable("pulse.claim_all",
                             "Each worker takes all partitions, as if it were alone.",
                             "Test builds only.", &guc_claim_all, false, PGC_SIGHUP,
                             GUC_NOT_IN_SAMPLE, nullptr, nullptr, nullptr);
    DefineCustomIntVariable("pulse.budget_hour",
                            "The hour in which workers may make so many partitions.",
                            "Test builds only.", &guc_budget_hour_ms, 3600000, 0, INT_MAX,
                            PGC_SIGHUP, GUC_UNIT_MS | GUC_NOT_IN_SAMPLE, nullptr, nullptr, nullptr);
    DefineCustomIntVariable("pulse.expiry_patience",
                            "How long a partition that should go may be in use before it is told.",
                            "Test builds only.", &guc_expiry_patience_ms, 3600000, 0, INT_MAX,
                            PGC_SIGHUP, GUC_UNIT_MS | GUC_NOT_IN_SAMPLE, nullptr, nullptr, nullptr);
    DefineCustomIntVariable(
        "pulse.partition_slots", "Room for partitions of all pipelines in shared memory.",
        "Test builds only.", &guc_partition_slots, kMaxPartitions, 0, kMaxPartitions, PGC_SIGHUP,
        GUC_NOT_IN_SAMPLE, nullptr, nullptr, nullptr);
    DefineCustomIntVariable("pulse.stall_after", "When a silent worker counts as stalled.",
                            "Test builds only.", &guc_stall_after_ms, 60000, 100, INT_MAX,
                            PGC_SIGHUP, GUC_UNIT_MS | GUC_NOT_IN_SAMPLE, nullptr, nullptr, nullptr);
    DefineCustomStringVariable("pulse.fault",
                               "Fault to inject: point:action[:count], comma separated.",
                               "Test builds only.", &guc_fault, "", PGC_SIGHUP, GUC_NOT_IN_SAMPLE,
                               nullptr, nullptr, nullptr);
    DefineCustomStringVariable("pulse.fault_token",
                               "File that a fault removes to fire; without it the fault is spent.",
                               "Test builds only.", &guc_fault_token, "", PGC_SIGHUP,
                               GUC_NOT_IN_SAMPLE, nullptr, nullptr, nullptr);
#endif
    MarkGUCPrefixReserved("pulse");
}

bool
IsHome()
{
    return strcmp(guc_database, get_database_name(MyDatabaseId)) == 0;
}

bool
IsPipelineSetting(const char *name)
{
    for (const StringSetting &setting : string_settings)
        if (strcmp(setting.name, name) == 0)
            return setting.is_per_pipeline;
    for (const IntSetting &setting : int_settings)
        if (strcmp(setting.name, name) == 0)
            return setting.is_per_pipeline;
    return strcmp(name, "max_error_ratio") == 0;
}

void
CheckSetting(const char *name, const char *value)
{
    (void)set_config_option(psprintf("pulse.%s", name), value, PGC_SIGHUP, PGC_S_OVERRIDE,
                            GUC_ACTION_SET, false, ERROR, false);
}

void
OverrideSetting(const char *name, const char *value, bool until_nest_level_ends)
{
    (void)set_config_option(psprintf("pulse.%s", name), value, PGC_SIGHUP,
                            until_nest_level_ends ? PGC_S_SESSION : PGC_S_OVERRIDE,
                            until_nest_level_ends ? GUC_ACTION_SAVE : GUC_ACTION_SET, true, ERROR,
                            false);
}

} // namespace pulse::pg
