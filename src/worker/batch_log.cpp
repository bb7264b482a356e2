#include "worker/batch_log.hpp"

#include "pg/xact.hpp"
#include "store/offsets.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

constexpr int64_t kLogEveryUs = 1000000;

store::BatchLogRow
RowOf(const BatchLog &log, int64_t finished_at)
{
    return {log.started_at,   finished_at,           log.batches,        log.counts.records,
            log.counts.rows,  log.counts.duplicates, log.counts.rejects, log.counts.filtered,
            log.counts.bytes, log.busy_ms,           "committed"};
}

} // namespace

BatchLog
AddToLog(const BatchLog &log, const char *pipeline, int worker_index, int64_t began_at,
         const BatchCounts &counts)
{
    TimestampTz now = GetCurrentTimestamp();
    BatchLog next = log;
    if (next.batches++ == 0)
        next.started_at = began_at;
    next.counts.records += counts.records;
    next.counts.rows += counts.rows;
    next.counts.duplicates += counts.duplicates;
    next.counts.rejects += counts.rejects;
    next.counts.filtered += counts.filtered;
    next.counts.bytes += counts.bytes;
    next.busy_ms += static_cast<double>(now - began_at) / 1000.0;
    if (now - next.logged_at < kLogEveryUs)
        return next;
    store::LogBatch(pipeline, worker_index, RowOf(next, now));
    next = BatchLog{};
    next.logged_at = now;
    return next;
}

void
FlushLog(BatchLog *log, const char *pipeline, int worker_index, int64_t finished_at, int64_t now)
{
    if (log->batches == 0 || now - log->logged_at < kLogEveryUs)
        return;
    store::BatchLogRow row = RowOf(*log, finished_at);
    pg::InTransaction([&] {
        pg::CallPg([&] { pg::InSpi([&] { store::LogBatch(pipeline, worker_index, row); }); });
    });
    *log = BatchLog{};
    log->logged_at = now;
}

} // namespace pulse::worker
