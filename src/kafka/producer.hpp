// One idempotent librdkafka producer: records in, one delivery report out for each. For the
// forwarding of dead letters and for outgoing records; whoever uses it keeps a record until its
// report came, and sends it again with a new Producer when there was a fatal error. So a record can
// arrive twice: its id belongs into a header. Regime: C++, used by one thread. This header does not
// include rdkafka.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "kafka/config.hpp"
#include "kafka/consumer.hpp"
#include "kafka/events.hpp"

namespace pulse::kafka {

constexpr int32_t kAnyPartition = -1;

// Views need to live during Produce() only. data() == nullptr means Kafka's null.
struct OutgoingRecord {
    std::string topic;
    int32_t partition = kAnyPartition; // any = by key as Java's producer does, or at random
    std::string_view key;
    std::string_view value;
    std::vector<Header> headers;
    int64_t timestamp_ms = 0; // 0 = now
    uint64_t id = 0;          // comes back in the report
};

struct DeliveryReport {
    uint64_t id = 0;
    bool is_delivered = false;
    bool may_be_stored = false; // not delivered as far as is known, but possibly in the log
    int32_t partition = -1;
    int64_t offset = -1;
    int error_code = 0; // rd_kafka_resp_err_t
    std::string error_name;
    std::string error_text;
};

class Producer {
  public:
    enum class Outcome {
        kQueued,
        kQueueFull, // Poll() and try again
        kRefused,   // this record never: too large, no such partition
        kFatal,     // this producer never again: see FatalError()
    };

    static Result<std::unique_ptr<Producer>> Create(const Config &config);
    // Drops what has not been reported; doesn't wait for the broker. Never run at process exit.
    ~Producer();
    Producer(const Producer &) = delete;
    Producer &operator=(const Producer &) = delete;

    // Copies the record into the queue; never blocks. reason (may be null) is set unless queued.
    Outcome Produce(const OutgoingRecord &record, std::string *reason);

    // Appends the delivery reports that arrived within timeout_ms (0 = don't wait).
    void Poll(int timeout_ms, std::vector<DeliveryReport> *reports);
    // Errors and log lines met by Poll(); false when there are none.
    bool PopEvent(ClientEvent *event);

    // Records queued or sent whose report hasn't been handed out.
    int outstanding() const;
    // Empty as long as the producer works.
    std::string FatalError() const;

    // Readable when a report or event arrived (edge): ClearWakeup(), then Poll(0).
    int wakeup_fd() const;
    void ClearWakeup();

  private:
    class Impl;
    explicit Producer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

} // namespace pulse::kafka
