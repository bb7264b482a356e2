// What a worker knows of its pipeline; lives as long as the worker. Regime: C++.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "decode/mapping.hpp"
#include "ingest/breaker.hpp"
#include "store/offsets.hpp"
#include "store/target.hpp"
#include "worker/earlier_rows.hpp"

namespace pulse::worker {

// Whether a batch is tried with a plain INSERT first. It costs a third less than ON CONFLICT DO
// NOTHING, but one duplicate wastes it; so after each waste the plain way is left alone for twice
// as many batches.
class PlainInsertPolicy {
  public:
    bool MayTry() const { return batches_to_wait_ == 0; }
    void Wasted()
    {
        batches_to_wait_ = penalty_;
        penalty_ = penalty_ < 1024 ? penalty_ * 2 : penalty_;
    }
    void Worked() { penalty_ = penalty_ > 4 ? penalty_ / 2 : 4; }
    void BatchDone() { batches_to_wait_ -= batches_to_wait_ > 0 ? 1 : 0; }

  private:
    uint32_t batches_to_wait_ = 0;
    uint32_t penalty_ = 4;
};

struct PipelineState {
    // Null when the partition isn't this worker's.
    store::OwnedPartition *Find(std::string_view topic, int32_t partition)
    {
        for (store::OwnedPartition &owned : partitions)
            if (owned.partition == partition && topic == owned.topic)
                return &owned;
        return nullptr;
    }
    const store::OwnedPartition *Find(std::string_view topic, int32_t partition) const
    {
        return const_cast<PipelineState *>(this)->Find(topic, partition);
    }

    store::PipelineDefinition definition;
    store::Target target{};
    std::shared_ptr<const decode::Mapping> mapping;
    std::vector<store::OwnedPartition> partitions;
    EarlierRows earlier_rows;
    unsigned int role = 0;
    bool may_use_leaf = false;
    int slot = 0; // of the counters
    ingest::Breaker breaker;
    PlainInsertPolicy plain_inserts;
    std::unordered_map<int64_t, unsigned int>
        leaves; // bucket -> leaf, 0 = write through the parent
};

} // namespace pulse::worker
