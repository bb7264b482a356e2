// What replays and ingest() share: a pipeline in a session of its caller, in the caller's
// transaction, and the partitions its rows need. Regime: as said.
#pragma once

#include "worker/batch_state.hpp"
#include "worker/pipeline_state.hpp"

namespace pulse::worker {

// Large, and its strings outlive transactions: one per session, described anew by every call. Never
// destroyed, for nothing of ours may run when the process exits.
PipelineState &SessionPipeline();

// Describes the pipeline and its target until the GUC nest level ends; the pipeline is not dropped
// before the transaction ends. slot: of the counters, one that nobody else writes at this time.
// Regime: PG. Errors: 42704, and what is wrong with the target.
void LoadSessionPipeline(const char *name, int slot, PipelineState *pipeline);

// Makes partitions for the pending rows from state.begin on, most of them at most. Returns how many
// were missing. Regime: C++ with doors.
int MakeSessionPartitions(const BatchState &state, int most);

// Random bytes for the ids of events that have none; once per batch. Regime: PG.
void MakeIdSeed(unsigned char *seed);

} // namespace pulse::worker
