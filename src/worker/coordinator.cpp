// The coordinator: one per server, in pulse.database, while the extension exists there and brokers
// are set. It makes the default pipeline, finds partitions, keeps watermarks fresh, carries out the
// commands of SQL functions in transactions of its own, and says which workers are wanted; the
// launcher starts them. It never blocks on the broker: its watcher thread does. Regime: C++ with
// doors; PostgreSQL calls pulse_coordinator_main.
#include <csignal>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/fault.hpp"
#include "ingest/backoff.hpp"
#include "ingest/watcher.hpp"
#include "pg/guc.hpp"
#include "pg/wait.hpp"
#include "pg/xact.hpp"
#include "store/outbox.hpp"
#include "store/pipelines.hpp"
#include "store/positions.hpp"
#include "worker/commands.hpp"
#include "worker/discovery.hpp"
#include "worker/lost_offsets.hpp"
#include "worker/process.hpp"
#include "worker/status.hpp"
#include "worker/upkeep.hpp"
#include "worker/worker_slots.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

constexpr int64_t kSecond = 1000000; // TimestampTz
constexpr int64_t kPruneEvery = 600 * kSecond;

std::vector<std::string>
SplitLines(const char *text)
{
    std::vector<std::string> lines;
    std::string line;
    for (; *text != '\0'; text++) {
        if (*text != '\n') {
            line += *text;
            continue;
        }
        lines.push_back(line);
        line.clear();
    }
    if (!line.empty())
        lines.push_back(line);
    return lines;
}

std::string
OrEmpty(const char *text)
{
    return text == nullptr ? "" : text;
}

class Coordinator {
  public:
    void Run()
    {
        commands_.TakeOver();
        while (my_slot->is_wanted) {
            try {
                if (!Step())
                    break;
                backoff_.Reset();
                my_slot->failure_count = 0;
                SetState(State::kRunning, "", "", 0);
                pg::Wait(watcher_.fd(), 500);
                continue;
            } catch (const pg::Error &error) {
                trouble_ = error.sqlstate + " " + error.message;
            }
            SetState(State::kRetrying, trouble_, "", 0);
            pg::Wait(-1, backoff_.NextMs());
        }
        SetPhase(Phase::kExiting);
    }

  private:
    // False when the extension is gone: then nothing is left to do here.
    bool Step()
    {
        Beat();
        if (pg::ReloadIfAsked())
            upkeep_.Hurry();
        pg::CheckInterrupts();
        bool exists = false;
        pg::InTransaction([&] { exists = pg::CallPg([] { return store::ExtensionExists(); }); });
        pg::CallPg([&] {
            pg::LockShared();
            pg::shared->extension_seen = exists;
            pg::UnlockShared();
        });
        if (!exists) {
            DropWorkers();
            return false;
        }
        MakeDefaultPipeline();
        ReadTable();
        if (std::exchange(is_first_look_, false))
            ForgetStrays(pipelines_);
        TakeAnswers();
        commands_.Serve();
        for (auto &[name, known] : pipelines_)
            discovery_.Probe(&known);
        for (auto &[name, known] : pipelines_)
            lost_offsets_.Judge(&known);
        Reconcile();
        sender_wish_.Tick();
        Prune();
        upkeep_.Tick();
        return true;
    }

    // ---- the tables ----

    void MakeDefaultPipeline()
    {
        std::string reason;
        std::string hint = "Call pulse.create_pipeline to take them over, or drop them.";
        try {
            const char *found = nullptr;
            pg::InTransaction([&] {
                pg::CallPg([&] { (void)store::CreateDefaultPipeline(pg::guc_topic, &found); });
            });
            reason = OrEmpty(found);
        } catch (const pg::Error &error) {
            reason = "the default pipeline cannot be made: " + error.message; // the others go on
            hint = error.hint;
        }
        if (reason.empty() && !is_default_waiting_)
            return;
        is_default_waiting_ = !reason.empty();
        pg::CallPg([&] {
            pg::LockShared();
            pg::PipelineSlot *slot = pg::FindPipeline("events", !reason.empty());
            if (slot != nullptr && !reason.empty())
                pg::SetPipelineState(slot, State::kStarting, reason.c_str(), hint.c_str());
            else if (slot != nullptr && !pipelines_.contains("events"))
                slot->is_used = false;
            pg::UnlockShared();
        });
    }

