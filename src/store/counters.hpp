// The live counters behind live.events_minute, live.events_hour, live.events_day and live.user_day:
// one upsert per kind and batch, in bucket order. A worker has rows of its own (slot), so workers
// never wait for each other. Regime: PG.
#pragma once

#include <cstdint>

#include "ingest/counter_deltas.hpp"

namespace pulse::store {

enum class CounterKind { kMinute, kHour, kDay, kUserDay };

// deltas are sorted; event_type of kUserDay is user_id, a NUL byte, event_type.
void AddToCounters(CounterKind kind, const char *pipeline, int slot,
                   const ingest::CounterDelta *deltas, int count);

} // namespace pulse::store
