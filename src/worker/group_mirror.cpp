#include "worker/group_mirror.hpp"

#include <utility>

#include "base/fault.hpp"

namespace pulse::worker {

namespace {

constexpr int64_t kFlushEveryUs = 1000000;

} // namespace

void
GroupMirror::Note(const store::OwnedPartition &partition)
{
    for (PartitionOffset &entry : waiting_) {
        if (entry.partition == partition.partition && entry.topic == partition.topic) {
            entry.next_offset = partition.next_offset;
            return;
        }
    }
    waiting_.push_back({partition.topic, partition.partition, partition.next_offset});
}

void
GroupMirror::Flush(ingest::Reader *reader, int64_t now)
{
    if (waiting_.empty() || now - flushed_at_ < kFlushEveryUs)
        return;
    PULSE_FAULT("before_mirror");
    flushed_at_ = now;
    reader->Mirror(std::exchange(waiting_, {}));
}

} // namespace pulse::worker
