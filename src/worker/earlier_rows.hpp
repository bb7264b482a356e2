// What a worker knows of rows written before a seek. A record that is read again and rejected now,
// though it was accepted then (it has become too old, say), stays the row it is: it must not be a
// letter as well, and no letter may be missing where there is no row. The key of a rejected record
// is not known, so the rows are looked for by topic, partition and offset: one pass over the target
// when the first such record comes, kept as a bit per offset; not a pass per batch. It runs before
// the batch, bounded by no batch_timeout, as the role that writes. Regime: C++ with doors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/offsets.hpp"
#include "store/target.hpp"

namespace pulse::worker {

class EarlierRows {
  public:
    // Whether Contains() has an answer; when not, Load() is due.
    bool Knows(const store::OwnedPartition &partition, int64_t kafka_offset) const;
    bool Contains(const store::OwnedPartition &partition, int64_t kafka_offset) const;

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
        std::vector<bool> is_row;
    };

    const Window *Find(const char *topic, int32_t partition, int64_t kafka_offset) const;
    void Mark(const char *topic, int32_t partition, int64_t kafka_offset);

    std::vector<Window> windows_;
};

} // namespace pulse::worker
