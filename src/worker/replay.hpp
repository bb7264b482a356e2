// Dead letters through the path of a batch: decoded again with the pipeline as it is now, inserted
// with the same isolation of bad rows, counted. One step is some letters of one pipeline in the
// transaction of the calling session; whoever calls commits. Letters are locked first, then rows,
// then counters (of a slot that no worker uses); pulse.offsets is not touched. Regime: C++ with
// doors.
#pragma once

#include <cstdint>

#include "store/replays.hpp"

namespace pulse::worker {

struct ReplayRequest {
    const char *pipeline;
    store::LetterFilter filter;
    bool is_dry_run; // all of it happens, and is rolled back
    bool may_commit; // the caller can commit between the steps
};

struct ReplayStep {
    int64_t last_id = 0;      // letters up to this one are done with
    int taken = 0;            // letters that were due; 0 = no more
    int settled = 0;          // of these, done with: fewer when many were refused
    bool must_commit = false; // partitions were made, nothing else: commit and take the step again
    store::ReplayCounts counts{};
};

// Up to limit letters behind after_id, in a subtransaction. Errors, all of them with nothing of the
// step done: pg::Error, 42704 when the pipeline is gone.
ReplayStep ReplaySome(const ReplayRequest &request, int64_t after_id, int limit);

} // namespace pulse::worker
