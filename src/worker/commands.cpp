#include "worker/commands.hpp"

#include <csignal>

#include "base/fault.hpp"
#include "pg/xact.hpp"
#include "store/pipelines.hpp"
#include "worker/discovery.hpp"
#include "worker/worker_slots.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

using pg::State;

namespace {

// PG regime.
bool
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

} // namespace

void
Commands::TakeOver()
{
    pg::CallPg([] {
        pg::LockShared();
        for (pg::Command &slot : pg::shared->commands)
            if (slot.status == pg::CommandStatus::kRunning)
                slot.status = pg::CommandStatus::kPending;
        pg::UnlockShared();
    });
}

void
Commands::Serve()
{
    for (int i = 0; i < pg::kMaxCommands; i++) {
        Running command{};
        bool is_new = pg::CallPg(
            [&] { return TakeCommand(i, &command.id, &command.kind, &command.partition); });
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
        if (AdvanceOrRefuse(&running_[i])) {
            running_.erase(running_.begin() + static_cast<long>(i));
            continue;
        }
        i++;
    }
}

void
Commands::Finish(const Running &command, const std::string &sqlstate, const std::string &message,
                 const std::string &hint)
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
Commands::BeginOrRefuse()
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
Commands::Begin(Running *command)
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
    auto entry = pipelines_->find(command->pipeline);
    if (entry == pipelines_->end()) {
        // Committed after our last look at the table, perhaps.
        read_table_();
        entry = pipelines_->find(command->pipeline);
    }
    if (entry == pipelines_->end())
        return; // Advance() reports it
    if (command->kind == pg::CommandKind::kPause || command->kind == pg::CommandKind::kStop)
        SetDesired(command, command->kind == pg::CommandKind::kPause ? "paused" : "stopped");
    if (command->is_waiting_for_workers) {
        entry->second.halts++;
        HaltWorkers(command->pipeline, command->kind == pg::CommandKind::kStop);
    }
}

void
Commands::SetDesired(Running *command, const char *state)
{
    pg::InTransaction([&] {
        pg::CallPg([&] { (void)store::SetDesiredState(command->pipeline.c_str(), state); });
    });
    auto entry = pipelines_->find(command->pipeline);
    if (entry != pipelines_->end()) {
        entry->second.desired_state = state;
        entry->second.reason.clear();
        entry->second.hint.clear();
        PublishPipeline(
            entry->second); // before the caller goes on: it may ask for the state at once
    }
}

// A command that fails on the way must not be tried for ever: its caller waits, and so would every
// command after it.
bool
Commands::AdvanceOrRefuse(Running *command)
{
    std::string sqlstate;
    std::string message;
    try {
        return Advance(command);
    } catch (const pg::Error &error) {
        sqlstate = error.sqlstate;
        message = error.message;
    }
    auto entry = pipelines_->find(command->pipeline);
    if (entry != pipelines_->end() && command->is_waiting_for_workers)
        entry->second.halts--;
    Finish(*command, sqlstate, message, "");
    return true;
}

// True when it is finished.
bool
Commands::Advance(Running *command)
{
    auto entry = pipelines_->find(command->pipeline);
    if (entry == pipelines_->end()) {
        Finish(*command, "42704", "pipeline \"" + command->pipeline + "\" does not exist", "");
        return true;
    }
    KnownPipeline *known = &entry->second;
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
Commands::Ask(Running *command, KnownPipeline *known)
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
            request.position =
                pg::CallPg([&] { return store::ParsePosition(command->argument.c_str()); });
        });
    request.id = command->id;
    request.pipeline = known->name;
    request.version = known->version;
    request.config = std::move(config.value());
    request.topics = known->topics;
    command->is_asking = true;
    watcher_->Ask(std::move(request));
    return false;
}

void
Commands::TakeWatermarks(const ingest::WatchAnswer &answer)
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
Commands::TakePositions(const ingest::WatchAnswer &answer)
{
    for (size_t i = 0; i < running_.size(); i++) {
        if (running_[i].id != answer.id)
            continue;
        Running command = running_[i];
        running_.erase(running_.begin() + static_cast<long>(i));
        auto entry = pipelines_->find(command.pipeline);
        if (entry != pipelines_->end())
            entry->second.halts--;
        MoveSeeked(command, answer);
        if (entry != pipelines_->end())
            entry->second.assignment_version = NextAssignment();
        return;
    }
}

void
Commands::MoveSeeked(const Running &command, const ingest::WatchAnswer &answer)
{
    if (!answer.error.empty()) {
        Finish(command, "08000", answer.error, "Offsets are as they were.");
        return;
    }
    for (size_t i = 0; i < answer.resolved.size(); i++) {
        const ingest::PartitionWatermarks &marks = answer.watermarks[i];
        if (answer.resolved[i].next_offset < marks.low ||
            answer.resolved[i].next_offset > marks.high) {
            Finish(command, "22023",
                   "offset " + std::to_string(answer.resolved[i].next_offset) +
                       " is not in partition " + std::to_string(marks.partition) + " of topic \"" +
                       marks.topic + "\"",
                   "Kafka holds offsets " + std::to_string(marks.low) + " to " +
                       std::to_string(marks.high) + ".");
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
                    store::SeekPartition(command.pipeline.c_str(), resolved.topic.c_str(),
                                         resolved.partition, resolved.next_offset, "seek",
                                         command.caller.c_str());
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
            pg::PartitionSlot *slot = pg::FindPartition(
                command.pipeline.c_str(), resolved.topic.c_str(), resolved.partition, true);
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

} // namespace pulse::worker
