// Writes the rows of a slice of a batch into the target with one INSERT ... SELECT over the batch,
// which is a set-returning C function (pulse._batch): plain SQL, so triggers, defaults, constraints
// and Citus see what they know. Regime: PG, inside a subtransaction of the batch transaction.
#pragma once

#include <cstdint>

#include "ingest/batch.hpp"
#include "ingest/bisect.hpp"
#include "store/offsets.hpp"
#include "store/target.hpp"

namespace pulse::store {

enum class Outcome : uint8_t { kPending, kInserted, kDuplicate, kFiltered, kRejected };

// What a BEFORE trigger made of an inserted event, for the counters.
struct StoredEvent {
    int64_t event_timestamp; // PostgreSQL's microseconds
    const char *event_type;  // palloc'd in the transaction
    int32_t event_type_bytes;
    const char *user_id; // likewise; null where nothing counts users
    int32_t user_id_bytes;
};

constexpr int kIdSeedBytes = 16;
constexpr uint32_t kNoRecord = UINT32_MAX;
constexpr int32_t kNoColumn = -1;

struct InsertJob {
    const ingest::Batch *batch;
    const Target *target;
    const OwnedPartition *const *partitions; // per range of the batch
    ingest::Slice slice;
    unsigned int leaf;       // 0 = through the target itself
    bool expects_duplicates; // false: a plain INSERT, which a duplicate fails with 23505
    unsigned int role;
    int64_t ingested_at;          // TimestampTz
    const unsigned char *id_seed; // kIdSeedBytes, random: for what has neither id nor offset
    Outcome *outcomes;            // per record of the batch; only kPending ones are written
    const Stage *stage;           // the one under way, also when an error came from it; else null
    struct StagedRows *staged; // what the stages have made of the pending records; null = nothing
    FlightMark *mark;          // where the current record is noted; null = nowhere
    uint32_t current_record;   // the record being evaluated when an error came; kNoRecord otherwise
    int32_t current_column;    // whose value PostgreSQL was reading then; kNoColumn otherwise
    StoredEvent *stored_events; // targets with row triggers only
    int32_t stored_event_count;
    int32_t stored_event_capacity;
};

// Runs the stages around the INSERT. Marks each pending record of the slice kInserted, kDuplicate,
// or kFiltered: a stage or a BEFORE trigger left it out (one that would have been a duplicate
// anyway counts as that). On error the outcomes of the slice are to be reset by the caller.
void InsertRows(InsertJob *job);

// The column definition list of pulse._batch(). With transforms the types claim no length and no
// domain, which nothing has checked then: the INSERT does.
const char *BatchDefinitionsSql(const Target &target);
const char *BatchTypeSql(const Target &target, const TargetColumn &column);

// The job of the INSERT under way, or null.
InsertJob *CurrentInsertJob();
// To be called when InsertRows() raised.
void ForgetInsertJob();

void FreeStoredEvent(const StoredEvent &event);

// Plans name columns: to be called when the target was loaded again.
void ForgetInsertPlans();

} // namespace pulse::store
