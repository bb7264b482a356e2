// A Kafka cluster inside the test: librdkafka's mock brokers, owned by a producer that fills them.
// For test/unit/kafka_*_test.cpp. Nothing here sleeps; whoever waits has a deadline.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

namespace pulse::kafka {

// Kafka's request numbers, as the mock's calls take them.
constexpr int16_t kProduceRequest = 0;
constexpr int16_t kFetchRequest = 1;
constexpr int16_t kMetadataRequest = 3;
constexpr int16_t kOffsetCommitRequest = 8;
constexpr int16_t kInitProducerIdRequest = 22;

class Deadline {
  public:
    explicit Deadline(int seconds = 15)
        : end_(std::chrono::steady_clock::now() + std::chrono::seconds(seconds))
    {
    }
    bool IsOver() const { return std::chrono::steady_clock::now() >= end_; }

  private:
    std::chrono::steady_clock::time_point end_;
};

struct TestRecord {
    std::optional<std::string> key;
    std::optional<std::string> value;
    std::vector<std::pair<std::string, std::optional<std::string>>> headers;
    int64_t timestamp_ms = 0; // 0 = now
};

class MockBroker {
  public:
    explicit MockBroker(int brokers = 1)
    {
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        Set(conf, "test.mock.num.brokers", std::to_string(brokers));
        Set(conf, "linger.ms", "0");
        Set(conf, "log_level", "2");
        rd_kafka_conf_set_opaque(conf, this);
        rd_kafka_conf_set_dr_msg_cb(
            conf, [](rd_kafka_t *, const rd_kafka_message_t *message, void *opaque) {
                if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
                    ++static_cast<MockBroker *>(opaque)->failed_;
            });
        char reason[256];
        producer_ = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason));
        if (producer_ == nullptr)
            throw std::runtime_error(reason);
        cluster_ = rd_kafka_handle_mock_cluster(producer_);
        // By default the mock offers a version that can't say "don't create the topic".
        Check(rd_kafka_mock_set_apiversion(cluster_, kMetadataRequest, 0, 4));
    }

    ~MockBroker() { rd_kafka_destroy(producer_); }
    MockBroker(const MockBroker &) = delete;
    MockBroker &operator=(const MockBroker &) = delete;

    rd_kafka_mock_cluster_t *cluster() { return cluster_; }
    std::string brokers() const { return rd_kafka_mock_cluster_bootstraps(cluster_); }

    void CreateTopic(const std::string &topic, int partitions)
    {
        Check(rd_kafka_mock_topic_create(cluster_, topic.c_str(), partitions, 1));
    }

    // Returns when the broker has it.
    void Produce(const std::string &topic, int32_t partition, const TestRecord &record)
    {
        Queue(topic, partition, record);
        Flush();
    }

    // Values "0", "1", ... in as few requests as possible.
    void ProduceNumbers(const std::string &topic, int32_t partition, int from, int count)
    {
        for (int number = from; number < from + count; ++number)
            Queue(topic, partition, {std::nullopt, std::to_string(number), {}, 0});
        Flush();
    }

    void Flush()
    {
        Check(rd_kafka_flush(producer_, 15000));
        if (failed_ != 0)
            throw std::runtime_error("a record could not be produced");
    }

  private:
    static void Set(rd_kafka_conf_t *conf, const char *key, const std::string &value)
    {
        char reason[256];
        if (rd_kafka_conf_set(conf, key, value.c_str(), reason, sizeof(reason)) != RD_KAFKA_CONF_OK)
            throw std::runtime_error(reason);
    }

    static void Check(rd_kafka_resp_err_t code)
    {
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
            throw std::runtime_error(rd_kafka_err2str(code));
    }

    static void *Bytes(const std::optional<std::string> &text)
    {
        return text ? const_cast<char *>(text->data()) : nullptr;
    }

    void Queue(const std::string &topic, int32_t partition, const TestRecord &record)
    {
        rd_kafka_headers_t *headers = nullptr;
        if (!record.headers.empty()) {
            headers = rd_kafka_headers_new(record.headers.size());
            for (const auto &[name, value] : record.headers)
                rd_kafka_header_add(headers, name.data(), static_cast<ssize_t>(name.size()),
                                    Bytes(value), value ? static_cast<ssize_t>(value->size()) : 0);
        }
        rd_kafka_vu_t parts[7];
        size_t count = 0;
        parts[count].vtype = RD_KAFKA_VTYPE_TOPIC;
        parts[count++].u.cstr = topic.c_str();
        parts[count].vtype = RD_KAFKA_VTYPE_PARTITION;
        parts[count++].u.i32 = partition;
        parts[count].vtype = RD_KAFKA_VTYPE_MSGFLAGS;
        parts[count++].u.i = RD_KAFKA_MSG_F_COPY;
        parts[count].vtype = RD_KAFKA_VTYPE_KEY;
        parts[count].u.mem.ptr = Bytes(record.key);
        parts[count++].u.mem.size = record.key ? record.key->size() : 0;
        parts[count].vtype = RD_KAFKA_VTYPE_VALUE;
        parts[count].u.mem.ptr = Bytes(record.value);
        parts[count++].u.mem.size = record.value ? record.value->size() : 0;
        parts[count].vtype = RD_KAFKA_VTYPE_TIMESTAMP;
        parts[count++].u.i64 = record.timestamp_ms;
        if (headers != nullptr) {
            parts[count].vtype = RD_KAFKA_VTYPE_HEADERS;
            parts[count++].u.headers = headers;
        }
        rd_kafka_error_t *error = rd_kafka_produceva(producer_, parts, count);
        if (error != nullptr)
            throw std::runtime_error(rd_kafka_error_string(error));
    }

    rd_kafka_t *producer_ = nullptr;
    rd_kafka_mock_cluster_t *cluster_ = nullptr;
    int failed_ = 0;
};

} // namespace pulse::kafka
