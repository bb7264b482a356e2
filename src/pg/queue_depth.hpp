// What the workers of a pipeline have read and not yet written, from shared memory. Regime: PG.
#pragma once

#include <cstdint>

#include "pg/shmem.hpp"

namespace pulse::pg {

struct QueueDepth {
    int64_t records;
    double records_per_second; // written, over the last ten full seconds
};

QueueDepth QueueDepthOf(const char *pipeline);

// Records a worker wrote per second over the last ten full seconds. Of a copy, or under the lock.
double RecordsPerSecond(const ProcessSlot &slot, int64_t now);

} // namespace pulse::pg
