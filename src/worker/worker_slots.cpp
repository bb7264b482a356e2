#include "worker/worker_slots.hpp"

#include <csignal>

#include "pg/shmem.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

constexpr int kMaxWorkersPerPipeline = 32; // pulse.workers' limit

pg::ProcessSlot *
FindWorker(const char *name, int index, bool create)
{
    pg::ProcessSlot *free_slot = nullptr;
    for (int i = 1; i < pg::kMaxProcesses; i++) {
        pg::ProcessSlot *slot = &pg::shared->processes[i];
        if (slot->kind == pg::ProcessKind::kWorker && slot->worker_index == index &&
            strcmp(slot->pipeline, name) == 0)
            return slot;
        if (slot->kind == pg::ProcessKind::kNone && free_slot == nullptr)
            free_slot = slot;
    }
    if (!create || free_slot == nullptr)
        return nullptr;
    memset(static_cast<void *>(free_slot), 0, sizeof(*free_slot));
    free_slot->kind = pg::ProcessKind::kWorker;
    free_slot->worker_index = index;
    pg::CopyText(free_slot->pipeline, sizeof(free_slot->pipeline), name);
    return free_slot;
}

} // namespace

void
HaltWorkers(const std::string &name, bool must_abort)
{
    pg::CallPg([&] {
        for (pg::ProcessSlot &slot : pg::shared->processes) {
            pg::LockShared();
            bool is_ours = slot.kind == pg::ProcessKind::kWorker && name == slot.pipeline;
            int pid = is_ours ? slot.pid : 0;
            if (is_ours)
                slot.is_wanted = false;
            pg::UnlockShared();
            if (pid == 0)
                continue;
            if (must_abort)
                kill(pid, SIGINT); // cancels the statement; the batch rolls back
            pg::WakeProcess(pid);
        }
    });
}

bool
HasWorkers(const std::string &name)
{
    for (const pg::ProcessSlot &slot : pg::shared->processes)
        if (slot.kind == pg::ProcessKind::kWorker && slot.pid != 0 && name == slot.pipeline)
            return true;
    return false;
}

void
ForgiveWorkers(const char *name)
{
    pg::LockShared();
    for (pg::ProcessSlot &slot : pg::shared->processes) {
        if (slot.kind == pg::ProcessKind::kWorker && strcmp(slot.pipeline, name) == 0) {
            slot.failure_count = 0;
            slot.next_start_at = 0;
            slot.next_retry_at = 0;
        }
    }
    pg::UnlockShared();
}

void
WantWorkers(const KnownPipeline &known, int count)
{
    bool has_new = false;
    pg::LockShared();
    for (int index = 0; index < kMaxWorkersPerPipeline; index++) {
        pg::ProcessSlot *slot = FindWorker(known.name.c_str(), index, index < count);
        if (slot == nullptr)
            continue;
        has_new = has_new || (index < count && slot->pid == 0);
        slot->is_wanted = index < count;
        slot->worker_count = Max(count, 1);
        slot->definition_version = known.version;
        slot->assignment_version = known.assignment_version * 64 + count; // a new spread, too
    }
    pg::UnlockShared();
    if (has_new)
        pg::WakeLauncher();
}

void
ReleaseStraySlots(const KnownPipelines &pipelines)
{
    for (int i = 1; i < pg::kMaxProcesses; i++) {
        pg::ProcessSlot *slot = &pg::shared->processes[i];
        // Only the coordinator writes kind and name.
        if (slot->kind != pg::ProcessKind::kWorker || pipelines.contains(slot->pipeline))
            continue;
        pg::CallPg([&] {
            pg::LockShared();
            slot->is_wanted = false;
            if (slot->pid == 0)
                slot->kind = pg::ProcessKind::kNone;
            pg::UnlockShared();
        });
    }
}

void
ForgetSlots(const char *name)
{
    pg::LockShared();
    pg::PipelineSlot *pipeline = pg::FindPipeline(name, false);
    if (pipeline != nullptr)
        pipeline->is_used = false;
    for (pg::PartitionSlot &slot : pg::shared->partitions)
        if (slot.is_used && strcmp(slot.pipeline, name) == 0)
            slot.is_used = false;
    pg::UnlockShared();
}

} // namespace pulse::worker
