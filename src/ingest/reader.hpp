// The reader thread: the only caller of librdkafka on its handle. It polls, decodes and fills
// batches while the backend writes the one before; bounded by queue_memory. All signals are blocked
// in it and it reaches no PostgreSQL symbol. The backend's side is this class: every method is for
// the backend and none of them waits for the broker. Regime: C++. Errors of the thread arrive as
// notices.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/flight_mark.hpp"
#include "base/result.hpp"
#include "base/types.hpp"
#include "decode/mapping.hpp"
#include "ingest/batch.hpp"
#include "kafka/config.hpp"

namespace pulse::ingest {

struct ReaderOptions {
    kafka::Config config;
    uint32_t batch_max_rows = 10000;
    size_t batch_max_bytes = 16 * 1024 * 1024;
    int64_t batch_max_wait_us = 0;
    size_t queue_bytes = 64 * 1024 * 1024;
    FlightMark *decoding = nullptr; // where the record being decoded is noted
};

// A record that becomes a reject without being decoded.
struct SetAside {
    std::string topic;
    int32_t partition;
    int64_t kafka_offset;
    decode::RejectCode code;
    std::string reason;
};

struct Notice {
    enum class Kind {
        kTooLarge,       // its next record cannot be fetched; it is no longer read
        kOffsetLost,     // the partition's offset is not in the log; it is no longer read
        kTopicChanged,   // the last record read is another one now; it is no longer read
        kPartitionError, // reading it failed; tried again by itself
        kPartitionBack,  // and now it works again
        kClientError,    // a broker or the connection
        kFailed,         // the thread ended; start a new reader
    };
    Kind kind;
    std::string topic;
    int32_t partition = -1;
    int64_t next_offset = -1;
    std::string text;
};

class Reader {
  public:
    static Result<std::unique_ptr<Reader>> Start(const ReaderOptions &options,
                                                 std::shared_ptr<const decode::Mapping> mapping);
    // Stops and joins the thread; may wait for librdkafka, so it is never run at process exit.
    ~Reader();
    Reader(const Reader &) = delete;
    Reader &operator=(const Reader &) = delete;

    // Readable when Take() or TakeNotices() has something new. Cleared by Take().
    int fd() const;

    // Reads these partitions from these offsets from now on; batches read before are discarded.
    // The record that `last` describes is read again before, here and after an error of the
    // partition: when it has changed, so has the topic.
    void Assign(std::vector<PartitionOffset> partitions, std::vector<SetAside> set_aside = {});
    // Records read from now on are decoded so. Batches already read keep their own mapping.
    void SetMapping(std::shared_ptr<const decode::Mapping> mapping);

    // The oldest batch, or null: then the reader hands over whatever arrives next.
    std::unique_ptr<Batch> Take();
    std::vector<Notice> TakeNotices();
    // Commits to the group, for lag tools.
    void Mirror(std::vector<PartitionOffset> offsets);
    // Records read but not taken.
    size_t QueuedRecords() const;

  private:
    class Impl;
    explicit Reader(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

} // namespace pulse::ingest
