// Partitions whose next offset is not in the log any more: asks the broker where the log begins and
// ends, tells lost records from a topic made again, and goes on by itself where on_offset_lost
// says so. A topic made again always waits for pulse.accept_gap(). Regime: C++ with doors.
#pragma once

#include "ingest/watcher.hpp"
#include "worker/known_pipeline.hpp"

namespace pulse::worker {

class LostOffsets {
  public:
    explicit LostOffsets(ingest::Watcher *watcher) : watcher_(watcher) {}

    // Asks about the partitions of the pipeline that are lost and not yet judged.
    void Judge(KnownPipeline *known);
    void TakeAnswer(KnownPipeline *known, const ingest::WatchAnswer &answer);

  private:
    ingest::Watcher *watcher_;
};

// What was read before the loss is still being written: to go on elsewhere now would lose it.
bool IsWritingBeforeLoss(const std::string &pipeline, const std::string &topic, int32_t partition);

} // namespace pulse::worker
