// pulse.offsets: who owns a partition and where it goes on. Regime: PG, inside a transaction.
#pragma once

#include <cstdint>

#include "base/types.hpp"
#include "pg/shmem.hpp"

namespace pulse::store {

struct OwnedPartition {
    char topic[pg::kTopicBytes];
    int32_t partition;
    int64_t next_offset;
    int64_t highest_offset;      // records below it have been read before
    int64_t rejects_accepted_to; // the breaker does not count records below it
    int64_t fence;
    int32_t topic_epoch;
    Fingerprint last; // of the last record written
};

struct PartitionCounts {
    int64_t records;
    int64_t rows;
    int64_t duplicates;
    int64_t rejects;
    int64_t filtered;
};

// Of the columns fp_offset, fp_timestamp, fp_crc of a result, beginning with this one.
Fingerprint GetFingerprint(uint64_t row, int column);

// Takes the partitions whose rank among the pipeline's is index modulo count, raising their fence:
// whoever owned them before can't commit any more. Returns how many were filled in.
int TakePartitions(const char *pipeline, int index, int count, OwnedPartition *partitions,
                   int capacity);

// Moves next_offset if nobody else did (compare and set under our fence). False = fenced.
bool MoveOffset(const char *pipeline, const OwnedPartition &partition, int64_t new_offset);

// Takes a move of this transaction partly back: the batch ended early.
void CorrectOffset(const char *pipeline, const OwnedPartition &partition, int64_t new_offset);

// Adds what became of the records, on the row that MoveOffset locked.
void AddCounts(const char *pipeline, const OwnedPartition &partition, const PartitionCounts &counts,
               const Fingerprint &last);

// One row of pulse.batch_log; times are TimestampTz.
struct BatchLogRow {
    int64_t started_at;
    int64_t finished_at;
    int32_t batches;
    int64_t records, rows, duplicates, rejects, filtered, bytes;
    double busy_ms;
    const char *end_reason;
};
void LogBatch(const char *pipeline, int worker_index, const BatchLogRow &row);

} // namespace pulse::store
