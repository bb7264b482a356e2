// The worker's rows of pulse.batch_log: one a second at most, small batches share it. Regime: C++
// with doors; Add is for inside the batch transaction.
#pragma once

#include <cstdint>

namespace pulse::worker {

struct BatchCounts {
    int64_t records = 0;
    int64_t rows = 0;
    int64_t duplicates = 0;
    int64_t rejects = 0;
    int64_t filtered = 0;
    int64_t bytes = 0;
};

// A row in the making.
struct BatchLog {
    BatchCounts counts;
    int32_t batches = 0;
    int64_t started_at = 0; // TimestampTz
    double busy_ms = 0;
    int64_t logged_at = 0;
};

// PG regime, in a transaction. What the log is once that batch is in it; written when its second is
// over.
BatchLog AddToLog(const BatchLog &log, const char *pipeline, int worker_index, int64_t began_at,
                  const BatchCounts &counts);

// In a transaction of its own: what the last batches left, once it is quiet.
void FlushLog(BatchLog *log, const char *pipeline, int worker_index, int64_t finished_at,
              int64_t now);

} // namespace pulse::worker
