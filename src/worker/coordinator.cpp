// The coordinator: one per server, in pulse.database, while the extension exists there and brokers are
// set. It makes the default pipeline, finds partitions, keeps watermarks fresh, carries out the commands
// of SQL functions in transactions of its own, and says which workers are wanted; the launcher starts
// them. It never blocks on the broker: its watcher thread does.
// Regime: C++ with doors; PostgreSQL calls pulse_coordinator_main.
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/fault.hpp"
#include "ingest/backoff.hpp"
#include "ingest/watcher.hpp"
#include "pg/guc.hpp"
#include "pg/wait.hpp"
#include "pg/xact.hpp"
#include "store/pipelines.hpp"
#include "worker/config.hpp"
#include "worker/process.hpp"
#include "worker/status.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

constexpr int64_t kSecond = 1000000; // TimestampTz
constexpr int64_t kProbeEvery = 5 * kSecond;
constexpr int64_t kPruneEvery = 600 * kSecond;

struct Known {
    std::string name;
    std::vector<std::string> topics;
    ConnectionSettings connection;
    std::string start_position;
    int32_t workers = 1;
    int64_t version = 0;
    std::string desired_state;
    std::string reason;
    std::string hint;

    std::map<std::pair<std::string, int32_t>, int64_t> partitions; // -> next_offset as last read
    int64_t assignment_version = 0;
    bool is_probing = false;
    int64_t probed_at = 0;
    std::string broker_error;      // of the last probe; empty = it worked
    bool has_probed = false;
    std::vector<std::string> missing_topics;
    std::string config_error;
    std::string start_error;       // why new partitions can't begin
    int halts = 0;                 // commands that need its workers gone
    bool is_present = false;       // in the table at the last look
};

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
    void
    Run()
    {
        pg::CallPg([] { TakeOverCommands(); });
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
    bool
    Step()
    {
        (void)pg::ReloadIfAsked();
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
        for (ingest::WatchAnswer &answer : watcher_.TakeAnswers())
            TakeAnswer(answer);
        ServeCommands();
        for (auto &[name, known] : pipelines_)
            Probe(&known);
        Reconcile();
        Prune();
        return true;
    }

    // ---- the tables ----

    void
    MakeDefaultPipeline()
    {
        std::string reason;
        std::string hint = "Call pulse.create_pipeline to take them over, or drop them.";
        try {
            const char *found = nullptr;
            pg::InTransaction(
                [&] { pg::CallPg([&] { (void)store::CreateDefaultPipeline(pg::guc_topic, &found); }); });
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

    void
    ReadTable()
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
            pg::CallPg([&] { ForgetSlots(name.c_str()); });
        }
    }

    void
    TakeRow(const store::PipelineRow &row)
    {
        Known &known = pipelines_[row.name];
        bool is_changed = known.version != row.version;
        if (known.assignment_version == 0)
            known.assignment_version = NextAssignment();
        known.is_present = true;
        known.name = row.name;
        known.topics = SplitLines(row.topics);
        known.connection = {row.brokers, row.group_id, row.kafka_options, row.secrets_file};
        known.start_position = row.start_position;
        known.workers = row.workers;
        known.version = row.version;
        known.desired_state = row.desired_state;
        known.reason = OrEmpty(row.reason);
        known.hint = OrEmpty(row.hint);
        if (is_changed)
            known.probed_at = 0;
    }

    void
    ReadPartitions(Known *known)
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
                pg::PartitionSlot *slot = pg::FindPartition(name, rows[i].topic, rows[i].partition, true);
                // A living owner publishes what it commits; our snapshot may be older than that.
                if (slot != nullptr && (slot->worker_pid == 0 || kill(slot->worker_pid, 0) != 0))
                    slot->next_offset = rows[i].next_offset;
            }
            pg::UnlockShared();
        });
    }

    // Different from every number an earlier coordinator gave out.
    static int64_t
    NextAssignment()
    {
        static int64_t last = 0;
        last = std::max(last + 1, GetCurrentTimestamp());
        return last;
    }

    // PG regime.
    static void
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

    // ---- the broker ----

    Result<kafka::Config>
    ConfigOf(const Known &known) const
    {
        return ConnectionConfig(known.connection, "pulse-coordinator");
    }

    void
    Probe(Known *known)
    {
        int64_t now = GetCurrentTimestamp();
        if (known->is_probing || (known->probed_at != 0 && now - known->probed_at < ProbeInterval(*known)))
            return;
        auto config = ConfigOf(*known);
        known->probed_at = now;
        known->config_error = config.ok() ? "" : config.message();
        if (!config.ok())
            return;
        known->is_probing = true;
        ingest::WatchRequest request;
        request.pipeline = known->name;
        request.config = std::move(config.value());
        request.topics = known->topics;
        watcher_.Ask(std::move(request));
    }

    // Something is awaited: look more often.
    static int64_t
    ProbeInterval(const Known &known)
    {
        return known.partitions.empty() || !known.broker_error.empty() || !known.missing_topics.empty()
                   ? kSecond / 2
                   : kProbeEvery;
    }

    void
    TakeAnswer(ingest::WatchAnswer &answer)
    {
        if (answer.kind == ingest::WatchRequest::Kind::kResolve) {
            TakeResolved(answer);
            return;
        }
        auto entry = pipelines_.find(answer.pipeline);
        if (entry != pipelines_.end())
            TakeProbe(&entry->second, answer);
        if (answer.id != 0)
            FinishWatermarks(answer);
    }

    void
    TakeProbe(Known *known, const ingest::WatchAnswer &answer)
    {
        known->is_probing = false;
        bool was_down = !known->broker_error.empty();
        known->broker_error = answer.error;
        if (was_down != !answer.error.empty())
            pg::CallPg([&] {
                if (answer.error.empty())
                    ereport(LOG, (errmsg("pulse pipeline \"%s\": broker is back", known->name.c_str())));
                else
                    ereport(LOG, (errmsg("pulse pipeline \"%s\": broker cannot be reached: %s",
                                         known->name.c_str(), answer.error.c_str())));
            });
        if (!answer.error.empty())
            return;
        known->has_probed = true;
        known->missing_topics = answer.missing_topics;
        PublishWatermarks(known->name, answer.watermarks);
        try {
            StartNewPartitions(known, answer.watermarks);
            known->start_error.clear();
        } catch (const pg::Error &error) {
            known->start_error = error.message; // a bad start_position must not hold the others up
        }
    }

    static void
    PublishWatermarks(const std::string &name, const std::vector<ingest::PartitionWatermarks> &watermarks)
    {
        pg::CallPg([&] {
            TimestampTz now = GetCurrentTimestamp();
            pg::LockShared();
            for (const ingest::PartitionWatermarks &entry : watermarks) {
                pg::PartitionSlot *slot =
                    pg::FindPartition(name.c_str(), entry.topic.c_str(), entry.partition, true);
                if (slot == nullptr)
                    continue;
                slot->low = entry.low;
                slot->high = entry.high;
                slot->watermarks_at = now;
                if (slot->next_offset >= slot->high)
                    slot->caught_up_at = now;
            }
            pg::UnlockShared();
        });
    }

    // A topic seen for the first time begins at start_position; a partition added to a known topic at
    // its beginning, for whatever is in it was written after we knew the topic.
    void
    StartNewPartitions(Known *known, const std::vector<ingest::PartitionWatermarks> &watermarks)
    {
        std::set<std::string> known_topics;
        for (const auto &[key, next_offset] : known->partitions)
            known_topics.insert(key.first);
        std::vector<ingest::PartitionWatermarks> fresh;
        for (const ingest::PartitionWatermarks &entry : watermarks)
            if (!known->partitions.contains({entry.topic, entry.partition}))
                fresh.push_back(entry);
        if (fresh.empty())
            return;
        ingest::Position position;
        pg::InTransaction([&] {
            position = pg::CallPg([&] { return store::ParsePosition(known->start_position.c_str()); });
        });
        std::vector<PartitionOffset> by_time;
        pg::InTransaction([&] {
            for (const ingest::PartitionWatermarks &entry : fresh) {
                bool is_added = known_topics.contains(entry.topic);
                if (!is_added && position.kind == ingest::Position::Kind::kTime) {
                    by_time.push_back({entry.topic, entry.partition, 0});
                    continue;
                }
                int64_t start = is_added || position.kind == ingest::Position::Kind::kEarliest ? entry.low
                                : position.kind == ingest::Position::Kind::kLatest             ? entry.high
                                                                                   : position.value;
                StartAt(*known, entry.topic, entry.partition, start, is_added ? "new partition" : "start");
            }
        });
        known->assignment_version = NextAssignment();
        if (!by_time.empty())
            ResolveStart(*known, std::move(by_time), position);
        probe_again_ = true;
    }

    static void
    StartAt(const Known &known, const std::string &topic, int32_t partition, int64_t start, const char *reason)
    {
        pg::CallPg([&] {
            if (store::StartPartition(known.name.c_str(), topic.c_str(), partition, start, reason))
                ereport(LOG, (errmsg("pulse pipeline \"%s\": partition %d of topic \"%s\" starts at offset %lld",
                                     known.name.c_str(), partition, topic.c_str(), static_cast<long long>(start))));
        });
    }

    void
    ResolveStart(const Known &known, std::vector<PartitionOffset> partitions, ingest::Position position)
    {
        auto config = ConfigOf(known);
        if (!config.ok() || resolving_start_.contains(known.name))
            return;
        resolving_start_.insert(known.name);
        ingest::WatchRequest request;
        request.kind = ingest::WatchRequest::Kind::kResolve;
        request.pipeline = known.name;
        request.config = std::move(config.value());
        request.partitions = std::move(partitions);
        request.position = position;
        watcher_.Ask(std::move(request));
    }

    void
    TakeResolved(const ingest::WatchAnswer &answer)
    {
        if (answer.id != 0) {
            FinishSeek(answer);
            return;
        }
        resolving_start_.erase(answer.pipeline);
        auto entry = pipelines_.find(answer.pipeline);
        if (entry == pipelines_.end() || !answer.error.empty())
            return; // the next probe asks again
        pg::InTransaction([&] {
            for (const PartitionOffset &resolved : answer.resolved)
                StartAt(entry->second, resolved.topic, resolved.partition, resolved.next_offset, "start");
        });
    }

    // ---- commands ----

    struct Running {
        int index;
        int64_t id;
        pg::CommandKind kind;
        std::string pipeline;
        std::string topic;
        int32_t partition;
        std::string argument;
        std::string caller;
        bool is_waiting_for_workers = false;
        bool is_asking = false;
    };

    void
    ServeCommands()
    {
        for (int i = 0; i < pg::kMaxCommands; i++) {
            Running command{};
            bool is_new = pg::CallPg([&] { return TakeCommand(i, &command.id, &command.kind, &command.partition); });
            if (!is_new)
                continue;
            const pg::Command &slot = pg::shared->commands[i];
            command.index = i;
            command.pipeline = slot.pipeline;
            command.topic = slot.topic;
            command.argument = slot.argument;
            command.caller = slot.caller;
            running_.push_back(command);
            BeginOrRefuse();
        }
        for (size_t i = 0; i < running_.size();) {
            if (Advance(&running_[i])) {
                running_.erase(running_.begin() + static_cast<long>(i));
                continue;
            }
            i++;
        }
    }

    // PG regime. What a coordinator before this one had begun is begun again: every command may run
    // twice, and its caller still waits.
    static void
    TakeOverCommands()
    {
        pg::LockShared();
        for (pg::Command &slot : pg::shared->commands)
            if (slot.status == pg::CommandStatus::kRunning)
                slot.status = pg::CommandStatus::kPending;
        pg::UnlockShared();
    }

    // PG regime.
    static bool
    TakeCommand(int index, int64_t *id, pg::CommandKind *kind, int32_t *partition)
    {
        bool is_new = false;
        pg::LockShared();
        pg::Command *slot = &pg::shared->commands[index];
        if (slot->status == pg::CommandStatus::kPending) {
            if (slot->is_abandoned) {
                slot->status = pg::CommandStatus::kFree;
            } else {
                slot->status = pg::CommandStatus::kRunning;
                *id = slot->id;
                *kind = slot->kind;
                *partition = slot->partition;
                is_new = true;
            }
        } else if (slot->status == pg::CommandStatus::kDone &&
                   (slot->is_abandoned || kill(slot->caller_pid, 0) != 0)) {
            slot->status = pg::CommandStatus::kFree;
        }
        pg::UnlockShared();
        return is_new;
    }

    void
    Finish(const Running &command, const std::string &sqlstate, const std::string &message, const std::string &hint)
    {
        pg::CallPg([&] {
            pg::LockShared();
            pg::Command *slot = &pg::shared->commands[command.index];
            pg::CopyText(slot->sqlstate, sizeof(slot->sqlstate), sqlstate.c_str());
            pg::CopyText(slot->message, sizeof(slot->message), message.c_str());
            pg::CopyText(slot->hint, sizeof(slot->hint), hint.c_str());
            int caller = slot->caller_pid;
            slot->status = slot->is_abandoned ? pg::CommandStatus::kFree : pg::CommandStatus::kDone;
            pg::UnlockShared();
            pg::WakeProcess(caller);
        });
    }

    // The newest command; when it can't even begin (a lock, say), its caller is told.
    void
    BeginOrRefuse()
    {
        std::string sqlstate;
        std::string message;
        try {
            Begin(&running_.back());
        } catch (const pg::Error &error) {
            sqlstate = error.sqlstate;
            message = error.message;
        }
        if (sqlstate.empty())
            return;
        Finish(running_.back(), sqlstate, message, "Nothing was changed.");
        running_.pop_back();
    }

    void
    Begin(Running *command)
    {
        switch (command->kind) {
        case pg::CommandKind::kPause:
        case pg::CommandKind::kStop:
        case pg::CommandKind::kSeek:
            command->is_waiting_for_workers = true;
            break;
        case pg::CommandKind::kResume:
        case pg::CommandKind::kWatermarks:
            break;
        }
        auto entry = pipelines_.find(command->pipeline);
        if (entry == pipelines_.end()) {
            // Committed after our last look at the table, perhaps.
            ReadTable();
            entry = pipelines_.find(command->pipeline);
        }
        if (entry == pipelines_.end())
            return; // Advance() reports it
        if (command->kind == pg::CommandKind::kPause || command->kind == pg::CommandKind::kStop)
            SetDesired(command, command->kind == pg::CommandKind::kPause ? "paused" : "stopped");
        if (command->is_waiting_for_workers) {
            entry->second.halts++;
            HaltWorkers(command->pipeline, command->kind == pg::CommandKind::kStop);
        }
    }

    void
    SetDesired(Running *command, const char *state)
    {
        pg::InTransaction([&] {
            pg::CallPg([&] { (void)store::SetDesiredState(command->pipeline.c_str(), state); });
        });
        auto entry = pipelines_.find(command->pipeline);
        if (entry != pipelines_.end()) {
            entry->second.desired_state = state;
            entry->second.reason.clear();
            entry->second.hint.clear();
        }
    }

    // True when it is finished.
    bool
    Advance(Running *command)
    {
        auto entry = pipelines_.find(command->pipeline);
        if (entry == pipelines_.end()) {
            Finish(*command, "42704", "pipeline \"" + command->pipeline + "\" does not exist", "");
            return true;
        }
        Known *known = &entry->second;
        if (command->is_waiting_for_workers && HasWorkers(command->pipeline))
            return false;
        switch (command->kind) {
        case pg::CommandKind::kPause:
        case pg::CommandKind::kStop:
            known->halts--;
            Finish(*command, "00000", "", "");
            return true;
        case pg::CommandKind::kResume:
            SetDesired(command, "running");
            pg::CallPg([&] { ForgiveWorkers(command->pipeline.c_str()); });
            known->probed_at = 0;
            Finish(*command, "00000", "", "");
            return true;
        case pg::CommandKind::kSeek:
        case pg::CommandKind::kWatermarks:
            if (!command->is_asking)
                return Ask(command, known);
            return false;
        }
        return true;
    }

    bool
    Ask(Running *command, Known *known)
    {
        auto config = ConfigOf(*known);
        ingest::WatchRequest request;
        if (config.ok() && command->kind == pg::CommandKind::kSeek) {
            request.kind = ingest::WatchRequest::Kind::kResolve;
            for (const auto &[key, next_offset] : known->partitions)
                if ((command->topic.empty() || command->topic == key.first) &&
                    (command->partition < 0 || command->partition == key.second))
                    request.partitions.push_back({key.first, key.second, 0});
        }
        std::string trouble = config.ok() ? "" : config.message();
        if (trouble.empty() && command->kind == pg::CommandKind::kSeek && request.partitions.empty())
            trouble = "pipeline \"" + known->name + "\" reads no such partition";
        if (!trouble.empty()) {
            if (command->kind == pg::CommandKind::kSeek)
                known->halts--;
            Finish(*command, "22023", trouble, "pulse.offsets lists the partitions.");
            return true;
        }
        if (command->kind == pg::CommandKind::kSeek)
            pg::InTransaction([&] {
                request.position = pg::CallPg([&] { return store::ParsePosition(command->argument.c_str()); });
            });
        request.id = command->id;
        request.pipeline = known->name;
        request.config = std::move(config.value());
        request.topics = known->topics;
        command->is_asking = true;
        watcher_.Ask(std::move(request));
        return false;
    }

    void
    FinishWatermarks(const ingest::WatchAnswer &answer)
    {
        for (size_t i = 0; i < running_.size(); i++) {
            if (running_[i].id != answer.id)
                continue;
            bool failed = !answer.error.empty();
            Finish(running_[i], failed ? "08000" : "00000", answer.error, "");
            running_.erase(running_.begin() + static_cast<long>(i));
            return;
        }
    }

    void
    FinishSeek(const ingest::WatchAnswer &answer)
    {
        for (size_t i = 0; i < running_.size(); i++) {
            if (running_[i].id != answer.id)
                continue;
            Running command = running_[i];
            running_.erase(running_.begin() + static_cast<long>(i));
            auto entry = pipelines_.find(command.pipeline);
            if (entry != pipelines_.end())
                entry->second.halts--;
            MoveSeeked(command, answer);
            if (entry != pipelines_.end())
                entry->second.assignment_version = NextAssignment();
            return;
        }
    }

    void
    MoveSeeked(const Running &command, const ingest::WatchAnswer &answer)
    {
        if (!answer.error.empty()) {
            Finish(command, "08000", answer.error, "Offsets are as they were.");
            return;
        }
        for (size_t i = 0; i < answer.resolved.size(); i++) {
            const ingest::PartitionWatermarks &marks = answer.watermarks[i];
            if (answer.resolved[i].next_offset < marks.low || answer.resolved[i].next_offset > marks.high) {
                Finish(command, "22023",
                       "offset " + std::to_string(answer.resolved[i].next_offset) + " is not in partition " +
                           std::to_string(marks.partition) + " of topic \"" + marks.topic + "\"",
                       "Kafka holds offsets " + std::to_string(marks.low) + " to " + std::to_string(marks.high) + ".");
                return;
            }
        }
        std::string trouble;
        std::string sqlstate;
        PULSE_FAULT("before_seek");
        try {
            pg::InTransaction([&] {
                for (const PartitionOffset &resolved : answer.resolved)
                    pg::CallPg([&] {
                        store::SeekPartition(command.pipeline.c_str(), resolved.topic.c_str(), resolved.partition,
                                             resolved.next_offset, "seek", command.caller.c_str());
                    });
            });
        } catch (const pg::Error &error) {
            sqlstate = error.sqlstate;
            trouble = error.message;
        }
        if (!sqlstate.empty()) {
            Finish(command, sqlstate, trouble, "Offsets are as they were.");
            return;
        }
        PULSE_FAULT("after_seek");
        pg::CallPg([&] {
            pg::LockShared();
            for (const PartitionOffset &resolved : answer.resolved) {
                pg::PartitionSlot *slot = pg::FindPartition(command.pipeline.c_str(), resolved.topic.c_str(),
                                                            resolved.partition, true);
                if (slot == nullptr)
                    continue;
                slot->next_offset = resolved.next_offset;
                slot->state = State::kStarting;
                slot->reason[0] = '\0';
            }
            pg::UnlockShared();
        });
        PublishWatermarks(command.pipeline, answer.watermarks);
        Finish(command, "00000", "", "");
    }

    // ---- workers ----

    void
    HaltWorkers(const std::string &name, bool must_abort)
    {
        pg::CallPg([&] {
            for (pg::ProcessSlot &slot : pg::shared->processes) {
                pg::LockShared();
                bool is_ours = slot.kind == pg::ProcessKind::kWorker && name == slot.pipeline;
                int pid = is_ours ? slot.pid : 0;
                if (is_ours) {
                    slot.is_wanted = false;
                    slot.must_abort = must_abort;
                }
                pg::UnlockShared();
                if (pid == 0)
                    continue;
                if (must_abort)
                    kill(pid, SIGINT); // cancels the statement; the batch rolls back
                pg::WakeProcess(pid);
            }
        });
    }

    static bool
    HasWorkers(const std::string &name)
    {
        for (const pg::ProcessSlot &slot : pg::shared->processes)
            if (slot.kind == pg::ProcessKind::kWorker && slot.pid != 0 && name == slot.pipeline)
                return true;
        return false;
    }

    // PG regime. A resumed pipeline does not wait out its back-off.
    static void
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
    DropWorkers()
    {
        for (auto &[name, known] : pipelines_) {
            HaltWorkers(name, true);
            pg::CallPg([&] { ForgetSlots(name.c_str()); });
        }
        pipelines_.clear();
    }

    void
    Reconcile()
    {
        for (auto &[name, known] : pipelines_) {
            bool wants = known.desired_state == "running" && known.halts == 0 && !known.partitions.empty() &&
                         known.config_error.empty();
            int count = std::min(known.workers, static_cast<int32_t>(known.partitions.size()));
            pg::CallPg([&] { WantWorkers(known, wants ? count : 0); });
            pg::CallPg([&] { PublishPipeline(known); });
        }
        pg::CallPg([this] { ReleaseStraySlots(); });
        if (std::exchange(probe_again_, false))
            pg::CallPg([] { SetLatch(MyLatch); });
    }

    // PG regime.
    void
    WantWorkers(const Known &known, int count)
    {
        bool has_new = false;
        pg::LockShared();
        for (int index = 0; index < 32; index++) {
            pg::ProcessSlot *slot = FindWorker(known.name.c_str(), index, index < count);
            if (slot == nullptr)
                continue;
            has_new = has_new || (index < count && slot->pid == 0);
            slot->is_wanted = index < count;
            slot->must_abort = false;
            slot->worker_count = Max(count, 1);
            slot->definition_version = known.version;
            slot->assignment_version = known.assignment_version * 64 + count; // a new spread, too
        }
        pg::UnlockShared();
        if (has_new)
            pg::WakeLauncher();
    }

    static pg::ProcessSlot *
    FindWorker(const char *name, int index, bool create)
    {
        pg::ProcessSlot *free_slot = nullptr;
        for (int i = 1; i < pg::kMaxProcesses; i++) {
            pg::ProcessSlot *slot = &pg::shared->processes[i];
            if (slot->kind == pg::ProcessKind::kWorker && slot->worker_index == index && strcmp(slot->pipeline, name) == 0)
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

    // PG regime. Slots of pipelines that are gone.
    void
    ReleaseStraySlots()
    {
        pg::LockShared();
        for (int i = 1; i < pg::kMaxProcesses; i++) {
            pg::ProcessSlot *slot = &pg::shared->processes[i];
            if (slot->kind != pg::ProcessKind::kWorker || pipelines_.contains(slot->pipeline))
                continue;
            slot->is_wanted = false;
            if (slot->pid == 0)
                slot->kind = pg::ProcessKind::kNone;
        }
        pg::UnlockShared();
    }

    // PG regime.
    void
    PublishPipeline(const Known &known)
    {
        State state = State::kRunning;
        std::string reason = known.reason;
        std::string hint = known.hint;
        if (known.desired_state != "running") {
            state = known.desired_state == "paused" ? State::kPaused : State::kStopped;
        } else if (!known.config_error.empty()) {
            state = State::kFailed;
            reason = known.config_error;
        } else if (!known.broker_error.empty()) {
            state = known.has_probed ? State::kRetrying : State::kStarting;
            reason = "broker cannot be reached: " + known.broker_error;
            hint = "Check pulse.brokers; the pipeline goes on by itself when the broker answers.";
        } else if (known.partitions.empty()) {
            state = State::kStarting;
            reason = !known.start_error.empty()     ? known.start_error
                     : known.missing_topics.empty() ? "looking for partitions"
                                                    : "topic \"" + known.missing_topics[0] + "\" does not exist yet";
        }
        pg::LockShared();
        pg::PipelineSlot *slot = pg::FindPipeline(known.name.c_str(), true);
        if (slot != nullptr)
            pg::SetPipelineState(slot, state, reason.c_str(), hint.c_str());
        pg::UnlockShared();
    }

    void
    Prune()
    {
        int64_t now = GetCurrentTimestamp();
        if (now - pruned_at_ < kPruneEvery)
            return;
        pruned_at_ = now;
        pg::InTransaction([] { pg::CallPg([] { store::PruneLogs(); }); });
    }

    ingest::Watcher watcher_;
    std::map<std::string, Known> pipelines_;
    std::vector<Running> running_;
    std::set<std::string> resolving_start_;
    bool is_default_waiting_ = false;
    bool probe_again_ = false;
    int64_t pruned_at_ = 0;
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
