// What the rows of a batch add to the live counters, in its transaction. Regime: C++ with doors.
#pragma once

#include "worker/batch_state.hpp"

namespace pulse::worker {

void AddToCounters(BatchState *state);

} // namespace pulse::worker
