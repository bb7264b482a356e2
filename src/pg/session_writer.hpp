// Sessions that write rows of events (replays, ingest) take part in ingest_horizon() like workers
// do: from before their first row until their transaction has ended, however it ends. Regime: PG.
#pragma once

#include <cstdint>

namespace pulse::pg {

// Registers this session until the end of the transaction; again is harmless. Such a transaction
// can't be prepared. Returns a number from 0 on that no other such transaction has meanwhile.
// Errors: 53300 when too many sessions write, 55000.
int RegisterSessionWriter();

// Since when the oldest of them writes, or until. Needs the lock.
int64_t OldestSessionWriter(int64_t until);

} // namespace pulse::pg
