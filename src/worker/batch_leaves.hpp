// The partitions of a managed target that a batch's rows go to. Regime: C++ with doors.
#pragma once

#include "ingest/bisect.hpp"
#include "worker/batch_state.hpp"

namespace pulse::worker {

// Makes what is missing, each in a transaction of its own, and remembers which bucket is which
// leaf.
void MakeTargetPartitions(BatchState *state);

// The leaf that takes all pending rows of the slice, or 0: write through the target.
unsigned int LeafOf(const BatchState &state, ingest::Slice slice);

} // namespace pulse::worker
