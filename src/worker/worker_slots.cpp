#include "worker/worker_slots.hpp"

#include <csignal>

#include "pg/shmem.hpp"
#include "pg/xact.hpp"
#include "store/outgoing.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

constexpr int kMaxWorkersPerPipeline = 32;    // pulse.workers' limit
constexpr int64_t kSenderLookEvery = 5000000; // TimestampTz; news are looked at at once

pg::ProcessSlot *
FindWorker(const char *name, int index, bool create)
{
    pg::ProcessSlot *free_slot = nullptr;
    for (int i = 1; i < pg::kSenderSlot; i++) {
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

int32_t
AnyWorker(const std::string &name)
{
    for (const pg::ProcessSlot &slot : pg::shared->processes) {
        int32_t pid = slot.pid;
        if (slot.kind == pg::ProcessKind::kWorker && pid != 0 && name == slot.pipeline)
            return pid;
    }
    return 0;
}

bool
HasWorkers(const std::string &name)
{
    return AnyWorker(name) != 0;
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

// Which workers of a pipeline have which share of its partitions.
struct Spread {
    int count;           // that share the partitions
    int end;             // indexes below are wanted
    int32_t stalled_pid; // of one that does not move, 0 = none
    bool is_starved;     // the launcher found no background worker slot for the last one
    int32_t ranks[kMaxWorkersPerPipeline]; // -1 = no share
};

// PG regime. A worker that can't be started, or does not move, must have no partitions: they would
// wait for it. The first without a process is wanted all the same, but the others share without it
// until it comes. For one that does not move another one is started: taking its partitions raises
// their fences, and should it ever wake up, its batch does not commit.
Spread
Distribute(const char *name, int count)
{
    Spread spread = {};
    int64_t now = GetCurrentTimestamp();
    bool is_full = false;
    while (spread.count < count && spread.end < kMaxWorkersPerPipeline && !is_full) {
        pg::ProcessSlot *slot = FindWorker(name, spread.end, true);
        if (slot == nullptr)
            break;
        bool is_stalled = slot->pid != 0 && slot->expected_by != 0 && now > slot->expected_by;
        if (is_stalled)
            spread.stalled_pid = slot->pid;
        spread.is_starved = spread.is_starved || slot->is_starved;
        is_full = slot->is_starved && spread.count > 0;
        spread.ranks[spread.end++] = is_stalled || is_full ? -1 : spread.count++;
    }
    return spread;
}

// PG regime. True when somebody has to be started.
bool
Assign(const KnownPipeline &known, const Spread &spread, pg::ProcessSlot *slot, bool *must_wake)
{
    bool is_wanted = slot->worker_index < spread.end;
    int rank = is_wanted ? spread.ranks[slot->worker_index] : -1;
    int64_t assignment = (known.assignment_version * 64 + spread.count) * 64 + rank + 1;
    bool is_redefined = slot->definition_version != known.version;
    if (is_redefined) // whatever was wrong may be mended: start at once
        slot->failure_count = slot->next_start_at = 0;
    *must_wake = slot->pid != 0 && (is_redefined || slot->is_wanted != is_wanted ||
                                    slot->assignment_version != assignment);
    slot->is_wanted = is_wanted;
    slot->worker_rank = rank;
    slot->worker_count = Max(spread.count, 1);
    slot->definition_version = known.version;
    slot->assignment_version = assignment;
    return is_wanted && slot->pid == 0;
}

// PG regime.
Spread
Publish(const KnownPipeline &known, int count)
{
    const char *name = known.name.c_str();
    int32_t changed[kMaxWorkersPerPipeline] = {};
    bool has_new = false;
    pg::LockShared();
    Spread spread = Distribute(name, count);
    for (int index = 0; index < kMaxWorkersPerPipeline; index++) {
        pg::ProcessSlot *slot = FindWorker(name, index, false);
        if (slot == nullptr)
            continue;
        bool must_wake = false;
        has_new = Assign(known, spread, slot, &must_wake) || has_new;
        changed[index] = must_wake ? slot->pid : 0;
    }
    pg::UnlockShared();
    for (int32_t pid : changed)
        pg::WakeProcess(pid);
    if (has_new)
        pg::WakeLauncher();
    return spread;
}

void
Explain(const Spread &spread, int count, std::string *reason, std::string *hint)
{
    reason->clear();
    hint->clear();
    std::string of = " of " + std::to_string(count) + " workers run";
    if (spread.stalled_pid != 0) {
        std::string pid = std::to_string(spread.stalled_pid);
        *reason = "worker process " + pid + " does not move: its partitions are handed over";
        *hint = "It may be stopped, or wait for a disk or a standby. pg_terminate_backend(" + pid +
                ") ends it.";
    } else if (spread.is_starved) {
        int running = spread.count == 1 && count == 1 ? 0 : spread.count;
        *reason = "no free background worker slot: " + std::to_string(running) + of;
        *hint = "Raise max_worker_processes and restart the server, or lower the number of "
                "workers.";
    } else if (spread.count < count) {
        *reason = "pulse runs at most " + std::to_string(pg::kMaxProcesses - 2) +
                  " workers in all: " + std::to_string(spread.count) + of;
        *hint = "Lower the number of workers of this pipeline or of others.";
    }
}

} // namespace

void
WantWorkers(KnownPipeline *known, int count)
{
    Spread spread = pg::CallPg([&] { return Publish(*known, count); });
    known->spread = spread.count;
    std::string before = known->spread_error;
    Explain(spread, count, &known->spread_error, &known->spread_hint);
    if (before == known->spread_error)
        return;
    pg::CallPg([&] {
        if (known->spread_error.empty())
            ereport(LOG, (errmsg("pulse pipeline \"%s\": all its workers run again",
                                 known->name.c_str())));
        else
            ereport(LOG, (errmsg("pulse pipeline \"%s\": %s", known->name.c_str(),
                                 known->spread_error.c_str()),
                          errhint("%s", known->spread_hint.c_str())));
    });
}

void
SenderWish::Tick()
{
    pg::ProcessSlot *slot = &pg::shared->processes[pg::kSenderSlot];
    if (slot->is_wanted) // it ends by itself
        return;
    const int64_t news = pg::shared->outgoing_news;
    const int64_t now = GetCurrentTimestamp();
    if (news == seen_news_ && now - looked_at_ < kSenderLookEvery)
        return;
    seen_news_ = news;
    looked_at_ = now;
    bool has_outgoing = false;
    try {
        pg::InTransaction([&] { has_outgoing = pg::CallPg([] { return store::HasOutgoing(); }); });
    } catch (const pg::Error &) {
        has_outgoing = true; // the sender will find out what is wrong, and say so
    }
    if (!has_outgoing)
        return;
    pg::CallPg([&] {
        pg::LockShared();
        slot->kind = pg::ProcessKind::kSender;
        slot->is_wanted = true;
        slot->next_start_at = 0;
        pg::UnlockShared();
        pg::WakeLauncher();
    });
}

void
SenderWish::Withdraw()
{
    pg::CallPg([] {
        pg::ProcessSlot *slot = &pg::shared->processes[pg::kSenderSlot];
        pg::LockShared();
        slot->is_wanted = false;
        int32_t pid = slot->pid;
        pg::UnlockShared();
        pg::WakeProcess(pid);
    });
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
