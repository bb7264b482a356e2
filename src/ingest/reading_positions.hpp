// Where the reader thread is in each of its partitions, and the guard behind every promise: whether
// what librdkafka hands out is what comes next there. No broker, no clock, no thread of its own.
// Regime: C++, the reader's thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/types.hpp"
#include "ingest/batch.hpp"
#include "ingest/reader.hpp"
#include "kafka/consumer.hpp"

namespace pulse::ingest {

class ReadingPosition {
  public:
    enum class Verdict {
        kNext,         // to be taken
        kNotNext,      // to be dropped
        kOtherBroker,  // to be dropped with all that follows; Restart() at once
        kTopicChanged, // the last record is another one now; lost from here on
    };
    enum class Trouble {
        kNone,     // it was lost before, or had one before the last Restart()
        kLastGone, // only what is before the next record: Restart() at once
        kLost,     // the next record is not in the log
        kPassing,  // Restart() after a while
    };

    explicit ReadingPosition(const PartitionOffset &start);

    const std::string &topic() const { return topic_; }
    int32_t partition() const { return partition_; }
    int64_t next_offset() const { return next_offset_; }
    int failure_count() const { return failure_count_; } // since it worked

    // No longer read: everything of it is dropped.
    bool IsLost() const { return is_lost_; }
    void Lose() { is_lost_ = true; }

    // Where the client is to begin: at the last record, when there is one, to see whether it is
    // still the same. Before that nothing is next.
    PartitionOffset Restart();
    // Of a record or an end of the partition.
    Verdict Judge(const kafka::Message &message);
    // True once after trouble that passed: what was judged last came from the log again.
    bool IsBack();
    // Goes on behind what was judged to be next.
    void Pass(const kafka::Message &message);
    // Whatever comes after the error is dropped until Restart().
    Trouble JudgeError(const kafka::Message &error);
    // The last record of this partition that is in a batch.
    void Remember(const Record &record);

    void Add(SetAside record);
    const SetAside *FindSetAside(int64_t kafka_offset) const;

    // In the batch being filled; -1 = none yet.
    int32_t range_index() const { return range_index_; }
    void SetRange(int32_t index) { range_index_ = index; }

  private:
    bool KnowsLast(const kafka::Message &message) const;
    bool HasChangedBroker(const kafka::Message &message);

    std::string topic_;
    int32_t partition_;
    int64_t next_offset_;
    Fingerprint last_;    // of a record before it
    int32_t broker_ = -1; // whose log is read
    int64_t started_at_ = -1;
    bool is_checking_ = false; // reads last_ again; nothing is taken before
    bool is_blocked_ = false;  // after an error
    bool is_back_ = false;
    bool is_lost_ = false;
    int failure_count_ = 0;
    int32_t range_index_ = -1;
    std::unordered_map<int64_t, SetAside> set_aside_; // by offset
};

// Those of an assignment.
class ReadingPositions {
  public:
    void Replace(const std::vector<PartitionOffset> &partitions, std::vector<SetAside> set_aside);

    // Null: not ours.
    ReadingPosition *Find(std::string_view topic, int32_t partition);

    // Numbers of those that are not lost, for At().
    std::vector<size_t> Readable() const;
    ReadingPosition &At(size_t number) { return positions_[number]; }

    // Of all that are not lost.
    std::vector<PartitionOffset> Restart();
    // A new batch has no ranges yet.
    void BeginBatch();
    // The last records of the batch that was begun last.
    void Remember(const Batch &batch);

  private:
    ReadingPosition *Search(const std::string &topic, int32_t partition);

    std::vector<ReadingPosition> positions_;
    std::unordered_map<std::string, std::unordered_map<int32_t, size_t>> numbers_;
    ReadingPosition *found_last_ = nullptr; // records of a partition come in runs
};

} // namespace pulse::ingest
