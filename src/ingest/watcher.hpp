// The coordinator's thread: asks the broker what exists (topics, partitions, watermarks, offsets
// for times), because such calls block and the backend must not. Requests in, answers out, in
// order; a pipeline has at most one probe under way. All signals are blocked in it. Regime: C++.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/types.hpp"
#include "ingest/log_ends.hpp"
#include "kafka/config.hpp"

namespace pulse::ingest {

// Where to start: what pulse.seek() and pulse.start_position mean once PostgreSQL has parsed them.
struct Position {
    enum class Kind { kEarliest, kLatest, kOffset, kTime, kAfterRows };
    Kind kind = Kind::kEarliest;
    int64_t value = 0; // kOffset: the offset; kTime: milliseconds since 1970
};

// Whether a partition is still the log that its offsets were read from.
enum class LogIdentity {
    kUnproved, // nothing speaks against it
    kSame,     // the record that was read last is there
    kAnother,  // it is another record, or the log ends before it
};

struct WatchRequest {
    enum class Kind {
        kProbe,
        kResolve,
        kJudge, // kResolve for partitions whose offset is lost
        kRead,  // the record at or after next_offset of one partition
        kForget,
    };
    Kind kind = Kind::kProbe;
    int64_t id = 0; // the asker's
    std::string pipeline;
    int64_t version = 0; // of the pipeline: another one may have its name when the answer comes
    kafka::Config config;
    std::vector<std::string> topics; // kProbe: names, or a regular expression with leading ^
    // kResolve: next_offset is what was ever reached, last the record to know the log by.
    std::vector<PartitionOffset> partitions;
    Position position; // kResolve
};

struct FetchedRecord {
    bool is_found = false;
    bool is_too_large = false; // it was never seen: no more than its offset is known
    bool has_key = false;
    bool has_value = false;
    int64_t kafka_offset = -1;
    int64_t timestamp_ms = -1;
    std::string key;
    std::string value;
    std::string headers; // EncodeHeaders(); empty = none
};

// Topic -> what Kafka says instead of its partitions, by librdkafka's name.
using MissingTopics = std::map<std::string, std::string>;
std::string Describe(const MissingTopics::value_type &missing);
std::string HintFor(const MissingTopics::value_type &missing);

struct WatchAnswer {
    WatchRequest::Kind kind;
    int64_t id;
    std::string pipeline;
    int64_t version;
    std::string error;                           // empty = it worked
    bool is_definition = false;                  // the pipeline's settings are at fault
    MissingTopics missing_topics;                // kProbe: named but not there (yet)
    std::vector<PartitionWatermarks> watermarks; // kProbe, kResolve, kJudge
    // kProbe and kJudge: they are in no other list. Of a kResolve the first one is its error.
    std::vector<PartitionTrouble> troubles;
    // kResolve, kJudge; clamped to [low, high] but for kOffset, and kAfterRows in the same log.
    std::vector<PartitionOffset> resolved;
    std::vector<LogIdentity> logs; // kResolve, kJudge
    FetchedRecord record;          // kRead
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
