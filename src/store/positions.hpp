// Where partitions begin and where operators move them: every change of pulse.offsets that is not a
// batch, each with its row in pulse.offset_log. Regime: PG, inside a transaction.
#pragma once

#include <cstdint>

#include "base/types.hpp"
#include "ingest/watcher.hpp"
#include "pg/shmem.hpp"

namespace pulse::store {

struct PartitionRow {
    char topic[pg::kTopicBytes];
    int32_t partition;
    int64_t next_offset;
    int64_t highest_offset; // the largest next_offset ever
    Fingerprint last;       // of a record before highest_offset
};

// Partitions of a pipeline with their offsets.
int ReadPartitions(const char *pipeline, PartitionRow **rows);

// What is left of a pipeline of that name, of partitions that have not begun; next_offset is
// highest_offset.
int ReadLeftovers(const char *pipeline, PartitionRow **rows);

struct Start {
    int64_t next_offset;
    const char *reason;
    bool is_another_log; // than the one that the leftovers are of
    int64_t low;         // where the log begins
};

// A partition of that version of the pipeline begins: a row in pulse.offsets and one in
// pulse.offset_log; it takes over what is left of it. False when it was there, or when the pipeline
// is not.
bool StartPartition(const char *pipeline, int64_t version, const char *topic, int32_t partition,
                    const Start &start);

// Whether reading from the beginning would insert rows again: none of the pipeline's partitions has
// begun, and its target has rows and no unique index (half a restore, say).
bool WouldInsertAgain(const char *pipeline);

// Moves an offset; what was never read and now is jumped over is a gap.
struct Move {
    bool is_another_log; // the topic was made again, so its records are new ones
    int64_t low;         // where the log begins
    const char *reason;  // for offset_log
    const char *gap_reason;
    const char *caller;
};
void MovePartition(const char *pipeline, const PartitionOffset &to, const Move &move);

// The breaker does not count the records that are in the partition now (its row in offset_log moves
// nothing).
void AcceptRejects(const char *pipeline, const ingest::PartitionWatermarks &marks,
                   const char *caller);

constexpr int64_t kAnyTimestamp = -2; // -1 = the record has none

// What LookForRow() found, and of which state of the partition that is true.
struct RowLook {
    bool is_row;
    int64_t records;      // pulse.offsets.records before it looked; -1 = it had no reason to look
    int64_t timestamp_ms; // the row is that of a record with this one only
};

// Makes the next record a dead letter and goes on behind it; one further on becomes a letter when
// it is read. One that is a letter or a row already (it is read again after a seek) is counted as a
// duplicate. False when next_offset is not the expected one, or when the look is out of date.
bool SkipRecord(const char *pipeline, const PartitionOffset &expected, const RowLook &look,
                const ingest::FetchedRecord &record, const char *error_code, const char *caller);

// Whether the record of a partition that is about to be read again is a row of the target, looked
// up with the rights of the writer. It may read the whole table: the caller's session does it
// before it asks for the skip. Raises what the SELECT does.
RowLook LookForRow(const char *pipeline, const char *topic, int32_t partition,
                   int64_t kafka_offset);

// earliest, latest, after_rows, an offset, a timestamp, or an interval from now (-1 hour). Raises
// 22023.
ingest::Position ParsePosition(const char *text);

} // namespace pulse::store
