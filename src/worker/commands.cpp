#include "worker/commands.hpp"

#include <csignal>

#include "base/fault.hpp"
#include "pg/xact.hpp"
#include "store/pipelines.hpp"
#include "store/positions.hpp"
#include "worker/lost_offsets.hpp"
#include "worker/worker_slots.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

using pg::State;

namespace {

constexpr int64_t kShortWaitUs = 1000000;
constexpr const char *kForce = "force";

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
        command.begun_at = GetCurrentTimestamp();
        running_.push_back(command);
        if (!OrRefuse(running_.back(), "Nothing was changed.", [this] { Begin(&running_.back()); }))
            running_.pop_back();
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

// False when the step failed (a lock, say), and the caller has been told: tried for ever, its
// caller would wait, and so would every command after it.
bool
Commands::OrRefuse(const Running &command, const char *hint, const std::function<void()> &step)
{
    pg::Error trouble;
    try {
        step();
        return true;
    } catch (const pg::Error &error) {
        trouble = error;
    }
    Finish(command, trouble.sqlstate, trouble.message, hint);
    return false;
}

void
Commands::Begin(Running *command)
{
    switch (command->kind) {
    case pg::CommandKind::kPause:
    case pg::CommandKind::kStop:
    case pg::CommandKind::kSeek:
    case pg::CommandKind::kSkip:
        command->is_waiting_for_workers = true;
        break;
    case pg::CommandKind::kAcceptGap: // the other partitions go on
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
        SetDesired(*command, command->kind == pg::CommandKind::kPause ? "paused" : "stopped");
    if (command->is_waiting_for_workers) {
        entry->second.halts++;
        // The record to skip may be the one that a batch in flight never gets past.
        HaltWorkers(command->pipeline, command->kind == pg::CommandKind::kStop ||
                                           command->kind == pg::CommandKind::kSkip);
    }
}

void
Commands::SetDesired(const Running &command, const char *state)
{
    pg::InTransaction([&] {
        pg::CallPg([&] { (void)store::SetDesiredState(command.pipeline.c_str(), state); });
    });
    PublishDesired(command, state);
}

void
Commands::PublishDesired(const Running &command, const char *state)
{
    auto entry = pipelines_->find(command.pipeline);
    if (entry != pipelines_->end()) {
        entry->second.desired_state = state;
        entry->second.reason.clear();
        entry->second.hint.clear();
        PublishPipeline(
            entry->second); // before the caller goes on: it may ask for the state at once
    }
}

// True when it is finished.
bool
Commands::AdvanceOrRefuse(Running *command)
{
    bool is_finished = false;
    if (OrRefuse(*command, "", [&] { is_finished = Advance(command); }))
        return is_finished;
    auto entry = pipelines_->find(command->pipeline);
    if (entry != pipelines_->end())
        LetGo(*command, &entry->second);
    return true;
}

// Nobody waits for it any more: cancelled, or its session is gone.
bool
Commands::IsGivenUp(const Running &command)
{
    const pg::Command &slot = pg::shared->commands[command.index];
    return slot.is_abandoned || kill(slot.caller_pid, 0) != 0;
}

// Its workers may come back, as far as this command is concerned.
void
Commands::LetGo(const Running &command, KnownPipeline *known)
{
    if (!command.is_waiting_for_workers)
        return;
    known->halts--;
    known->halt_reason.clear();
    known->halt_hint.clear();
}

void
Commands::WaitForWorkers(const Running &command, KnownPipeline *known)
{
    if (GetCurrentTimestamp() - command.begun_at < kShortWaitUs)
        return;
    std::string pid = std::to_string(AnyWorker(command.pipeline));
    known->halt_reason = "a command of " + command.caller + " waits for worker process " + pid;
    known->halt_hint = "It goes when its batch is written. Cancel the command to let the pipeline "
                       "go on; pg_terminate_backend(" +
                       pid + ") ends the worker.";
}

// True when it is finished.
bool
Commands::Advance(Running *command)
{
    auto entry = pipelines_->find(command->pipeline);
    if (entry == pipelines_->end()) {
        Finish(*command, "42704", "pipeline \"" + command->pipeline + "\" does not exist",
               "pulse.pipelines lists those there are.");
        return true;
    }
    KnownPipeline *known = &entry->second;
    if (IsGivenUp(*command)) {
        LetGo(*command, known);
        Finish(*command, "57014", "", "");
        return true;
    }
    if (command->is_waiting_for_workers && HasWorkers(command->pipeline)) {
        WaitForWorkers(*command, known);
        return false;
    }
    switch (command->kind) {
    case pg::CommandKind::kPause:
    case pg::CommandKind::kStop:
        LetGo(*command, known);
        Finish(*command, "00000", "", "");
        return true;
    case pg::CommandKind::kResume:
        if (command->argument == kForce)
            return command->is_asking ? false : Ask(command, known);
        SetDesired(*command, "running");
        Resumed(*command, known);
        return true;
    case pg::CommandKind::kAcceptGap:
        if (!command->is_asking &&
            IsWritingBeforeLoss(command->pipeline, command->topic, command->partition))
            return false;
        [[fallthrough]];
    case pg::CommandKind::kSeek:
    case pg::CommandKind::kSkip:
    case pg::CommandKind::kWatermarks:
        if (!command->is_asking)
            return Ask(command, known);
        return false;
    }
    return true;
}

void
Commands::Resumed(const Running &command, KnownPipeline *known)
{
    pg::CallPg([&] { ForgiveWorkers(command.pipeline.c_str()); });
    known->probed_at = 0;
    Finish(command, "00000", "", "");
}

// resume(name, force => true): the ends of the log are known now.
void
Commands::AcceptRejects(const Running &command, const ingest::WatchAnswer &answer)
{
    auto entry = pipelines_->find(command.pipeline);
    if (entry == pipelines_->end()) {
        Finish(command, "42704", "pipeline \"" + command.pipeline + "\" does not exist", "");
        return;
    }
    bool is_done = ChangeOrRefuse(command, [&] {
        pg::CallPg([&] {
            for (const ingest::PartitionWatermarks &marks : answer.watermarks)
                store::AcceptRejects(command.pipeline.c_str(), marks, command.caller.c_str());
            (void)store::SetDesiredState(command.pipeline.c_str(), "running");
        });
    });
    if (!is_done)
        return;
    entry->second.assignment_version = NextAssignment(); // a worker that runs reads it, too
    PublishDesired(command, "running");
    Resumed(command, &entry->second);
}

void
Commands::TakeWatermarks(const ingest::WatchAnswer &answer)
{
    Running command;
    if (!TakeAsking(answer.id, &command))
        return;
    if (!answer.error.empty())
        Finish(command, "08000", answer.error, "Nothing was changed.");
    else if (!answer.troubles.empty()) // it is about all partitions
        Finish(command, "08000", ingest::Describe(answer.troubles.front()), "Nothing was changed.");
    else if (command.kind == pg::CommandKind::kResume)
        AcceptRejects(command, answer);
    else
        Finish(command, "00000", "", "");
}

} // namespace pulse::worker
