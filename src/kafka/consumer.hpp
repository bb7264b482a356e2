// One librdkafka consumer handle with assign() only: no group membership, no seek, no pause.
// Regime: C++, used by exactly one thread after Create(). This header does not include rdkafka.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "kafka/config.hpp"

namespace pulse::kafka {

struct Header {
    std::string_view key;
    std::string_view value; // null data() = null value
};

// What Poll() hands out. All views are valid until the next Poll().
struct Message {
    enum class Kind {
        kRecord,
        kEndOfPartition, // offset = the position reached, behind control records too
        // topic/partition set; offset where known, else -1. One about a missing topic or partition
        // is repeated every second or not at all: compare with the metadata.
        kPartitionError,
        kClientError, // broker down, authentication, ...; topic may be empty
        kLog,         // librdkafka's log line; severity is syslog's
    };
    Kind kind = Kind::kRecord;
    std::string_view topic;
    int32_t partition = -1;
    int64_t offset = -1;
    int32_t broker = -1;       // kRecord, kEndOfPartition: who sent it, -1 = not known
    int64_t timestamp_ms = -1; // -1 = not available
    bool is_log_append_time = false;
    std::string_view key;        // null data() = null
    std::string_view value;      // null data() = tombstone
    std::vector<Header> headers; // reused between calls
    int error_code = 0;          // rd_kafka_resp_err_t
    std::string error_name;      // "_ALL_BROKERS_DOWN", ...
    std::string error_text;
    bool is_fatal = false;
    bool is_out_of_range = false; // kPartitionError: the offset is not in the log
    bool is_damaged = false;   // kPartitionError: the batch at the offset is not what was written
    bool is_too_large = false; // kClientError: an answer beyond receive.message.max.bytes
    int severity = 6;
};

struct Watermarks {
    int64_t low = -1; // -1 = unknown
    int64_t high = -1;
};

struct TopicMetadata {
    std::string topic;
    int32_t partition_count = 0;
    std::vector<int32_t> leaders; // broker id of each partition's, -1 = it has none
    std::string error_name;       // empty = fine; "UNKNOWN_TOPIC_OR_PART", ...
};

struct Cluster {
    std::string id;                   // empty = the broker did not say
    int32_t controller = -1;          // broker id; -1 = not known
    std::vector<std::string> brokers; // "id host:port", as the cluster advertises them
};

constexpr int64_t kOffsetUnknown = -1001;

enum class Found {
    kNothing, // yet
    kRecord,
    kTooLarge, // a record, or a batch of records, that this client cannot receive
};

class Consumer {
  public:
    static Result<std::unique_ptr<Consumer>> Create(const Config &config);
    // Destroys the handle; may block, so it is never run at process exit.
    ~Consumer();
    Consumer(const Consumer &) = delete;
    Consumer &operator=(const Consumer &) = delete;

    // Replaces the whole assignment; each partition starts at its absolute next_offset and whatever
    // was prefetched before is dropped. A kPartitionError of the old assignment may still come:
    // judge by its offset, and assign again when in doubt. Waits for librdkafka's main thread, not
    // for a broker: typically under 1 ms.
    Status Assign(const std::vector<PartitionOffset> &partitions);

    // The next message, error or log line; false when there is none within timeout_ms, 0 = at once.
    bool Poll(int timeout_ms, Message *message);

    // Readable when something arrived in an empty queue (edge): drain Poll(0) until dry before
    // waiting. Wait, ClearWakeup(), drain, in this order, or an arrival is slept through.
    int wakeup_fd() const;
    // Reads the counter of wakeup_fd() back to zero.
    void ClearWakeup();

    // Commits to the broker's group for lag tools; result ignored but for debugging. Non-blocking;
    // what is asked for while a commit is under way goes out with a later Poll() or
    // MirrorOffsets().
    void MirrorOffsets(const std::vector<PartitionOffset> &offsets);

    // From the last fetch response, of an assigned partition; no broker contact. high is the high
    // watermark.
    Watermarks CachedWatermarks(const std::string &topic, int32_t partition) const;

    // The rest asks the broker and blocks up to timeout_ms: only from a thread that may wait.
    Result<Cluster> DescribeCluster(int timeout_ms);
    // topics empty = all topics of the cluster.
    Result<std::vector<TopicMetadata>> FetchMetadata(const std::vector<std::string> &topics,
                                                     int timeout_ms);
    // high is the last stable offset: before an open transaction's records.
    Result<Watermarks> QueryWatermarks(const std::string &topic, int32_t partition, int timeout_ms);
    // Of several, in two questions to each of their leaders; in the same order.
    std::vector<Result<Watermarks>>
    QueryWatermarks(const std::vector<std::pair<std::string, int32_t>> &partitions, int timeout_ms);
    // next_offset of each element is a timestamp in ms on input; the offset of the first record at
    // or after it on output, or the end of the log when there is none.
    Status OffsetsForTimes(std::vector<PartitionOffset> *partitions, int timeout_ms);
    // Hands the first record at or after next_offset to visit. Not for a handle that reads: it
    // assigns. To tell kTooLarge from an error takes a new handle, which has said nothing yet: the
    // client repeats an error that it has reported after half a minute at the earliest.
    Result<Found> ReadFrom(const PartitionOffset &start, int timeout_ms,
                           const std::function<void(const Message &)> &visit);

  private:
    class Impl;
    explicit Consumer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// librdkafka's version as a number (rd_kafka_version()).
int LibraryVersion();

} // namespace pulse::kafka
