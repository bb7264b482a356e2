#include "worker/launcher.hpp"

#include <csignal>

#include "pg/guc.hpp"
#include "pg/shmem.hpp"
#include "pg/wait.hpp"
#include "pg/xact.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

constexpr int64_t kSecond = 1000000; // TimestampTz
constexpr int64_t kProbeEvery = 10 * kSecond;
constexpr int kMaxRestartDelaySeconds = 60;

// A heap scan, as the autovacuum launcher does it: without a database no index of a catalog can be
// opened before the relcache's init file exists.
bool
DatabaseExists(const char *name)
{
    bool found = false;
    Relation relation = table_open(DatabaseRelationId, AccessShareLock);
    TableScanDesc scan = table_beginscan_catalog(relation, 0, nullptr);
    HeapTuple tuple;
    while (!found && HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection))) {
        Form_pg_database database = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));
        found = database->datallowconn && strcmp(NameStr(database->datname), name) == 0;
    }
    table_endscan(scan);
    table_close(relation, AccessShareLock);
    return found;
}

class Launcher {
  public:
    void Run()
    {
        for (;;) {
            (void)pg::ReloadIfAsked();
            LookAround();
            long wait_ms = StartWanted();
            pg::Wait(-1, wait_ms);
        }
    }

  private:
    // Is there anything to do at all? The coordinator is wanted where the extension may be.
    void LookAround()
    {
        bool has_brokers = pg::guc_brokers[0] != '\0';
        bool has_database = false;
        if (has_brokers)
            pg::InTransaction([&] {
                has_database = pg::CallPg([] { return DatabaseExists(pg::guc_database); });
            });
        pg::CallPg([&] { Decide(has_brokers && has_database); });
    }

    // PG regime.
    void Decide(bool is_possible)
    {
        TimestampTz now = GetCurrentTimestamp();
        pg::LockShared();
        pg::ProcessSlot *coordinator = &pg::shared->processes[0];
        coordinator->kind = pg::ProcessKind::kCoordinator;
        if (!is_possible) {
            // No brokers, no database: everything lets go of the database.
            for (pg::ProcessSlot &slot : pg::shared->processes)
                slot.is_wanted = false;
        } else if (coordinator->pid != 0 || handles_[0] != nullptr) {
            coordinator->is_wanted = true;
        } else {
            bool is_due =
                pg::shared->probe_requested != probe_seen_ || now - probed_at_ >= kProbeEvery;
            coordinator->is_wanted = pg::shared->extension_seen || is_due;
            if (coordinator->is_wanted)
                probed_at_ = now;
        }
        probe_seen_ = pg::shared->probe_requested;
        pg::UnlockShared();
        if (!is_possible)
            for (const pg::ProcessSlot &slot : pg::shared->processes)
                pg::WakeProcess(slot.pid);
    }

    // Returns how long there is nothing to do.
    long StartWanted()
    {
        return pg::CallPg([this] {
            long wait_ms = 1000;
            for (int i = 0; i < pg::kMaxProcesses; i++) {
                Collect(i);
                wait_ms = Min(wait_ms, StartOne(i));
            }
            return wait_ms;
        });
    }

    // PG regime. Notices that a process ended and paces its next start.
    void Collect(int index)
    {
        if (handles_[index] == nullptr)
            return;
        pid_t pid = 0;
        if (GetBackgroundWorkerPid(handles_[index], &pid) != BGWH_STOPPED)
            return;
        pfree(handles_[index]);
        handles_[index] = nullptr;
        pg::LockShared();
        pg::ProcessSlot *slot = &pg::shared->processes[index];
        // Unless another one has the slot: started by an earlier launcher, it was there before
        // ours.
        if (slot->pid != 0 && kill(slot->pid, 0) != 0)
            slot->pid = 0;
        // The process sets it back when it ended as asked or had committed something.
        int delay_s = slot->failure_count <= 1
                          ? 0
                          : Min(1 << Min(slot->failure_count - 2, 6), kMaxRestartDelaySeconds);
        slot->next_start_at = GetCurrentTimestamp() + delay_s * kSecond;
        pg::UnlockShared();
    }

    // PG regime.
    long StartOne(int index)
    {
        pg::ProcessSlot *slot = &pg::shared->processes[index];
        pg::LockShared();
        TimestampTz now = GetCurrentTimestamp();
        bool is_running = handles_[index] != nullptr || (slot->pid != 0 && kill(slot->pid, 0) == 0);
        bool is_due = slot->kind != pg::ProcessKind::kNone && slot->is_wanted && !is_running;
        long wait_ms = 1000;
        if (is_due && slot->next_start_at > now) {
            wait_ms = Max(1, static_cast<long>((slot->next_start_at - now) / 1000));
            is_due = false;
        }
        if (is_due) {
            slot->failure_count++;
            slot->pid = 0;
        }
        pg::ProcessKind kind = slot->kind;
        char name[pg::kNameBytes];
        strlcpy(name, slot->pipeline, sizeof(name));
        int worker_index = slot->worker_index;
        pg::UnlockShared();
        if (is_due && !Register(index, kind, name, worker_index))
            return 1000;
        return wait_ms;
    }

