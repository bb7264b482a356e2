// The heart: one batch, one transaction. Offsets first (compare and set: the fence), rows, dead
// letters, counters, counts, commit. Whatever happens before the commit leaves the offsets where
// they were; whatever happens after it, the batch is done. Regime: C++ with doors. Errors:
// pg::Error; the transaction is rolled back then.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "decode/mapping.hpp"
#include "ingest/batch.hpp"
#include "ingest/breaker.hpp"
#include "store/offsets.hpp"
#include "store/target.hpp"

namespace pulse::worker {

// Whether a batch is tried with a plain INSERT first. It costs a third less than ON CONFLICT DO
// NOTHING, but one duplicate wastes it; so after each waste the plain way is left alone for twice
// as many batches.
class PlainInsertPolicy {
  public:
    bool MayTry() const { return batches_to_wait_ == 0; }
    void Wasted()
    {
        batches_to_wait_ = penalty_;
        penalty_ = penalty_ < 1024 ? penalty_ * 2 : penalty_;
    }
    void Worked() { penalty_ = penalty_ > 4 ? penalty_ / 2 : 4; }
    void BatchDone() { batches_to_wait_ -= batches_to_wait_ > 0 ? 1 : 0; }

  private:
    uint32_t batches_to_wait_ = 0;
    uint32_t penalty_ = 4;
};

// What a worker knows of its pipeline; lives as long as the worker.
struct Pipeline {
    store::PipelineDefinition definition;
    store::Target target;
    std::shared_ptr<const decode::Mapping> mapping;
    std::vector<store::OwnedPartition> partitions;
    unsigned int role = 0;
    bool may_use_leaf = false;
    int slot = 0; // of the counters
    ingest::Breaker breaker;
    PlainInsertPolicy plain_inserts;
    std::unordered_map<int64_t, unsigned int>
        leaves; // bucket -> leaf, 0 = write through the parent
};

struct BatchCounts {
    int64_t records = 0;
    int64_t rows = 0;
    int64_t duplicates = 0;
    int64_t rejects = 0;
    int64_t bytes = 0;
};

// A batch row of pulse.batch_log in the making: small batches share one.
struct BatchLog {
    BatchCounts counts;
    int32_t batches = 0;
    int64_t started_at = 0; // TimestampTz
    double busy_ms = 0;
    int64_t logged_at = 0;
};

enum class BatchEnd {
    kCommitted,
    kFenced,  // somebody else owns a partition of it: drop the batch, take the partitions again
    kTripped, // the breaker: rolled back with its letters
    kStale,   // the target changed: load it again, decode the batch again
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
BatchResult WriteBatch(Pipeline *pipeline, const ingest::Batch &batch, uint32_t begin, uint32_t end,
                       BatchLog *log, const volatile bool *is_stale);

} // namespace pulse::worker
