// How far the replays of dead letters are that run at this moment: pulse.stat_replay. Regime: PG,
// inside or outside a transaction.
#pragma once

#include <cstdint>

namespace pulse::pg {

// This session begins a replay. It is shown until EndReplayProgress() or the end of the session;
// not at all when too many run.
void BeginReplayProgress(bool is_dry_run);
// It goes on with this pipeline, of which so many letters are due.
void AddDueLetters(const char *pipeline, int64_t letters);
void AddReplayProgress(int64_t replayed, int64_t duplicates, int64_t failed);
void EndReplayProgress();

} // namespace pulse::pg