    void ReadTable()
    {
        for (auto &[name, known] : pipelines_)
            known.is_present = false;
        pg::InTransaction([&] {
            store::PipelineRow *rows = nullptr;
            int count = pg::CallPg([&] { return store::ReadPipelines(&rows); });
            for (int i = 0; i < count; i++)
                TakeRow(rows[i]);
            for (auto &[name, known] : pipelines_)
                if (known.is_present)
                    ReadPartitions(&known);
        });
        std::vector<std::string> gone;
        for (auto &[name, known] : pipelines_)
            if (!known.is_present)
                gone.push_back(name);
        for (const std::string &name : gone) {
            pipelines_.erase(name);
            watcher_.Forget(name);
            pg::CallPg([&] { ForgetSlots(name.c_str()); });
        }
    }

    void TakeRow(const store::PipelineRow &row)
    {
        KnownPipeline &known = pipelines_[row.name];
        bool is_changed = known.version != row.version;
        if (known.assignment_version == 0)
            known.assignment_version = NextAssignment();
        known.is_present = true;
        known.name = row.name;
        known.topics = SplitLines(row.topics);
        known.connection = {row.brokers, row.group_id, row.kafka_options, row.secrets_file};
        known.start_position = row.start_position;
        known.on_offset_lost = row.on_offset_lost;
        known.workers = row.workers;
        known.version = row.version;
        known.desired_state = row.desired_state;
        known.reason = OrEmpty(row.reason);
        known.hint = OrEmpty(row.hint);
        if (is_changed) {
            upkeep_.Hurry();
            known.probed_at = 0;
            known.is_probing = known.is_judging =
                false; // the answer under way is about what it was
        }
    }

    void ReadPartitions(KnownPipeline *known)
    {
        store::PartitionRow *rows = nullptr;
        const char *name = known->name.c_str();
        int count = pg::CallPg([&] { return store::ReadPartitions(name, &rows); });
        std::map<std::pair<std::string, int32_t>, int64_t> found;
        for (int i = 0; i < count; i++)
            found[{rows[i].topic, rows[i].partition}] = rows[i].next_offset;
        bool is_changed = found.size() != known->partitions.size();
        for (const auto &[key, next_offset] : found)
            is_changed = is_changed || !known->partitions.contains(key);
        known->partitions = std::move(found);
        if (is_changed)
            known->assignment_version = NextAssignment();
        pg::CallPg([&] {
            pg::LockShared();
            for (int i = 0; i < count; i++) {
                pg::PartitionSlot *slot =
                    pg::FindPartition(name, rows[i].topic, rows[i].partition, true);
                // A living owner publishes what it commits; our snapshot may be older than that.
                if (slot != nullptr && (slot->worker_pid == 0 || kill(slot->worker_pid, 0) != 0))
                    slot->next_offset = rows[i].next_offset;
            }
            pg::UnlockShared();
        });
    }

    // One that cannot be used (a lock, say) must not take the others along: somebody waits for
    // each.
    void TakeAnswers()
    {
        pg::Error trouble;
        for (const ingest::WatchAnswer &answer : watcher_.TakeAnswers()) {
            try {
                TakeAnswer(answer);
            } catch (const pg::Error &error) {
                trouble = error;
            }
        }
        if (!trouble.sqlstate.empty())
            throw trouble;
    }

