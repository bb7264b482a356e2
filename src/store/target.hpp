// A pipeline and its target table as the catalog describes them: which column takes what, what
// identifies a duplicate, which short cuts are allowed. Plain data, filled inside a transaction.
// Regime: PG.
#pragma once

#include <cstdint>

#include "decode/mapping.hpp"
#include "pg/shmem.hpp"

namespace pulse::store {

constexpr int kMaxColumns = 400;
constexpr int kMaxPointerBytes = 256;
constexpr int kMaxTopics = 256;
constexpr uint32_t kMaxCounterKeyBytes = 1000; // event_type, user_id: two in one B-tree entry

// What fills a column.
enum class ColumnSource : uint8_t {
    kCell,    // a decoded field (cell_index)
    kEventId, // a decoded field; topic-partition-offset when the event has none
    kKafkaTopic,
    kKafkaPartition,
    kKafkaOffset,
    kKafkaTimestamp,
    kKafkaKey,
    kKafkaHeaders,
    kIngestedAt,
    kTopicEpoch,
};

struct TargetColumn {
    char name[pg::kNameBytes];
    ColumnSource source;
    int32_t cell_index; // -1 for metadata
    decode::ColumnType decode_type;
    bool is_required;
    bool is_not_null; // of the table: a trigger can't take it away, as it can a domain's
    bool is_event_time;
    bool is_of_key; // of the one that tells duplicates, or a generated column of it is made of it
    bool has_default;
    bool is_array;
    char delimiter; // between an array's elements
    bool is_domain;
    uint32_t max_bytes;
    uint32_t max_characters;
    int32_t max_integer_digits;
    int32_t time_precision; // digits of a second
    bool is_padded;         // char(n): trailing blanks mean nothing
    unsigned int type_oid;
    int32_t type_modifier;
    unsigned int base_type_oid; // below domain and array
    int32_t base_type_modifier;
    char type_name[128];            // for the column definition list
    char *default_expression;       // TopMemoryContext or null
    char pointer[kMaxPointerBytes]; // JSON pointer from the pipeline's mapping; empty = the name
};

enum class StageKind : uint8_t {
    kTransform, // also enrich: its rows replace those of the batch
    kFilter,    // a record without a row is left out
    kSink,      // an INSERT of its own from what was inserted
};

struct Stage {
    char name[pg::kNameBytes];
    StageKind kind;
    char *body;    // TopMemoryContext
    int32_t stats; // pg::StageStatsOf()

    bool IsSink() const { return kind == StageKind::kSink; }
};

constexpr int kMaxStages = 32;

// One column of the key that tells a duplicate.
struct ConflictKey {
    char name[pg::kNameBytes];
    char *generated; // its expression over a relation b, TopMemoryContext; null for a column of b
    char equality[2 * pg::kNameBytes + 24]; // the index's own: OPERATOR(schema.=)
};

constexpr int kMaxConflictKeys = 32; // INDEX_MAX_KEYS

struct Target {
    unsigned int relation; // Oid
    unsigned int owner;
    char qualified_name[2 * pg::kNameBytes + 8]; // quoted
    char conflict_columns[1024]; // quoted, comma separated; empty = no usable unique index
    ConflictKey conflict_keys[kMaxConflictKeys];
    int32_t conflict_key_count;
    bool tells_duplicates;   // that key is the same whenever a record is read, and never NULL
    bool has_distinct_nulls; // of that key
    bool is_partitioned;
    bool is_managed;           // range partitioned by event_timestamp: pulse makes the partitions
    const char *why_unmanaged; // of a partitioned table; else null
    unsigned int *members;     // Oids of the table and all its partitions, sorted
    int32_t member_count;
    bool may_use_leaf;        // rows of one partition may be written into it directly
    bool has_deferrable;      // constraints of any member that must be checked inside the savepoint
    bool has_row_triggers;    // BEFORE INSERT, of any member
    char partition_unit[8];   // day, hour, month
    int64_t retained_from;    // PipelineDefinition's
    char *schema;             // the pipeline's JSON Schema; TopMemoryContext or null
    Stage stages[kMaxStages]; // in the order in which they run
    int32_t stage_count;
    int32_t sink_count;
    bool has_transforms;
    int32_t column_count;
    int32_t cell_count;
    int32_t rest_cell;       // -1 = none
    int32_t event_type_cell; // -1 = the target has no such text column: no counters
    int32_t event_time_cell; // -1 = none
    int32_t user_id_cell;
    TargetColumn columns[kMaxColumns];

    // Counters come from what was stored, because something between decoding and the table may have
    // changed it.
    bool IsCountedAsStored() const { return has_row_triggers || has_transforms; }
};

struct PipelineDefinition {
    char name[pg::kNameBytes];
    char target[2 * pg::kNameBytes + 8];
    char owner[pg::kNameBytes];
    int64_t version;
    char partition_unit[8];
    int64_t retained_from; // TimestampTz: retention has dropped what is older; INT64_MIN = nothing
};

// How long the pipeline's settings lie over this process's.
enum class Scope { kProcess, kCall };

// Reads pulse.pipelines and lays the pipeline's settings over this process's. kCall: until the
// caller's GUC nest level ends. False when there is no such pipeline. Errors: 22023 for a bad
// setting.
bool LoadPipeline(const char *name, Scope scope, PipelineDefinition *definition);

// Describes the target. Raises class 42 errors when it is gone, or when a column the pipeline
// counts on is; kProcess also takes new columns in (pulse.pipelines.columns). Needs a transaction.
void LoadTarget(const PipelineDefinition &definition, Scope scope, Target *target);

// Whether live counters are kept of the rows of that table; by_user: also those per user. Raises
// 42P01.
bool IsCounted(const char *target, bool by_user);

// The leaf that holds timestamp (PostgreSQL's microseconds); 0 = there is none.
unsigned int FindLeaf(const Target &target, int64_t timestamp);

// Whether rows may be written into that partition directly: it belongs to the target's owner and
// has no triggers, rules or policies of its own.
bool MayWriteLeaf(const Target &target, unsigned int leaf);

// Whether it is the target or one of its partitions. Asks nothing of PostgreSQL.
bool IsMember(const Target &target, unsigned int relation);

// Raises 42809 when policies of the target would apply to what role writes.
void CheckRowSecurity(const Target &target, unsigned int role);

// Role the target is written as: pulse.role, else the pipeline's owner. Raises 42704 when it is
// gone.
unsigned int WriterRole(const PipelineDefinition &definition);

} // namespace pulse::store
