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
    for (pg::ProcessSlot &slot : pg::shared->processes) {
        pg::LockShared();
        bool is_ours = slot.kind == pg::ProcessKind::kWorker && strcmp(slot.pipeline, name) == 0;
        int32_t pid = is_ours ? slot.pid : 0;
        if (is_ours) {
            slot.failure_count = 0;
            slot.next_start_at = 0;
            slot.next_retry_at = 0;
        }
        pg::UnlockShared();
        pg::WakeProcess(pid);
    }
}

namespace {

struct Spread {
    int count;       // workers that share the partitions
    bool is_starved; // the launcher found no background worker slot for the next one
};

// PG regime. A worker that can't be started must not have partitions: they would wait for it. So
// the first one without a process is wanted all the same, but the others share without it; when it
// comes they share again.
Spread
Assign(const KnownPipeline &known, int count)
{
    const char *name = known.name.c_str();
    Spread spread = {0, false};
    while (spread.count < count) {
        pg::ProcessSlot *slot = FindWorker(name, spread.count, true);
        if (slot == nullptr)
            break;
        spread.is_starved = slot->is_starved;
        if (slot->is_starved && spread.count > 0)
            break;
        spread.count++;
    }
    return spread;
}

} // namespace

void
WantWorkers(KnownPipeline *known, int count)
{
    Spread spread = pg::CallPg([&] {
        int32_t changed[kMaxWorkersPerPipeline];
        int changed_count = 0;
        bool has_new = false;
        pg::LockShared();
        Spread found = Assign(*known, count);
        int wanted = found.count + (found.is_starved ? 1 : 0);
        int64_t assignment = known->assignment_version * 64 + found.count; // a new spread, too
        for (int index = 0; index < kMaxWorkersPerPipeline; index++) {
            pg::ProcessSlot *slot = FindWorker(known->name.c_str(), index, false);
            if (slot == nullptr)
                continue;
            bool is_wanted = index < Min(wanted, count);
            bool is_redefined = slot->definition_version != known->version;
            if (is_redefined) // whatever was wrong may be mended: start at once
                slot->failure_count = slot->next_start_at = 0;
            if (slot->pid != 0 && (is_redefined || slot->is_wanted != is_wanted ||
                                   slot->assignment_version != assignment))
                changed[changed_count++] = slot->pid;
            has_new = has_new || (is_wanted && slot->pid == 0);
            slot->is_wanted = is_wanted;
            slot->worker_count = Max(found.count, 1);
            slot->definition_version = known->version;
            slot->assignment_version = assignment;
        }
        pg::UnlockShared();
        for (int i = 0; i < changed_count; i++)
            pg::WakeProcess(changed[i]);
        if (has_new)
            pg::WakeLauncher();
        return found;
    });
    known->spread = spread.count;
    known->spread_error.clear();
    if (spread.count >= count && !spread.is_starved)
        return;
    int running = spread.is_starved && spread.count == 1 && count == 1 ? 0 : spread.count;
    known->spread_error =
        (spread.is_starved
             ? "no free background worker slot"
             : "pulse runs at most " + std::to_string(pg::kMaxProcesses - 1) + " workers in all") +
        std::string(": ") + std::to_string(running) + " of " + std::to_string(count) +
        " workers run";
    known->spread_hint = spread.is_starved
                             ? "Raise max_worker_processes and restart the server, or lower "
                               "the number of workers."
                             : "Lower the number of workers of this pipeline or of others.";
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
            int32_t pid = slot->pid;
            if (pid == 0)
                slot->kind = pg::ProcessKind::kNone;
            pg::UnlockShared();
            pg::WakeProcess(pid);
        });
    }
}

void
ForgetStrays(const KnownPipelines &pipelines)
{
    for (const pg::PipelineSlot &slot : pg::shared->pipelines) {
        if (slot.is_used && !pipelines.contains(slot.name)) {
            std::string name = slot.name;
            pg::CallPg([&] { ForgetSlots(name.c_str()); });
        }
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