    void TakeAnswer(const ingest::WatchAnswer &answer)
    {
        auto entry = pipelines_.find(answer.pipeline);
        KnownPipeline *known = entry == pipelines_.end() ? nullptr : &entry->second;
        if (known != nullptr && known->version != answer.version)
            known = nullptr; // it is about an earlier one
        bool is_command = answer.id != 0;
        if (answer.kind == ingest::WatchRequest::Kind::kJudge) {
            if (known != nullptr)
                lost_offsets_.TakeAnswer(known, answer);
            return;
        }
        if (answer.kind == ingest::WatchRequest::Kind::kRead) {
            commands_.TakeRecord(answer);
            return;
        }
        if (answer.kind == ingest::WatchRequest::Kind::kResolve) {
            if (is_command)
                commands_.TakePositions(answer);
            else
                discovery_.TakeStart(known, answer);
            return;
        }
        if (known != nullptr)
            discovery_.TakeProbe(known, answer);
        if (is_command)
            commands_.TakeWatermarks(answer);
    }

    // ---- workers ----

    void DropWorkers()
    {
        for (auto &[name, known] : pipelines_) {
            HaltWorkers(name, true);
            watcher_.Forget(name);
        }
        pipelines_.clear();
        sender_wish_.Withdraw();
        // Also those that an earlier coordinator wanted.
        ReleaseStraySlots(pipelines_);
        ForgetStrays(pipelines_);
    }

    void Reconcile()
    {
        for (auto &[name, known] : pipelines_) {
            // Settings that are bad now (a secrets file being replaced, say) end no worker that
            // runs.
            bool wants = known.desired_state == "running" && known.halts == 0 &&
                         !known.partitions.empty() &&
                         (known.config_error.empty() || HasWorkers(name));
            int count = std::min(known.workers, static_cast<int32_t>(known.partitions.size()));
            WantWorkers(&known, wants ? count : 0);
            PublishPipeline(known);
        }
        ReleaseStraySlots(pipelines_);
    }

    void Prune()
    {
        int64_t now = GetCurrentTimestamp();
        if (now - pruned_at_ >= kPruneEvery) {
            pruned_at_ = now;
            prune_outbox_at_ = now;
            pg::InTransaction([] { pg::CallPg([] { store::PruneLogs(); }); });
            try {
                pg::InTransaction([] { pg::CallPg([] { store::AddUpReplays(); }); });
            } catch (const pg::Error &error) {
                if (error.sqlstate != "55P03") // somebody has locked the table: next time
                    throw;
            }
        }
        if (now < prune_outbox_at_)
            return;
        prune_outbox_at_ = INT64_MAX;
        bool may_be_more = true;
        try {
            pg::InTransaction(
                [&] { may_be_more = pg::CallPg([] { return store::PruneOutbox(); }); });
        } catch (const pg::Error &) {
            // Somebody has locked the table.
        }
        if (may_be_more) // a little every second: nobody is to wait long for us
            prune_outbox_at_ = now + kSecond;
    }

    ingest::Watcher watcher_;
    KnownPipelines pipelines_;
    Discovery discovery_{&watcher_};
    LostOffsets lost_offsets_{&watcher_};
    Commands commands_{&pipelines_, &watcher_, [this] { ReadTable(); }};
    bool is_default_waiting_ = false;
    bool is_first_look_ = true;
    int64_t pruned_at_ = 0;
    int64_t prune_outbox_at_ = INT64_MAX;
    SenderWish sender_wish_;
    Upkeep upkeep_;
    ingest::Backoff backoff_{200, 10000, static_cast<uint64_t>(MyProcPid)};
    std::string trouble_;
};

} // namespace

} // namespace pulse::worker

extern "C" PGDLLEXPORT void
pulse_coordinator_main(Datum argument)
{
    using namespace pulse;
    pg::CallCpp([&] {
        if (!worker::StartProcess(DatumGetInt32(argument)))
            return;
        worker::LeaveWithoutCleanup();
        auto *running = new worker::Coordinator; // never destroyed: see pulse_worker_main
        running->Run();
    });
    proc_exit(0);
}
