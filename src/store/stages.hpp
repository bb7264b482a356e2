// The stages of a pipeline: SQL of its owner over the relation batch, between decoding and the
// target (transform, filter, enrich) or behind it (sink). Each statement runs over the slice of a
// batch as a whole, inside the subtransaction of its INSERT. Regime: PG.
#pragma once

#include <cstdint>

#include "store/writer.hpp"

namespace pulse::store {

// transform, filter, enrich. Leaves in job->staged what has become of the pending records; those
// that a stage leaves out are kFiltered. job->stage is the one an error came from. Inside SPI.
void RunStages(InsertJob *job);

// sink: over the records that were inserted. Inside SPI.
void RunSinks(InsertJob *job);

// Lays what the last stage returned over the row of that record.
void LayStagedOver(const InsertJob &job, uint32_t record, uintptr_t *values, bool *nulls);

} // namespace pulse::store
