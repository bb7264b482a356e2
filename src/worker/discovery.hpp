// Finds what there is to read: topics, partitions, watermarks, and where a partition begins. Asks
// the watcher thread; the coordinator hands the answers back. Regime: C++ with doors.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ingest/watcher.hpp"
#include "worker/known_pipeline.hpp"

namespace pulse::worker {

class Discovery {
  public:
    explicit Discovery(ingest::Watcher *watcher) : watcher_(watcher) {}

    // Asks the broker about the pipeline unless that is under way or not due yet.
    void Probe(KnownPipeline *known);
    // The answer: publishes watermarks, starts partitions that are new.
    void TakeProbe(KnownPipeline *known, const ingest::WatchAnswer &answer);
    // The answer about a start_position that is a time; known is null when the pipeline is gone.
    void TakeStart(KnownPipeline *known, const ingest::WatchAnswer &answer);

  private:
    void StartNewPartitions(KnownPipeline *known,
                            const std::vector<ingest::PartitionWatermarks> &watermarks);
    // position is that of new topics. True when the broker is asked where some of them begin.
    bool Begin(KnownPipeline *known, const std::vector<ingest::PartitionWatermarks> &fresh,
               ingest::Position position);
    void ResolveStart(const KnownPipeline &known, std::vector<PartitionOffset> partitions,
                      ingest::Position position);

    ingest::Watcher *watcher_;
    std::set<std::pair<std::string, int64_t>> resolving_start_; // name and version
};

// Into shared memory, for the views and for wait_until_caught_up().
void PublishWatermarks(const std::string &pipeline,
                       const std::vector<ingest::PartitionWatermarks> &watermarks);

} // namespace pulse::worker
