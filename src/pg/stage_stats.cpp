#include "pg/stage_stats.hpp"

#include "pg/shmem.hpp"
#include "pg/prelude.hpp"

namespace pulse::pg {

int
StageStatsOf(const char *pipeline, const char *stage)
{
    if (shared == nullptr)
        return -1;
    int found = -1;
    LockShared();
    for (int i = 0; i < kMaxStageSlots && found < 0; i++) {
        StageSlot *slot = &shared->stages[i];
        if (slot->pipeline[0] == '\0') {
            CopyText(slot->pipeline, sizeof(slot->pipeline), pipeline);
            CopyText(slot->stage, sizeof(slot->stage), stage);
        }
        if (strcmp(slot->pipeline, pipeline) == 0 && strcmp(slot->stage, stage) == 0)
            found = i;
    }
    UnlockShared();
    return found;
}

void
AddStageRun(int stats, int64_t records_in, int64_t records_out, int64_t spent_us)
{
    if (stats < 0)
        return;
    LockShared();
    StageSlot *slot = &shared->stages[stats];
    slot->runs++;
    slot->records_in += records_in;
    slot->records_out += records_out;
    slot->spent_us += spent_us;
    UnlockShared();
}

void
AddStageRefusal(int stats)
{
    if (stats < 0)
        return;
    LockShared();
    shared->stages[stats].refused++;
    UnlockShared();
}

} // namespace pulse::pg
