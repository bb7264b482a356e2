// Writes one batch in one transaction. Offsets first (compare and set: the fence), rows, dead
// letters, counters, counts, commit. Whatever happens before the commit leaves the offsets where
// they were; whatever happens after it, the batch is done. Regime: C++ with doors. Errors:
// pg::Error; the transaction is rolled back then.
#pragma once

#include <cstdint>
#include <string>

#include "ingest/batch.hpp"
#include "worker/batch_log.hpp"
#include "worker/pipeline_state.hpp"

namespace pulse::worker {

enum class BatchEnd {
    kCommitted,
    kFenced,  // somebody else owns a partition of it: drop the batch, take the partitions again
    kTripped, // the breaker: rolled back with its letters
    kStale,   // the target changed: load it again, decode the batch again
    kUnsure,  // records read again are rejected now: look for their rows, then write it again
};

struct BatchResult {
    BatchEnd end = BatchEnd::kCommitted;
    uint32_t reached = 0; // records before it are done
    BatchCounts counts;
    int64_t began_at = 0; // TimestampTz
    int64_t committed_at = 0;
    std::string breaker_example;
};

// Writes records [begin, end) of the batch. is_stale is looked at once the transaction has begun.
BatchResult WriteBatch(PipelineState *pipeline, const ingest::Batch &batch, uint32_t begin,
                       uint32_t end, BatchLog *log, const volatile bool *is_stale);

} // namespace pulse::worker
