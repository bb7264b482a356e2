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

// Each new partition takes locks until the transaction ends, and the table of locks is everybody's.
constexpr int kMaxNewPartitions = 32;

struct NewPartitions {
    int count;
    uint32_t end; // pending rows before it have a partition
};

// Makes those that the pending rows from state.begin on need, as many as one transaction may.
// Regime: C++ with doors.
NewPartitions MakeSessionPartitions(const BatchState &state);

// The same in a transaction of the caller that nobody commits in between: all of them, or 54000
// when it has made too many by now. Regime: C++ with doors.
void MakeCallersPartitions(const BatchState &state);

// Random bytes for the ids of events that have none; once per batch. Regime: PG.
void MakeIdSeed(unsigned char *seed);

} // namespace pulse::worker
