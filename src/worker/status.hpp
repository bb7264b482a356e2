// A worker's entries in shared memory: what the stat views show of it and what ingest_horizon()
// reads. Regime: door, unless said otherwise.
#pragma once

#include <cstdint>
#include <string>

#include "pg/shmem.hpp"

namespace pulse::worker {

using pg::Phase;
using pg::State;

// This process's slot; null outside a worker or coordinator.
extern pg::ProcessSlot *my_slot;

// Claims the slot for this process; false when another living process has it. PG regime.
bool ClaimSlot(int slot_index);

// A process says that it lives, a worker at least between two batches: one that doesn't for a
// minute, or twice batch_timeout, loses its partitions to others. The coordinator: pipelines say
// so.
void Beat();

// Between the two it may be silent for as long as it likes: it reads a whole table, say. Whoever
// got its partitions meanwhile would have to begin the same.
void BeginSilence();
void EndSilence();

void SetPhase(Phase phase);

// State with reason and hint; logs a line when the state or the reason changed, and only then.
void SetState(State state, const std::string &reason, const std::string &hint, int64_t retry_in_ms);

// Between them ingest_horizon() stays at the time the first returns (a TimestampTz). PG regime.
int64_t RegisterWriter();
void UnregisterWriter();

} // namespace pulse::worker
