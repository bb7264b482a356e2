// How many partitions the workers of a pipeline may make: a stream of nonsense times, one event an
// hour over a year, would fill the catalog before anybody looks. In shared memory: a restart of the
// server allows as many again. Regime: PG.
#pragma once

#include <cstdint>

namespace pulse::pg {

constexpr int kPartitionsPerHour = 400;

// 0 while something of the budget is left, or the TimestampTz from which on there is a new one.
int64_t PartitionBudgetFrom(const char *pipeline);
// One was made.
void SpendPartition(const char *pipeline);

} // namespace pulse::pg
