// The coordinator's thread: asks the broker what exists (topics, partitions, watermarks, offsets
// for times), because such calls block and the backend must not. Requests in, answers out, in
// order; a pipeline has at most one probe under way. All signals are blocked in it. Regime: C++.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/types.hpp"
#include "kafka/config.hpp"

namespace pulse::ingest {

// Where to start: what pulse.seek() and pulse.start_position mean once PostgreSQL has parsed them.
struct Position {
    enum class Kind { kEarliest, kLatest, kOffset, kTime };
    Kind kind = Kind::kEarliest;
    int64_t value = 0; // kOffset: the offset; kTime: milliseconds since 1970
};

struct PartitionWatermarks {
    std::string topic;
    int32_t partition;
    int64_t low;
    int64_t high;
};

struct WatchRequest {
    enum class Kind { kProbe, kResolve, kForget };
    Kind kind = Kind::kProbe;
    int64_t id = 0; // the asker's
    std::string pipeline;
    int64_t version = 0; // of the pipeline: another one may have its name when the answer comes
    kafka::Config config;
    std::vector<std::string> topics; // kProbe: names, or a regular expression with leading ^
    std::vector<PartitionOffset> partitions; // kResolve: topic and partition
    Position position;                       // kResolve
};

struct WatchAnswer {
    WatchRequest::Kind kind;
    int64_t id;
    std::string pipeline;
    int64_t version;
    std::string error;                           // empty = it worked
    bool is_definition = false;                  // the pipeline's settings are at fault
    std::vector<std::string> missing_topics;     // kProbe: named but not there (yet)
    std::vector<PartitionWatermarks> watermarks; // kProbe and kResolve
    std::vector<PartitionOffset> resolved;       // kResolve; clamped to [low, high] but for kOffset
};

class Watcher {
  public:
    Watcher();
    ~Watcher(); // joins; never run at process exit
    Watcher(const Watcher &) = delete;
    Watcher &operator=(const Watcher &) = delete;

    int fd() const; // readable when TakeAnswers() has something; cleared by it
    void Ask(WatchRequest request);
    std::vector<WatchAnswer> TakeAnswers();
    // The pipeline is gone: it needs no client any more.
    void Forget(const std::string &pipeline);

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace pulse::ingest
