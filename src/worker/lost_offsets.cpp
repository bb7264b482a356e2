#include "worker/lost_offsets.hpp"

#include <csignal>

#include "base/fault.hpp"
#include "pg/shmem.hpp"
#include "pg/xact.hpp"
#include "store/positions.hpp"
#include "worker/discovery.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

using pg::State;

// Shared memory, under the lock.
bool
IsWaitingForWriter(const pg::PartitionSlot &slot)
{
    return slot.worker_pid != 0 && kill(slot.worker_pid, 0) == 0 &&
           (slot.state == State::kOffsetLost || slot.state == State::kTopicChanged) &&
           slot.next_offset < slot.lost_offset;
}

// The lost partitions that are due; next_offset is where reading stopped.
std::vector<PartitionOffset>
UnjudgedOf(const std::string &pipeline)
{
    int found[pg::kMaxPartitions];
    int count = 0;
    pg::CallPg([&] {
        pg::LockSharedForRead();
        for (int i = 0; i < pg::kMaxPartitions; i++) {
            const pg::PartitionSlot &slot = pg::shared->partitions[i];
            if (slot.is_used && slot.state == State::kOffsetLost && !slot.is_judged &&
                pipeline == slot.pipeline)
                found[count++] = i;
        }
        pg::UnlockShared();
    });
    std::vector<PartitionOffset> list;
    for (int i = 0; i < count; i++) {
        const pg::PartitionSlot &slot = pg::shared->partitions[found[i]];
        list.push_back({slot.topic, slot.partition, slot.lost_offset, {}});
    }
    return list;
}

// The record before each of them tells whether it is the same log, also where it has grown beyond.
void
AddLastRecords(const std::string &pipeline, std::vector<PartitionOffset> *partitions)
{
    pg::InTransaction([&] {
        store::PartitionRow *rows = nullptr;
        int count = pg::CallPg([&] { return store::ReadPartitions(pipeline.c_str(), &rows); });
        for (int i = 0; i < count; i++)
            for (PartitionOffset &partition : *partitions)
                if (partition.topic == rows[i].topic && partition.partition == rows[i].partition)
                    partition.last = rows[i].last;
    });
}

struct Verdict {
    State state;
    bool is_judged;
};

void
PublishVerdict(const std::string &pipeline, const ingest::PartitionWatermarks &marks,
               Verdict verdict)
{
    pg::CallPg([&] {
        pg::LockShared();
        pg::PartitionSlot *slot =
            pg::FindPartition(pipeline.c_str(), marks.topic.c_str(), marks.partition, false);
        bool has_changed =
            slot != nullptr && slot->state == State::kOffsetLost && verdict.state != slot->state;
        if (slot != nullptr && slot->state == State::kOffsetLost) {
            slot->state = verdict.state;
            slot->is_judged = verdict.is_judged;
            slot->low = marks.low;
            slot->high = marks.high;
        }
        pg::UnlockShared();
        if (has_changed)
            ereport(WARNING, (errmsg("pulse pipeline \"%s\": partition %d of topic \"%s\" is "
                                     "topic_changed: the log ends at offset %lld",
                                     pipeline.c_str(), marks.partition, marks.topic.c_str(),
                                     static_cast<long long>(marks.high))));
    });
}

void
GoOn(const KnownPipeline &known, const PartitionOffset &to, int64_t low)
{
    std::string caller = "on_offset_lost = " + known.on_offset_lost;
    pg::InTransaction([&] {
        PULSE_FAULT("before_lost_moves");
        pg::CallPg([&] {
            store::MovePartition(known.name.c_str(), to,
                                 {false, low, "on_offset_lost", "offset lost", caller.c_str()});
            ereport(LOG, (errmsg("pulse pipeline \"%s\": partition %d of topic \"%s\" goes on "
                                 "at offset %lld (%s)",
                                 known.name.c_str(), to.partition, to.topic.c_str(),
                                 static_cast<long long>(to.next_offset), caller.c_str()),
                          errhint("pulse.gaps has what was lost.")));
        });
    });
}

// As it was when the broker was asked.
bool
IsStillLost(const KnownPipeline &known, const std::string &topic, int32_t partition)
{
    int64_t asked = -1;
    for (const PartitionOffset &judged : known.judging)
        if (judged.topic == topic && judged.partition == partition)
            asked = judged.next_offset;
    return pg::CallPg([&] {
        pg::LockSharedForRead();
        const pg::PartitionSlot *slot =
            pg::FindPartition(known.name.c_str(), topic.c_str(), partition, false);
        bool is_lost =
            slot != nullptr && slot->state == State::kOffsetLost && slot->lost_offset == asked;
        pg::UnlockShared();
        return is_lost;
    });
}

} // namespace

bool
IsWritingBeforeLoss(const std::string &pipeline, const std::string &topic, int32_t partition)
{
    return pg::CallPg([&] {
        pg::LockSharedForRead();
        const pg::PartitionSlot *slot =
            pg::FindPartition(pipeline.c_str(), topic.c_str(), partition, false);
        bool is_writing = slot != nullptr && IsWaitingForWriter(*slot);
        pg::UnlockShared();
        return is_writing;
    });
}

void
LostOffsets::Judge(KnownPipeline *known)
{
    // An operator who moves offsets comes first; what is lost afterwards is judged then.
    if (known->is_judging || known->desired_state != "running" || known->halts > 0)
        return;
    std::vector<PartitionOffset> partitions = UnjudgedOf(known->name);
    auto config = ConfigOf(*known);
    if (partitions.empty() || !config.ok())
        return;
    AddLastRecords(known->name, &partitions);
    known->is_judging = true;
    known->judging = partitions;
    ingest::WatchRequest request;
    request.kind = ingest::WatchRequest::Kind::kJudge;
    request.pipeline = known->name;
    request.version = known->version;
    request.config = std::move(config.value());
    request.partitions = std::move(partitions);
    request.position.kind = known->on_offset_lost == "latest" ? ingest::Position::Kind::kLatest
                                                              : ingest::Position::Kind::kEarliest;
    watcher_->Ask(std::move(request));
}

namespace {

void
TakeVerdict(KnownPipeline *known, const ingest::WatchAnswer &answer, size_t i)
{
    const ingest::PartitionWatermarks &marks = answer.watermarks[i];
    if (!IsStillLost(*known, marks.topic, marks.partition))
        return; // an operator was quicker
    bool is_another = answer.logs[i] == ingest::LogIdentity::kAnother;
    bool goes_on = !is_another && known->on_offset_lost != "stop";
    if (goes_on && IsWritingBeforeLoss(known->name, marks.topic, marks.partition))
        return; // asked again
    if (goes_on)
        GoOn(*known, answer.resolved[i], marks.low);
    PublishVerdict(known->name, marks,
                   {is_another ? State::kTopicChanged : State::kOffsetLost, true});
    if (goes_on)
        known->assignment_version = NextAssignment();
}

} // namespace

void
LostOffsets::TakeAnswer(KnownPipeline *known, const ingest::WatchAnswer &answer)
{
    known->is_judging = false;
    if (!answer.error.empty() || known->halts > 0)
        return; // asked again
    pg::Error trouble;
    for (size_t i = 0; i < answer.resolved.size(); i++) {
        try {
            TakeVerdict(known, answer, i);
        } catch (const pg::Error &error) {
            trouble = error; // asked again; the others are judged
        }
    }
    if (!trouble.sqlstate.empty())
        throw trouble;
}

} // namespace pulse::worker
