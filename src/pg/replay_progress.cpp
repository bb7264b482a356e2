#include "pg/replay_progress.hpp"

#include "pg/shmem.hpp"
#include "pg/prelude.hpp"

namespace pulse::pg {

namespace {

ReplaySlot *my_replay = nullptr;

void
SessionEnds(int, Datum)
{
    EndReplayProgress();
}

} // namespace

void
BeginReplayProgress(bool is_dry_run)
{
    static bool is_hooked = false;
    if (shared == nullptr || my_replay != nullptr)
        return;
    if (!is_hooked) {
        before_shmem_exit(SessionEnds, static_cast<Datum>(0));
        is_hooked = true;
    }
    LockShared();
    for (ReplaySlot &slot : shared->replays) {
        if (slot.pid != 0)
            continue;
        memset(static_cast<void *>(&slot), 0, sizeof(slot));
        slot.pid = MyProcPid;
        slot.is_dry_run = is_dry_run;
        slot.started_at = GetCurrentTimestamp();
        my_replay = &slot;
        break;
    }
    UnlockShared();
}

void
AddDueLetters(const char *pipeline, int64_t letters)
{
    if (my_replay == nullptr)
        return;
    LockShared();
    CopyText(my_replay->pipeline, sizeof(my_replay->pipeline), pipeline);
    my_replay->due += letters;
    UnlockShared();
}

void
AddReplayProgress(int64_t replayed, int64_t duplicates, int64_t failed)
{
    if (my_replay == nullptr)
        return;
    LockShared();
    my_replay->replayed += replayed;
    my_replay->duplicates += duplicates;
    my_replay->failed += failed;
    my_replay->last_step_at = GetCurrentTimestamp();
    UnlockShared();
}

void
EndReplayProgress()
{
    if (my_replay == nullptr)
        return;
    LockShared();
    my_replay->pid = 0;
    UnlockShared();
    my_replay = nullptr;
}

} // namespace pulse::pg
