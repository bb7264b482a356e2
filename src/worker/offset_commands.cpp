// Those commands that move offsets: seek, accept_gap, skip. They ask the broker first, what it
// answers comes to TakePositions() and TakeRecord().
#include "base/fault.hpp"
#include "pg/xact.hpp"
#include "store/positions.hpp"
#include "worker/commands.hpp"
#include "worker/discovery.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

using pg::State;

namespace {

std::string
NameOf(const std::string &topic, int32_t partition)
{
    return "partition " + std::to_string(partition) + " of topic \"" + topic + "\"";
}

// The argument of a skip: which record, and what its caller found out about it.
struct Wanted {
    int64_t kafka_offset = -1;
    store::RowLook look = {false, -1, store::kAnyTimestamp};
};

Wanted
WantedOf(const std::string &argument)
{
    Wanted wanted;
    char *rest = nullptr;
    wanted.kafka_offset = strtoll(argument.c_str(), &rest, 10);
    wanted.look.records = strtoll(rest, &rest, 10);
    wanted.look.is_row = strtoll(rest, &rest, 10) == 1;
    wanted.look.timestamp_ms = strtoll(rest, &rest, 10);
    return wanted;
}

void
PublishMoved(const std::string &pipeline, const std::vector<PartitionOffset> &partitions)
{
    pg::CallPg([&] {
        pg::LockShared();
        for (const PartitionOffset &moved : partitions) {
            pg::PartitionSlot *slot =
                pg::FindPartition(pipeline.c_str(), moved.topic.c_str(), moved.partition, true);
            if (slot == nullptr)
                continue;
            slot->next_offset = moved.next_offset;
            slot->state = State::kStarting;
            slot->reason[0] = '\0';
        }
        pg::UnlockShared();
    });
}

} // namespace

// Those that the command is about, as the table has them now.
std::vector<PartitionOffset>
Commands::PartitionsOf(Running *command)
{
    std::vector<PartitionOffset> list;
    pg::InTransaction([&] {
        store::PartitionRow *rows = nullptr;
        int count =
            pg::CallPg([&] { return store::ReadPartitions(command->pipeline.c_str(), &rows); });
        for (int i = 0; i < count; i++)
            if ((command->topic.empty() || command->topic == rows[i].topic) &&
                (command->partition < 0 || command->partition == rows[i].partition))
                list.push_back(
                    {rows[i].topic, rows[i].partition, rows[i].highest_offset, rows[i].last}),
                    command->next_offset = rows[i].next_offset;
    });
    return list;
}

