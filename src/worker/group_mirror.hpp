// The group's offsets: committed to Kafka once a second for lag tools, never read back. Regime:
// C++.
#pragma once

#include <cstdint>
#include <vector>

#include "base/types.hpp"
#include "ingest/reader.hpp"
#include "store/offsets.hpp"

namespace pulse::worker {

class GroupMirror {
  public:
    // The partition has committed as far as its next_offset.
    void Note(const store::OwnedPartition &partition);
    bool IsEmpty() const { return waiting_.empty(); }
    // now: TimestampTz.
    void Flush(ingest::Reader *reader, int64_t now);

  private:
    std::vector<PartitionOffset> waiting_;
    int64_t flushed_at_ = 0;
};

} // namespace pulse::worker
