#include "worker/status.hpp"

#include <algorithm>
#include <csignal>

#include "pg/guc.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

pg::ProcessSlot *my_slot = nullptr;

namespace {

void
ReleaseSlot(int, Datum)
{
    pg::LockShared();
    if (my_slot != nullptr && my_slot->pid == MyProcPid) {
        my_slot->pid = 0;
        my_slot->writer_since = 0;
        my_slot->queue_records = 0;
        // Ending because somebody asked is no failure: the launcher starts the next one at once.
        if (my_slot->phase == Phase::kExiting || ProcDiePending)
            my_slot->failure_count = 0;
    }
    pg::UnlockShared();
    my_slot = nullptr;
}

// PG regime.
void
LogState(State state, const char *reason, const char *hint)
{
    char who[128];
    if (my_slot->kind == pg::ProcessKind::kCoordinator)
        strlcpy(who, "coordinator", sizeof(who));
    else if (my_slot->kind == pg::ProcessKind::kSender)
        strlcpy(who, "sender", sizeof(who));
    else
        snprintf(who, sizeof(who), "pipeline \"%s\" worker %d", my_slot->pipeline,
                 my_slot->worker_index);
    ereport(pg::LogLevel(state), (errmsg("pulse %s is %s%s%s", who, pg::StateName(state),
                                         reason[0] == '\0' ? "" : ": ", reason),
                                  hint[0] == '\0' ? 0 : errhint("%s", hint)));
}

} // namespace

bool
ClaimSlot(int slot_index)
{
    pg::LockShared();
    pg::ProcessSlot *slot = &pg::shared->processes[slot_index];
    bool is_free = slot->pid == 0 || kill(slot->pid, 0) != 0;
    if (is_free) {
        slot->pid = MyProcPid;
        slot->started_at = GetCurrentTimestamp();
        slot->phase = Phase::kStarting;
        slot->state = State::kStarting;
        slot->state_since = slot->started_at;
        slot->reason[0] = slot->hint[0] = '\0';
        slot->next_retry_at = 0;
        slot->writer_since = 0;
        slot->expected_by = 0;
        slot->batch_count = slot->record_count = slot->row_count = 0;
        slot->duplicate_count = slot->reject_count = 0;
        my_slot = slot;
    }
    pg::UnlockShared();
    if (is_free)
        before_shmem_exit(ReleaseSlot, static_cast<Datum>(0));
    return is_free;
}

void
Beat()
{
    int64_t silence_ms = std::max(pg::guc_stall_after_ms, 2 * pg::guc_batch_timeout_ms);
    my_slot->expected_by = GetCurrentTimestamp() + silence_ms * 1000;
}

void
BeginSilence()
{
    my_slot->expected_by = 0;
}

void
EndSilence()
{
    Beat();
}

void
SetPhase(Phase phase)
{
    my_slot->phase = phase;
}

void
SetState(State state, const std::string &reason, const std::string &hint, int64_t retry_in_ms)
{
    pg::CallPg([&] {
        TimestampTz now = GetCurrentTimestamp();
        pg::LockShared();
        bool has_changed = my_slot->state != state ||
                           strncmp(my_slot->reason, reason.c_str(), pg::kReasonBytes - 4) != 0;
        bool was_trouble = my_slot->state >= State::kRetrying;
        if (has_changed) {
            if (my_slot->state != state)
                my_slot->state_since = now;
            my_slot->state = state;
            pg::CopyText(my_slot->reason, pg::kReasonBytes, reason.c_str());
            pg::CopyText(my_slot->hint, pg::kReasonBytes, hint.c_str());
        }
        my_slot->next_retry_at = retry_in_ms > 0 ? now + retry_in_ms * 1000 : 0;
        pg::UnlockShared();
        if (has_changed && (state >= State::kRetrying || was_trouble))
            LogState(state, reason.c_str(), hint.c_str());
    });
}

int64_t
RegisterWriter()
{
    pg::LockShared();
    // Under the lock: a horizon taken before is not later than this, so horizons never go back.
    int64_t began_at = GetCurrentTimestamp();
    my_slot->writer_since = began_at;
    pg::UnlockShared();
    return began_at;
}

void
UnregisterWriter()
{
    pg::LockShared();
    my_slot->writer_since = 0;
    pg::UnlockShared();
}

} // namespace pulse::worker