bool
Commands::Ask(Running *command, KnownPipeline *known)
{
    auto config = ConfigOf(*known);
    ingest::WatchRequest request;
    bool is_about_partitions =
        command->kind != pg::CommandKind::kWatermarks && command->kind != pg::CommandKind::kResume;
    if (config.ok() && is_about_partitions) {
        request.kind = command->kind == pg::CommandKind::kSkip
                           ? ingest::WatchRequest::Kind::kRead
                           : ingest::WatchRequest::Kind::kResolve;
        request.partitions = PartitionsOf(command);
    }
    if (command->kind == pg::CommandKind::kSkip && !request.partitions.empty())
        request.partitions.front().next_offset = WantedOf(command->argument).kafka_offset;
    std::string trouble = config.ok() ? "" : config.message();
    if (trouble.empty() && is_about_partitions && request.partitions.empty())
        trouble = "pipeline \"" + known->name + "\" reads no such partition";
    if (!trouble.empty()) {
        LetGo(*command, known);
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

// The command that the answer is for; its workers may come back. False when nobody waits for it.
bool
Commands::TakeAsking(int64_t id, Running *command)
{
    for (size_t i = 0; i < running_.size(); i++) {
        if (running_[i].id != id)
            continue;
        *command = running_[i];
        running_.erase(running_.begin() + static_cast<long>(i));
        auto entry = pipelines_->find(command->pipeline);
        if (entry != pipelines_->end())
            LetGo(*command, &entry->second);
        return true;
    }
    return false;
}

void
Commands::TakePositions(const ingest::WatchAnswer &answer)
{
    Running command;
    if (!TakeAsking(answer.id, &command))
        return;
    if (command.kind == pg::CommandKind::kAcceptGap)
        AcceptGap(command, answer);
    else
        MoveSeeked(command, answer);
    AssignAgain(command.pipeline);
}

void
Commands::AssignAgain(const std::string &pipeline)
{
    auto entry = pipelines_->find(pipeline);
    if (entry != pipelines_->end())
        entry->second.assignment_version = NextAssignment();
}

// Runs change() in a transaction; false when it failed, and the caller has been told, or when the
// caller has given up while the broker was asked.
bool
Commands::ChangeOrRefuse(const Running &command, const std::function<void()> &change)
{
    if (IsGivenUp(command)) {
        Finish(command, "57014", "", "");
        return false;
    }
    return OrRefuse(command, "Offsets are as they were.", [&] { pg::InTransaction(change); });
}

void
Commands::AcceptGap(const Running &command, const ingest::WatchAnswer &answer)
{
    if (!answer.error.empty()) {
        Finish(command, "08000", answer.error, "Offsets are as they were.");
        return;
    }
    const ingest::PartitionWatermarks &marks = answer.watermarks.front();
    bool is_another = answer.logs.front() == ingest::LogIdentity::kAnother;
    if (!is_another && command.next_offset >= marks.low) {
        Finish(command, "55000",
               NameOf(marks.topic, marks.partition) + " has lost nothing: Kafka holds offsets " +
                   std::to_string(marks.low) + " to " + std::to_string(marks.high),
               "pulse.stat_partition has its state; pulse.skip passes over a single record.");
        return;
    }
    bool is_done = ChangeOrRefuse(command, [&] {
        pg::CallPg([&] {
            store::MovePartition(
                command.pipeline.c_str(), {marks.topic, marks.partition, marks.low},
                {is_another, marks.low, "accept_gap", "offset lost", command.caller.c_str()});
        });
    });
    if (!is_done)
        return;
    PublishMoved(command.pipeline, {{marks.topic, marks.partition, marks.low}});
    Finish(command, "00000", "", "");
}

// pulse.skip(): the record that was read.
void
Commands::TakeRecord(const ingest::WatchAnswer &answer)
{
    Running command;
    if (!TakeAsking(answer.id, &command))
        return;
    AssignAgain(command.pipeline);
    int64_t wanted = WantedOf(command.argument).kafka_offset;
    std::string where = NameOf(command.topic, command.partition);
    const ingest::FetchedRecord &record = answer.record;
    if (!answer.error.empty())
        Finish(command, "08000", answer.error, "Offsets are as they were.");
    else if (wanted < command.next_offset)
        Finish(command, "55000",
               "offset " + std::to_string(wanted) + " of " + where + " is behind next_offset " +
                   std::to_string(command.next_offset),
               "It is a row, a dead letter or a duplicate already.");
    else if (!record.is_found || wanted != record.kafka_offset)
        Finish(command, "22023",
               "offset " + std::to_string(wanted) + " of " + where + " holds no record",
               record.is_found
                   ? "The next one is at offset " + std::to_string(record.kafka_offset) + "."
                   : "pulse.stat_partition has the end of the partition.");
    else if (record.is_too_large && wanted != command.next_offset)
        Finish(command, "55000",
               "the record at offset " + std::to_string(wanted) + " of " + where +
                   " cannot be fetched, and it is not the next one",
               "It can be skipped once the pipeline has come to it.");
    else
        Skip(command, record, record.is_too_large ? "too_large_to_fetch" : "skipped");
}

void
Commands::Skip(const Running &command, const ingest::FetchedRecord &record, const char *error_code)
{
    bool is_expected = false;
    bool is_done = ChangeOrRefuse(command, [&] {
        is_expected = pg::CallPg([&] {
            return store::SkipRecord(
                command.pipeline.c_str(), {command.topic, command.partition, command.next_offset},
                WantedOf(command.argument).look, record, error_code, command.caller.c_str());
        });
    });
    if (!is_done)
        return;
    if (!is_expected) {
        Finish(command, "40001", "the partition has moved meanwhile", "Try again.");
        return;
    }
    if (record.kafka_offset == command.next_offset)
        PublishMoved(command.pipeline,
                     {{command.topic, command.partition, record.kafka_offset + 1}});
    Finish(command, "00000", "", "");
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
    PULSE_FAULT("before_seek");
    bool is_done = ChangeOrRefuse(command, [&] {
        for (size_t i = 0; i < answer.resolved.size(); i++)
            pg::CallPg([&] {
                store::MovePartition(command.pipeline.c_str(), answer.resolved[i],
                                     {answer.logs[i] == ingest::LogIdentity::kAnother,
                                      answer.watermarks[i].low, "seek", "seek",
                                      command.caller.c_str()});
            });
    });
    if (!is_done)
        return;
    PULSE_FAULT("after_seek");
    PublishMoved(command.pipeline, answer.resolved);
    PublishWatermarks(command.pipeline, answer.watermarks);
    Finish(command, "00000", "", "");
}

} // namespace pulse::worker
