// The rows of a batch: written at once, or slice by slice until those that PostgreSQL refuses are
// alone. Regime: C++ with doors, inside the batch transaction.
#pragma once

#include "worker/batch_state.hpp"

namespace pulse::worker {

// Fills in the outcomes. Returns the record before which all are settled: less than state->end when
// too many were refused for one transaction. Errors that are not of one row: pg::Error.
uint32_t InsertBatchRows(BatchState *state);

} // namespace pulse::worker
