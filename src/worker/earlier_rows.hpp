// What a worker knows of rows written before a seek. A record that is read again and rejected now,
// though it was accepted then (it has become too old, say), stays the row it is: it must not be a
// letter as well, and no letter may be missing where there is no row. The key of a rejected record
// is not known, so the rows are looked for by topic, partition and offset: one pass over the target
// when the first such record comes, kept as a bit per offset; not a pass per batch. It runs before
// the batch, bounded by no batch_timeout, as the role that writes. Of a topic made again the table
// holds rows of other records at the same offsets: topic_epoch tells them apart, or the broker's
// timestamp; with neither column no row is taken for the record's, so that no letter is lost.
// Regime: C++ with doors.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "store/earlier_rows.hpp"
#include "store/offsets.hpp"
#include "store/target.hpp"

namespace pulse::worker {

class EarlierRows {
  public:
    // Whether Contains() has an answer; when not, Load() is due.
    bool Knows(const store::OwnedPartition &partition, int64_t kafka_offset) const;
    bool Contains(const store::OwnedPartition &partition, int64_t kafka_offset,
                  int64_t timestamp_ms) const;

    // Looks the rows up that records read again from now on may have. Raises what the SELECT does.
    void Load(const char *pipeline, const store::Target &target, unsigned int role,
              const std::vector<store::OwnedPartition> &partitions);
    // To be called when partitions are taken again: another seek may have come.
    void Forget() { windows_.clear(); }

  private:
    struct Window {
        std::string topic;
        int32_t partition;
        int64_t begin;
        int64_t end;
        int32_t topic_epoch;
        std::vector<bool> is_row;
        std::vector<std::pair<int64_t, int64_t>> stamped; // offset and timestamp, sorted
    };

    const Window *Find(const char *topic, int32_t partition, int64_t kafka_offset) const;
    void Mark(const store::EarlierRow &row);
    void Scan(const char *pipeline, const store::Target &target, unsigned int role,
              const store::OffsetSpan &span);

    std::vector<Window> windows_;
    store::EpochSource source_ = store::EpochSource::kNothing;
};

} // namespace pulse::worker
