#include "pg/shmem.hpp"

#include "pg/guc.hpp"
#include "pg/prelude.hpp"

namespace pulse::pg {

Shared *shared = nullptr;

namespace {

shmem_request_hook_type previous_request_hook = nullptr;
shmem_startup_hook_type previous_startup_hook = nullptr;

void
RequestHook()
{
    if (previous_request_hook != nullptr)
        previous_request_hook();
    RequestAddinShmemSpace(MAXALIGN(sizeof(Shared)));
    RequestNamedLWLockTranche("pulse", 1);
}

void
StartupHook()
{
    if (previous_startup_hook != nullptr)
        previous_startup_hook();
    LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
    bool found = false;
    shared = static_cast<Shared *>(ShmemInitStruct("pulse", sizeof(Shared), &found));
    if (!found) {
        memset(static_cast<void *>(shared), 0, sizeof(Shared));
        shared->lock = &GetNamedLWLockTranche("pulse")->lock;
    }
    LWLockRelease(AddinShmemInitLock);
}

} // namespace

const char *
StateName(State state)
{
    static const char *const names[] = {"starting",      "running",    "idle",   "paused",
                                        "retrying",      "stopped",    "failed", "offset_lost",
                                        "topic_changed", "quarantined"};
    return names[static_cast<int>(state)];
}

int
LogLevel(State state)
{
    return state >= State::kStopped ? WARNING : LOG;
}

const char *
PhaseName(Phase phase)
{
    static const char *const names[] = {"starting", "waiting", "writing", "retrying", "exiting"};
    return names[static_cast<int>(phase)];
}

void
RequestSharedMemory()
{
    previous_request_hook = shmem_request_hook;
    shmem_request_hook = RequestHook;
    previous_startup_hook = shmem_startup_hook;
    shmem_startup_hook = StartupHook;
}

void
RequireSharedMemory()
{
    if (shared == nullptr)
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("pulse is not loaded"),
                 errhint("Add pulse to shared_preload_libraries and restart the server.")));
}

void
LockShared()
{
    LWLockAcquire(shared->lock, LW_EXCLUSIVE);
}

void
LockSharedForRead()
{
    LWLockAcquire(shared->lock, LW_SHARED);
}

void
UnlockShared()
{
    LWLockRelease(shared->lock);
}

PipelineSlot *
FindPipeline(const char *name, bool create)
{
    PipelineSlot *free_slot = nullptr;
    for (PipelineSlot &slot : shared->pipelines) {
        if (slot.is_used && strcmp(slot.name, name) == 0)
            return &slot;
        if (!slot.is_used && free_slot == nullptr)
            free_slot = &slot;
    }
    if (!create || free_slot == nullptr)
        return nullptr;
    memset(static_cast<void *>(free_slot), 0, sizeof(*free_slot));
    free_slot->is_used = true;
    CopyText(free_slot->name, kNameBytes, name);
    free_slot->state_since = GetCurrentTimestamp();
    return free_slot;
}

PartitionSlot *
FindPartition(const char *pipeline, const char *topic, int32_t partition, bool create)
{
    PartitionSlot *free_slot = nullptr;
    for (PartitionSlot &slot : shared->partitions) {
        if (!slot.is_used) {
            if (free_slot == nullptr && &slot - shared->partitions < guc_partition_slots)
                free_slot = &slot;
        } else if (slot.partition == partition && strcmp(slot.pipeline, pipeline) == 0 &&
                   strcmp(slot.topic, topic) == 0) {
            return &slot;
        }
    }
    if (!create || free_slot == nullptr)
        return nullptr;
    memset(static_cast<void *>(free_slot), 0, sizeof(*free_slot));
    free_slot->is_used = true;
    CopyText(free_slot->pipeline, kNameBytes, pipeline);
    CopyText(free_slot->topic, kTopicBytes, topic);
    free_slot->partition = partition;
    free_slot->next_offset = free_slot->low = free_slot->high = -1;
    free_slot->watched_high = -1;
    free_slot->arrivals_per_second = -1;
    free_slot->state = State::kStarting;
    return free_slot;
}

bool
IsInTrouble(const PartitionSlot &slot)
{
    return slot.trouble[0] != '\0' && slot.state != State::kOffsetLost &&
           slot.state != State::kTopicChanged && slot.state != State::kQuarantined;
}

SendSlot *
FindSend(bool is_outbox, const char *pipeline, const char *topic, bool create)
{
    SendSlot *free_slot = nullptr;
    for (SendSlot &slot : shared->sends) {
        if (!slot.is_used) {
            if (free_slot == nullptr)
                free_slot = &slot;
        } else if (slot.is_outbox == is_outbox && strcmp(slot.pipeline, pipeline) == 0 &&
                   strcmp(slot.topic, topic) == 0) {
            return &slot;
        }
    }
    if (create && free_slot == nullptr) // whoever has been idle longest is not shown any more
        for (SendSlot &slot : shared->sends)
            if (slot.state == State::kIdle &&
                (free_slot == nullptr || slot.last_sent_at < free_slot->last_sent_at))
                free_slot = &slot;
    if (!create || free_slot == nullptr)
        return nullptr;
    memset(static_cast<void *>(free_slot), 0, sizeof(*free_slot));
    free_slot->is_used = true;
    free_slot->is_outbox = is_outbox;
    CopyText(free_slot->pipeline, kNameBytes, pipeline);
    CopyText(free_slot->topic, kTopicBytes, topic);
    free_slot->state_since = GetCurrentTimestamp();
    return free_slot;
}

void
ResetSends()
{
    LockShared();
    for (SendSlot &slot : shared->sends) {
        if (slot.state == State::kFailed) // stays so until somebody looks again
            continue;
        slot.state = State::kIdle;
        slot.reason[0] = slot.hint[0] = '\0';
        slot.in_flight = slot.next_retry_at = 0;
    }
    UnlockShared();
}

void
SetPipelineState(PipelineSlot *slot, State state, const char *reason, const char *hint)
{
    if (slot->state != state || strncmp(slot->reason, reason, kReasonBytes - 1) != 0)
        slot->state_since = GetCurrentTimestamp();
    slot->state = state;
    CopyText(slot->reason, kReasonBytes, reason);
    CopyText(slot->hint, kReasonBytes, hint);
}

void
CopyText(char *target, int size, const char *text)
{
    int length = pg_mbcliplen(text, static_cast<int>(strlen(text)), size - 1);
    memcpy(target, text, length);
    target[length] = '\0';
}

void
WakeProcess(int32_t pid)
{
    if (pid == 0)
        return;
    PGPROC *proc = BackendPidGetProc(pid);
    if (proc != nullptr)
        SetLatch(&proc->procLatch);
}

void
WakeLauncher()
{
    if (shared != nullptr)
        WakeProcess(shared->launcher_pid);
}

void
WakeCoordinator()
{
    if (shared != nullptr)
        WakeProcess(shared->processes[0].pid);
}

void
TellSender()
{
    if (shared == nullptr)
        return;
    LockShared();
    shared->outgoing_news++;
    int32_t pid = shared->processes[kSenderSlot].pid;
    UnlockShared();
    WakeProcess(pid);
}

void
WakeSender()
{
    TellSender();
    if (shared != nullptr && !shared->processes[kSenderSlot].is_wanted)
        WakeCoordinator();
}

} // namespace pulse::pg
