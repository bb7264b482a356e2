// The producer against librdkafka's mock brokers: one report for each record, whatever happens, and
// a fatal error is told as such. src/kafka/producer.cpp.
#include "kafka/producer.hpp"

#include <functional>
#include <map>
#include <poll.h>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "kafka/consumer.hpp"
#include "mock_broker.hpp"

namespace pulse::kafka {

namespace {

using Outcome = Producer::Outcome;

Config
ConfigFor(const std::string &brokers)
{
    Config config;
    config.brokers = brokers;
    config.client_id = "pulse-test";
    config.options = {{"linger.ms", "0"}, {"reconnect.backoff.max.ms", "200"}};
    return config;
}

std::unique_ptr<Producer>
Connect(const Config &config)
{
    Result<std::unique_ptr<Producer>> producer = Producer::Create(config);
    if (!producer.ok())
        throw std::runtime_error(producer.message());
    return std::move(producer.value());
}

OutgoingRecord
Record(const std::string &topic, uint64_t id)
{
    OutgoingRecord record;
    record.topic = topic;
    record.partition = 0;
    record.value = "value";
    record.id = id;
    return record;
}

bool
PollUntil(Producer &producer, std::vector<DeliveryReport> *reports, size_t count)
{
    Deadline deadline;
    while (reports->size() < count && !deadline.IsOver())
        producer.Poll(100, reports);
    return reports->size() >= count;
}

TEST(ProducerTest, DeliversRecordsWithAllTheirParts)
{
    MockBroker broker;
    broker.CreateTopic("letters", 4);
    auto producer = Connect(ConfigFor(broker.brokers()));
    OutgoingRecord full = Record("letters", 7);
    full.partition = 2;
    full.key = "key";
    full.headers = {{"pulse-id", "a/1/0/5"}, {"none", {}}, {"empty", ""}};
    full.timestamp_ms = 1700000000123;
    ASSERT_EQ(producer->Produce(full, nullptr), Outcome::kQueued);
    OutgoingRecord tombstone = Record("letters", UINT64_MAX);
    tombstone.partition = 2;
    tombstone.value = {};
    ASSERT_EQ(producer->Produce(tombstone, nullptr), Outcome::kQueued);
    EXPECT_EQ(producer->outstanding(), 2);

    std::vector<DeliveryReport> reports;
    ASSERT_TRUE(PollUntil(*producer, &reports, 2));
    EXPECT_EQ(reports[0].id, 7u);
    EXPECT_TRUE(reports[0].is_delivered);
    EXPECT_FALSE(reports[0].may_be_stored);
    EXPECT_EQ(reports[0].partition, 2);
    EXPECT_EQ(reports[0].offset, 0);
    EXPECT_EQ(reports[1].id, UINT64_MAX);
    EXPECT_EQ(reports[1].offset, 1);
    EXPECT_EQ(producer->outstanding(), 0);
    EXPECT_EQ(producer->FatalError(), "");

    Result<std::unique_ptr<Consumer>> consumer = Consumer::Create([&] {
        Config config = ConfigFor(broker.brokers());
        config.options.clear();
        return config;
    }());
    ASSERT_TRUE(consumer.ok());
    ASSERT_TRUE(consumer.value()->Assign({{"letters", 2, 0}}).ok());
    Message message;
    Deadline deadline;
    while (!consumer.value()->Poll(100, &message) || message.kind != Message::Kind::kRecord)
        ASSERT_FALSE(deadline.IsOver());
    EXPECT_EQ(message.key, "key");
    EXPECT_EQ(message.value, "value");
    EXPECT_EQ(message.timestamp_ms, 1700000000123);
    ASSERT_EQ(message.headers.size(), 3u);
    EXPECT_EQ(message.headers[0].key, "pulse-id");
    EXPECT_EQ(message.headers[0].value, "a/1/0/5");
    EXPECT_EQ(message.headers[1].value.data(), nullptr);
    EXPECT_NE(message.headers[2].value.data(), nullptr);
    ASSERT_TRUE(consumer.value()->Poll(5000, &message));
    EXPECT_EQ(message.key.data(), nullptr);
    EXPECT_EQ(message.value.data(), nullptr);
}

TEST(ProducerTest, KeepsRecordsOfAKeyTogether)
{
    MockBroker broker;
    broker.CreateTopic("letters", 8);
    auto producer = Connect(ConfigFor(broker.brokers()));
    std::vector<std::string> keys = {"a", "b", "c", "d", "e"};
    for (uint64_t id = 0; id < 50; ++id) {
        OutgoingRecord record = Record("letters", id);
        record.partition = kAnyPartition;
        record.key = keys[id % keys.size()];
        ASSERT_EQ(producer->Produce(record, nullptr), Outcome::kQueued);
    }
    std::vector<DeliveryReport> reports;
    ASSERT_TRUE(PollUntil(*producer, &reports, 50));
    std::map<std::string, std::set<int32_t>> partitions;
    for (const DeliveryReport &report : reports)
        partitions[keys[report.id % keys.size()]].insert(report.partition);
    for (const auto &[key, used] : partitions)
        EXPECT_EQ(used.size(), 1u) << key;
}

TEST(ProducerTest, RefusesWhatCanNeverBeSent)
{
    MockBroker broker;
    broker.CreateTopic("letters", 1);
    auto producer = Connect(ConfigFor(broker.brokers()));
    std::string reason;
    std::string large(9 * 1024 * 1024, 'x');
    OutgoingRecord record = Record("letters", 1);
    record.value = large;
    record.headers = {{"h", "v"}};
    EXPECT_EQ(producer->Produce(record, &reason), Outcome::kRefused);
    EXPECT_NE(reason.find("MSG_SIZE_TOO_LARGE"), std::string::npos) << reason;

    // A partition that isn't there: refused at once when the topic is known, else reported.
    std::vector<DeliveryReport> reports;
    record = Record("letters", 2);
    record.headers = {{"h", "v"}};
    record.partition = 5;
    ASSERT_EQ(producer->Produce(record, nullptr), Outcome::kQueued);
    ASSERT_TRUE(PollUntil(*producer, &reports, 1));
    EXPECT_EQ(reports[0].id, 2u);
    EXPECT_FALSE(reports[0].is_delivered);
    EXPECT_FALSE(reports[0].may_be_stored);
    EXPECT_EQ(reports[0].error_name, "_UNKNOWN_PARTITION");
    EXPECT_EQ(producer->Produce(record, &reason), Outcome::kRefused);
    EXPECT_NE(reason.find("_UNKNOWN_PARTITION"), std::string::npos) << reason;
    EXPECT_EQ(producer->Produce(Record("letters", 3), nullptr), Outcome::kQueued);
    ASSERT_TRUE(PollUntil(*producer, &reports, 2));
    EXPECT_TRUE(reports[1].is_delivered);
}

TEST(ProducerTest, SaysWhenItsQueueIsFull)
{
    Config config = ConfigFor("localhost:1");
    config.options.push_back({"message.timeout.ms", "1000"});
    auto producer = Connect(config);
    std::string reason;
    uint64_t queued = 0;
    while (producer->Produce(Record("letters", queued), &reason) == Outcome::kQueued)
        ASSERT_LE(++queued, 20000u);
    EXPECT_EQ(producer->Produce(Record("letters", 0), &reason), Outcome::kQueueFull);
    EXPECT_EQ(queued, 10000u);

    // Each is reported, late but surely.
    std::vector<DeliveryReport> reports;
    ASSERT_TRUE(PollUntil(*producer, &reports, queued));
    std::set<uint64_t> ids;
    for (const DeliveryReport &report : reports) {
        EXPECT_FALSE(report.is_delivered);
        EXPECT_EQ(report.error_name, "_MSG_TIMED_OUT");
        ids.insert(report.id);
    }
    EXPECT_EQ(ids.size(), queued);
    ClientEvent event;
    bool has_error = false;
    while (producer->PopEvent(&event))
        has_error = has_error || (!event.is_log && event.name == "_ALL_BROKERS_DOWN");
    EXPECT_TRUE(has_error);
}

TEST(ProducerTest, SendsAgainAfterAPassingError)
{
    MockBroker broker;
    broker.CreateTopic("letters", 1);
    auto producer = Connect(ConfigFor(broker.brokers()));
    rd_kafka_mock_push_request_errors(broker.cluster(), kProduceRequest, 2,
                                      RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                                      RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
    ASSERT_EQ(producer->Produce(Record("letters", 1), nullptr), Outcome::kQueued);
    std::vector<DeliveryReport> reports;
    ASSERT_TRUE(PollUntil(*producer, &reports, 1));
    EXPECT_TRUE(reports[0].is_delivered) << reports[0].error_text;
    EXPECT_EQ(reports[0].offset, 0);

    rd_kafka_mock_broker_set_down(broker.cluster(), 1);
    ASSERT_EQ(producer->Produce(Record("letters", 2), nullptr), Outcome::kQueued);
    producer->Poll(100, &reports);
    rd_kafka_mock_broker_set_up(broker.cluster(), 1);
    ASSERT_TRUE(PollUntil(*producer, &reports, 2));
    EXPECT_TRUE(reports[1].is_delivered) << reports[1].error_text;
}

TEST(ProducerTest, ReportsAPermanentError)
{
    MockBroker broker;
    broker.CreateTopic("letters", 1);
    auto producer = Connect(ConfigFor(broker.brokers()));
    rd_kafka_mock_push_request_errors(broker.cluster(), kProduceRequest, 1,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    ASSERT_EQ(producer->Produce(Record("letters", 1), nullptr), Outcome::kQueued);
    std::vector<DeliveryReport> reports;
    ASSERT_TRUE(PollUntil(*producer, &reports, 1));
    EXPECT_FALSE(reports[0].is_delivered);
    EXPECT_EQ(reports[0].error_name, "TOPIC_AUTHORIZATION_FAILED");
    EXPECT_FALSE(reports[0].error_text.empty());
}

TEST(ProducerTest, TellsAFatalErrorAndRefusesEverythingAfterwards)
{
    MockBroker broker;
    broker.CreateTopic("letters", 1);
    rd_kafka_mock_push_request_errors(broker.cluster(), kInitProducerIdRequest, 1,
                                      RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED);
    auto producer = Connect(ConfigFor(broker.brokers()));
    std::vector<DeliveryReport> reports;
    ClientEvent event;
    bool has_fatal = false;
    Deadline deadline;
    while (!has_fatal) {
        ASSERT_FALSE(deadline.IsOver());
        producer->Poll(100, &reports);
        while (producer->PopEvent(&event))
            has_fatal = has_fatal || event.is_fatal;
    }
    EXPECT_NE(producer->FatalError().find("CLUSTER_AUTHORIZATION_FAILED"), std::string::npos)
        << producer->FatalError();
    std::string reason;
    EXPECT_EQ(producer->Produce(Record("letters", 1), &reason), Outcome::kFatal);
    EXPECT_EQ(reason, producer->FatalError());

    // A new one works.
    producer = Connect(ConfigFor(broker.brokers()));
    ASSERT_EQ(producer->Produce(Record("letters", 1), nullptr), Outcome::kQueued);
    ASSERT_TRUE(PollUntil(*producer, &reports, 1));
    EXPECT_TRUE(reports[0].is_delivered);
}

// What the sender rests on: with kOrdered no record overtakes one that was refused, because the
// producer ends; with kSingly the one at fault is known and the others arrive.
TEST(ProducerTest, EndsRatherThanLeaveARecordOut)
{
    MockBroker broker;
    broker.CreateTopic("letters", 1);
    Config config = ConfigFor(broker.brokers());
    config.sending = Sending::kOrdered;
    config.options = {{"linger.ms", "50"}, {"message.timeout.ms", "1000"}};
    auto producer = Connect(config);
    rd_kafka_mock_push_request_errors(broker.cluster(), kProduceRequest, 1,
                                      RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    for (uint64_t id = 1; id <= 5; id++)
        ASSERT_EQ(producer->Produce(Record("letters", id), nullptr), Outcome::kQueued);
    std::vector<DeliveryReport> reports;
    ASSERT_TRUE(PollUntil(*producer, &reports, 5));
    for (const DeliveryReport &report : reports)
        EXPECT_EQ(report.error_name, "MSG_SIZE_TOO_LARGE"); // the whole batch, whoever it was
    EXPECT_NE(producer->FatalError().find("GAPLESS"), std::string::npos) << producer->FatalError();
    EXPECT_EQ(producer->Produce(Record("letters", 6), nullptr), Outcome::kFatal);
}

TEST(ProducerTest, SendsEachRecordAlone)
{
    MockBroker broker;
    broker.CreateTopic("letters", 1);
    Config config = ConfigFor(broker.brokers());
    config.sending = Sending::kSingly;
    config.options = {{"linger.ms", "50"}};
    auto producer = Connect(config);
    rd_kafka_mock_push_request_errors(broker.cluster(), kProduceRequest, 1,
                                      RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    for (uint64_t id = 1; id <= 5; id++)
        ASSERT_EQ(producer->Produce(Record("letters", id), nullptr), Outcome::kQueued);
    std::vector<DeliveryReport> reports;
    ASSERT_TRUE(PollUntil(*producer, &reports, 5));
    int refused = 0;
    for (const DeliveryReport &report : reports)
        refused += report.is_delivered ? 0 : 1;
    EXPECT_EQ(refused, 1);
    EXPECT_EQ(producer->FatalError(), "");
}

TEST(ProducerTest, WaitsForABrokerAsLongAsItTakes)
{
    Config config = ConfigFor("localhost:1");
    config.sending = Sending::kOrdered;
    config.options.push_back({"message.timeout.ms", "50"}); // the user's wish is for simulate()
    auto producer = Connect(config);
    ASSERT_EQ(producer->Produce(Record("letters", 1), nullptr), Outcome::kQueued);
    std::vector<DeliveryReport> reports;
    for (int i = 0; i < 20; i++)
        producer->Poll(100, &reports);
    EXPECT_TRUE(reports.empty());
    EXPECT_EQ(producer->outstanding(), 1);
}

TEST(ProducerTest, WakesUpForReports)
{
    MockBroker broker;
    broker.CreateTopic("letters", 1);
    auto producer = Connect(ConfigFor(broker.brokers()));
    pollfd ready = {producer->wakeup_fd(), POLLIN, 0};
    std::vector<DeliveryReport> reports;
    for (uint64_t id = 0; id < 100; ++id) {
        ASSERT_EQ(producer->Produce(Record("letters", id), nullptr), Outcome::kQueued);
        while (reports.size() <= id) {
            ASSERT_EQ(poll(&ready, 1, 15000), 1) << "slept through report " << id;
            producer->ClearWakeup();
            producer->Poll(0, &reports);
        }
    }
}

TEST(ProducerTest, CanBeDestroyedWithRecordsUnderWay)
{
    MockBroker broker;
    broker.CreateTopic("letters", 1);
    for (int round = 0; round < 10; ++round) {
        auto producer = Connect(ConfigFor(round % 2 == 0 ? broker.brokers() : "localhost:1"));
        for (uint64_t id = 0; id < 100; ++id)
            ASSERT_EQ(producer->Produce(Record("letters", id), nullptr), Outcome::kQueued);
        std::vector<DeliveryReport> reports;
        if (round % 3 == 0)
            producer->Poll(1, &reports);
    }
}

} // namespace

} // namespace pulse::kafka
