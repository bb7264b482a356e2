#include "worker/publish.hpp"

#include "store/time.hpp"
#include "worker/status.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

void
PublishRange(const PipelineState &pipeline, const ingest::Batch &batch, const ingest::Range &range,
             int64_t now)
{
    const store::OwnedPartition *owned = pipeline.Find(range.topic, range.partition);
    pg::PartitionSlot *slot =
        pg::FindPartition(my_slot->pipeline, range.topic.c_str(), range.partition, true);
    if (slot == nullptr || owned == nullptr)
        return;
    slot->next_offset = owned->next_offset;
    slot->worker_pid = MyProcPid;
    // What was read before the trouble still commits; PublishBack() or a new assignment ends it.
    if (slot->state == State::kStarting)
        slot->state = State::kRunning;
    if (range.high_watermark > slot->high) {
        slot->high = range.high_watermark;
        slot->watermarks_at = now;
    }
    if (slot->next_offset >= slot->high)
        slot->caught_up_at = now;
    for (auto record = batch.records.rbegin(); record != batch.records.rend(); ++record) {
        if (&batch.ranges[record->range_index] != &range)
            continue;
        if (store::IsStorableMs(record->timestamp_ms))
            slot->last_kafka_timestamp = store::FromUnixMs(record->timestamp_ms);
        break;
    }
}

} // namespace

void
PublishPartitions(const std::vector<store::OwnedPartition> &partitions)
{
    pg::LockShared();
    for (const store::OwnedPartition &partition : partitions) {
        pg::PartitionSlot *slot =
            pg::FindPartition(my_slot->pipeline, partition.topic, partition.partition, true);
        if (slot == nullptr)
            continue;
        slot->next_offset = partition.next_offset;
        slot->worker_pid = MyProcPid;
        slot->state = State::kRunning;
        slot->reason[0] = '\0';
    }
    pg::UnlockShared();
}

void
PublishBack(const ingest::Notice &notice)
{
    pg::LockShared();
    pg::PartitionSlot *slot =
        pg::FindPartition(my_slot->pipeline, notice.topic.c_str(), notice.partition, true);
    const bool was_retrying = slot != nullptr && slot->state == State::kRetrying;
    if (was_retrying) {
        slot->state = State::kRunning;
        slot->reason[0] = '\0';
    }
    pg::UnlockShared();
    if (was_retrying)
        ereport(LOG, (errmsg("pulse pipeline \"%s\": partition %d of topic \"%s\" is read again",
                             my_slot->pipeline, notice.partition, notice.topic.c_str())));
}

void
PublishTrouble(const ingest::Notice &notice)
{
    pg::LockShared();
    pg::PartitionSlot *slot =
        pg::FindPartition(my_slot->pipeline, notice.topic.c_str(), notice.partition, true);
    State before = State::kRunning;
    State state = State::kRetrying;
    if (slot != nullptr) {
        before = slot->state;
        if (notice.kind == ingest::Notice::Kind::kTopicChanged)
            state = State::kTopicChanged;
        if (notice.kind == ingest::Notice::Kind::kTooLarge)
            state = State::kQuarantined;
        // Beyond the end it is another topic: the coordinator, who asks the broker, says so then.
        if (notice.kind == ingest::Notice::Kind::kOffsetLost)
            state = State::kOffsetLost;
        slot->state = state;
        slot->lost_offset = notice.next_offset;
        slot->is_judged = false;
        char reason[pg::kReasonBytes];
        snprintf(reason, sizeof(reason), "next offset %lld: %.300s",
                 static_cast<long long>(notice.next_offset), notice.text.c_str());
        pg::CopyText(slot->reason, pg::kReasonBytes, reason);
    }
    pg::UnlockShared();
    if (state == State::kOffsetLost)
        pg::WakeCoordinator();
    if (before != state)
        ereport(
            pg::LogLevel(state),
            (errmsg("pulse pipeline \"%s\": partition %d of topic \"%s\" is %s at offset %lld: %s",
                    my_slot->pipeline, notice.partition, notice.topic.c_str(), pg::StateName(state),
                    static_cast<long long>(notice.next_offset), notice.text.c_str())));
}

void
PublishCommit(const PipelineState &pipeline, const ingest::Batch &batch, const BatchResult &result)
{
    pg::LockShared();
    my_slot->failure_count = 0;
    my_slot->last_commit_at = result.committed_at;
    my_slot->batch_count++;
    my_slot->record_count += result.counts.records;
    my_slot->row_count += result.counts.rows;
    my_slot->duplicate_count += result.counts.duplicates;
    my_slot->reject_count += result.counts.rejects;
    my_slot->commit_us[my_slot->commit_next++ % pg::kCommitRing] =
        static_cast<int32_t>(Min(result.committed_at - result.began_at, INT32_MAX));
    int64_t second = result.committed_at / 1000000;
    int ring = static_cast<int>(second % pg::kRateSeconds);
    if (my_slot->rate_second[ring] != second) {
        my_slot->rate_second[ring] = second;
        my_slot->rate_rows[ring] = 0;
    }
    my_slot->rate_rows[ring] += result.counts.records;
    for (const ingest::Range &range : batch.ranges)
        PublishRange(pipeline, batch, range, result.committed_at);
    pg::UnlockShared();
    if (result.counts.rejects > 0)
        pg::TellSender(); // there may be no dead-letter topic: the coordinator has other work
}

} // namespace pulse::worker
