#include "ingest/reading_positions.hpp"

#include <utility>

#include "base/crc32c.hpp"

namespace pulse::ingest {

ReadingPosition::ReadingPosition(const PartitionOffset &start)
    : topic_(start.topic), partition_(start.partition), next_offset_(start.next_offset),
      last_(start.last)
{
}

PartitionOffset
ReadingPosition::Restart()
{
    is_blocked_ = false;
    is_checking_ = last_.kafka_offset >= 0 && last_.kafka_offset < next_offset_;
    started_at_ = is_checking_ ? last_.kafka_offset : next_offset_;
    return {topic_, partition_, started_at_};
}

ReadingPosition::Verdict
ReadingPosition::Judge(const kafka::Message &message)
{
    bool is_record = message.kind == kafka::Message::Kind::kRecord;
    if (is_blocked_ || is_lost_ || (is_record && message.offset < started_at_))
        return Verdict::kNotNext;
    bool has_changed_broker = HasChangedBroker(message);
    bool is_check = std::exchange(is_checking_, false);
    if (is_check && !KnowsLast(message)) {
        is_lost_ = true;
        return Verdict::kTopicChanged;
    }
    if (has_changed_broker && !is_check) {
        is_blocked_ = true;
        return Verdict::kOtherBroker;
    }
    if (message.offset < next_offset_)
        return Verdict::kNotNext;
    is_back_ = std::exchange(failure_count_, 0) > 0; // the last record alone proves nothing
    // Control records and compaction leave offsets without a record: the end of the partition is
    // the next offset to read all the same, and lag reaches zero.
    return is_record || message.offset > next_offset_ ? Verdict::kNext : Verdict::kNotNext;
}

// The log of another one may be another: an unclean election cuts it behind what was read, and
// producers fill it again. Librdkafka goes on in the middle of that; the last record tells.
bool
ReadingPosition::HasChangedBroker(const kafka::Message &message)
{
    if (message.broker < 0)
        return false;
    int32_t before = std::exchange(broker_, message.broker);
    return before >= 0 && before != broker_;
}

// A record that is not there any more may have been compacted away; where the log ends before it,
// the log is another one.
bool
ReadingPosition::KnowsLast(const kafka::Message &message) const
{
    if (message.offset > last_.kafka_offset)
        return true;
    return message.kind == kafka::Message::Kind::kRecord &&
           IsSameRecord(last_, FingerprintOf(message.offset, message.timestamp_ms, message.key,
                                             message.value));
}

bool
ReadingPosition::IsBack()
{
    return std::exchange(is_back_, false) && !is_lost_;
}

void
ReadingPosition::Pass(const kafka::Message &message)
{
    bool is_record = message.kind == kafka::Message::Kind::kRecord;
    next_offset_ = is_record ? message.offset + 1 : message.offset;
}

ReadingPosition::Trouble
ReadingPosition::JudgeError(const kafka::Message &error)
{
    // What follows the first error is of its making: behind a batch whose checksum is wrong
    // librdkafka asks for an offset that there is not.
    if (is_lost_ || is_blocked_)
        return Trouble::kNone;
    // What precedes the error is in the batch; what librdkafka has prefetched behind it is dropped
    // and read again from the position (K4).
    is_blocked_ = true;
    // Damage in what was read, or was passed over by an operator, is nobody's trouble any more.
    if (error.is_damaged && started_at_ < next_offset_ && error.offset < next_offset_) {
        last_ = {};
        return Trouble::kLastGone;
    }
    // An error of the assignment before names an offset that is not ours: the next assign decides.
    int64_t wanted = is_checking_ ? started_at_ : next_offset_;
    bool is_stale = error.offset >= 0 && error.offset != wanted;
    if (!error.is_out_of_range || is_stale) {
        failure_count_++;
        return Trouble::kPassing;
    }
    if (is_checking_) { // retention has passed the last record, perhaps not yet the next one
        last_ = {};
        return Trouble::kLastGone;
    }
    is_lost_ = true;
    return Trouble::kLost;
}

void
ReadingPosition::Remember(const Record &record)
{
    last_ = FingerprintOf(record.kafka_offset, record.timestamp_ms, record.key, record.value);
}

void
ReadingPosition::Add(SetAside record)
{
    set_aside_.emplace(record.kafka_offset, std::move(record));
}

const SetAside *
ReadingPosition::FindSetAside(int64_t kafka_offset) const
{
    if (set_aside_.empty())
        return nullptr;
    auto found = set_aside_.find(kafka_offset);
    return found == set_aside_.end() ? nullptr : &found->second;
}

void
ReadingPositions::Replace(const std::vector<PartitionOffset> &partitions,
                          std::vector<SetAside> set_aside)
{
    positions_.clear();
    numbers_.clear();
    found_last_ = nullptr;
    for (const PartitionOffset &start : partitions) {
        numbers_[start.topic].emplace(start.partition, positions_.size());
        positions_.emplace_back(start);
    }
    for (SetAside &record : set_aside)
        if (ReadingPosition *position = Search(record.topic, record.partition))
            position->Add(std::move(record));
}

ReadingPosition *
ReadingPositions::Find(std::string_view topic, int32_t partition)
{
    if (found_last_ != nullptr && found_last_->partition() == partition &&
        found_last_->topic() == topic)
        return found_last_;
    ReadingPosition *position = Search(std::string(topic), partition);
    if (position != nullptr)
        found_last_ = position;
    return position;
}

ReadingPosition *
ReadingPositions::Search(const std::string &topic, int32_t partition)
{
    auto numbers = numbers_.find(topic);
    if (numbers == numbers_.end())
        return nullptr;
    auto number = numbers->second.find(partition);
    return number == numbers->second.end() ? nullptr : &positions_[number->second];
}

std::vector<size_t>
ReadingPositions::Readable() const
{
    std::vector<size_t> numbers;
    for (size_t i = 0; i < positions_.size(); i++)
        if (!positions_[i].IsLost())
            numbers.push_back(i);
    return numbers;
}

std::vector<PartitionOffset>
ReadingPositions::Restart()
{
    std::vector<PartitionOffset> starts;
    for (ReadingPosition &position : positions_)
        if (!position.IsLost())
            starts.push_back(position.Restart());
    return starts;
}

void
ReadingPositions::BeginBatch()
{
    for (ReadingPosition &position : positions_)
        position.SetRange(-1);
}

void
ReadingPositions::Remember(const Batch &batch)
{
    std::vector<const Record *> last(batch.ranges.size());
    for (const Record &record : batch.records)
        last[record.range_index] = &record;
    for (ReadingPosition &position : positions_) {
        const Record *record = position.range_index() < 0
                                   ? nullptr
                                   : last[static_cast<size_t>(position.range_index())];
        if (record != nullptr)
            position.Remember(*record);
    }
}

} // namespace pulse::ingest