    bool Register(int index, pg::ProcessKind kind, const char *pipeline, int worker_index)
    {
        const bool is_worker = kind == pg::ProcessKind::kWorker;
        const bool is_sender = kind == pg::ProcessKind::kSender;
        BackgroundWorker worker = {};
        worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
        worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
        // A dynamic worker with a restart time would return by itself after a crash restart, beside
        // the one we start (W6).
        worker.bgw_restart_time = BGW_NEVER_RESTART;
        strlcpy(worker.bgw_library_name, "pulse", BGW_MAXLEN);
        strlcpy(worker.bgw_function_name,
                is_worker   ? "pulse_worker_main"
                : is_sender ? "pulse_sender_main"
                            : "pulse_coordinator_main",
                BGW_MAXLEN);
        strlcpy(worker.bgw_type,
                is_worker   ? "pulse worker"
                : is_sender ? "pulse sender"
                            : "pulse coordinator",
                BGW_MAXLEN);
        if (is_worker)
            snprintf(worker.bgw_name, BGW_MAXLEN, "pulse worker %d (%s)", worker_index, pipeline);
        else
            strlcpy(worker.bgw_name, worker.bgw_type, BGW_MAXLEN);
        worker.bgw_main_arg = Int32GetDatum(index);
        worker.bgw_notify_pid = MyProcPid;
        MemoryContext outer = MemoryContextSwitchTo(TopMemoryContext);
        bool is_registered = RegisterDynamicBackgroundWorker(&worker, &handles_[index]);
        MemoryContextSwitchTo(outer);
        if (!is_registered)
            handles_[index] = nullptr;
        NoteSlot(index, is_registered);
        if (is_worker ||
            is_sender) // views tell, of a worker also the coordinator, for its pipeline
            return is_registered;
        if (!is_registered && !has_warned_)
            ereport(WARNING, (errmsg("pulse found no free background worker slot"),
                              errhint("Raise max_worker_processes and restart the server.")));
        has_warned_ = !is_registered;
        return is_registered;
    }

    // What the views show of it: of a worker its own slot, of the coordinator all pipelines.
    static void NoteSlot(int index, bool is_registered)
    {
        static const char *const reason = "no free background worker slot";
        static const char *const hint = "Raise max_worker_processes and restart the server.";
        pg::LockShared();
        pg::ProcessSlot *slot = &pg::shared->processes[index];
        bool has_changed = slot->is_starved == is_registered;
        slot->is_starved = !is_registered;
        if (!is_registered) {
            pg::CopyText(slot->reason, pg::kReasonBytes, reason);
            pg::CopyText(slot->hint, pg::kReasonBytes, hint);
            slot->state = pg::State::kStarting;
            slot->failure_count = 0;
        }
        if (!is_registered && slot->kind == pg::ProcessKind::kCoordinator)
            for (pg::PipelineSlot &pipeline : pg::shared->pipelines)
                if (pipeline.is_used)
                    pg::SetPipelineState(&pipeline, pg::State::kStarting, reason, hint);
        pg::UnlockShared();
        if (has_changed)
            pg::WakeCoordinator(); // the workers share the partitions another way now
    }

    BackgroundWorkerHandle *handles_[pg::kMaxProcesses] = {};
    TimestampTz probed_at_ = 0;
    int64_t probe_seen_ = -1;
    bool has_warned_ = false;
};

void
ForgetLauncher(int, Datum)
{
    pg::shared->launcher_pid = 0;
}

} // namespace

void
RegisterLauncher()
{
    BackgroundWorker worker = {};
    worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
    worker.bgw_start_time = BgWorkerStart_RecoveryFinished; // nothing runs on a standby
    worker.bgw_restart_time = 1;
    strlcpy(worker.bgw_library_name, "pulse", BGW_MAXLEN);
    strlcpy(worker.bgw_function_name, "pulse_launcher_main", BGW_MAXLEN);
    strlcpy(worker.bgw_name, "pulse launcher", BGW_MAXLEN);
    strlcpy(worker.bgw_type, "pulse launcher", BGW_MAXLEN);
    RegisterBackgroundWorker(&worker);
}

} // namespace pulse::worker

extern "C" PGDLLEXPORT void
pulse_launcher_main(Datum)
{
    using namespace pulse;
    pg::CallCpp([&] {
        pg::InstallSignalHandlers();
        pg::CallPg([] {
            BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
            pg::shared->launcher_pid = MyProcPid;
            before_shmem_exit(worker::ForgetLauncher, static_cast<Datum>(0));
        });
        auto *launcher = new worker::Launcher;
        launcher->Run();
    });
}
