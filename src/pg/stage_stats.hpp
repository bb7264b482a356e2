// What the stages of pipelines have done since the server started: pulse.stat_stage. Regime: PG.
#pragma once

#include <cstdint>

namespace pulse::pg {

// Where the stage is counted; -1 = nowhere (not preloaded, or too many stages).
int StageStatsOf(const char *pipeline, const char *stage);

// It ran once over that many records. Also counted when the transaction is rolled back later.
void AddStageRun(int stats, int64_t records_in, int64_t records_out, int64_t spent_us);
// It refused a record, which is a dead letter now.
void AddStageRefusal(int stats);

} // namespace pulse::pg
