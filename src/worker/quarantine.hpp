// Which records are not decoded: those that killed their worker again and again, and those that
// were set aside before. Regime: C++ with doors.
#pragma once

#include <vector>

#include "ingest/reader.hpp"
#include "worker/pipeline_state.hpp"

namespace pulse::worker {

// In a transaction of its own, for a worker that has just taken its partitions: condemns the
// suspects of the flight recorder that are due and returns all records set aside.
std::vector<ingest::SetAside> SetAsideRecords(const PipelineState &pipeline);

} // namespace pulse::worker
