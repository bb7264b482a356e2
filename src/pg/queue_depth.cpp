#include "pg/queue_depth.hpp"

#include "pg/prelude.hpp"

namespace pulse::pg {

double
RecordsPerSecond(const ProcessSlot &slot, int64_t now)
{
    int64 this_second = now / 1000000;
    int64 records = 0;
    for (int i = 0; i < kRateSeconds; i++)
        if (slot.rate_second[i] < this_second && slot.rate_second[i] >= this_second - 10)
            records += slot.rate_rows[i];
    return static_cast<double>(records) / 10.0;
}

QueueDepth
QueueDepthOf(const char *pipeline)
{
    QueueDepth depth = {0, 0};
    if (shared == nullptr)
        return depth;
    const TimestampTz now = GetCurrentTimestamp();
    LockSharedForRead();
    for (const ProcessSlot &slot : shared->processes) {
        if (slot.kind != ProcessKind::kWorker || slot.pid == 0 ||
            strcmp(slot.pipeline, pipeline) != 0)
            continue;
        depth.records += slot.queue_records;
        depth.records_per_second += RecordsPerSecond(slot, now);
    }
    UnlockShared();
    return depth;
}

} // namespace pulse::pg
