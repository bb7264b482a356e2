// The consumer against librdkafka's mock brokers: what Poll() hands out, that a new assignment
// drops what was fetched under the old one, that errors and wake-ups arrive.
// src/kafka/consumer.cpp.
#include "kafka/consumer.hpp"

#include <cstdlib>
#include <dirent.h>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <poll.h>
#include <set>
#include <signal.h>
#include <sys/types.h>

#include <gtest/gtest.h>

#include "mock_broker.hpp"

namespace pulse::kafka {

namespace {

using Kind = Message::Kind;

std::unique_ptr<Consumer>
Connect(const std::string &brokers, const std::string &group_id = "")
{
    Config config;
    config.brokers = brokers;
    config.client_id = "pulse-test";
    config.group_id = group_id;
    // A mock broker holds a fetch for its whole wait time even when records arrive meanwhile.
    config.options = {{"fetch.wait.max.ms", "10"}, {"reconnect.backoff.max.ms", "200"}};
    Result<std::unique_ptr<Consumer>> consumer = Consumer::Create(config);
    if (!consumer.ok())
        throw std::runtime_error(consumer.message());
    return std::move(consumer.value());
}

// Polls until is_wanted() says yes; log lines and client errors on the way are skipped unless
// wanted.
bool
PollUntil(Consumer &consumer, Message *message,
          const std::function<bool(const Message &)> &is_wanted)
{
    Deadline deadline;
    while (!deadline.IsOver())
        if (consumer.Poll(100, message) && is_wanted(*message))
            return true;
    return false;
}

bool
PollKind(Consumer &consumer, Message *message, Kind kind)
{
    return PollUntil(consumer, message, [kind](const Message &got) { return got.kind == kind; });
}

// The next thing about a partition, whatever it is.
bool
PollPartition(Consumer &consumer, Message *message)
{
    return PollUntil(consumer, message, [](const Message &got) { return got.partition >= 0; });
}

#define ASSERT_RECORD(consumer, message, wanted_offset)                                            \
    do {                                                                                           \
        ASSERT_TRUE(PollPartition(consumer, &message));                                            \
        ASSERT_EQ(message.kind, Kind::kRecord) << message.error_text;                              \
        ASSERT_EQ(message.offset, wanted_offset);                                                  \
    } while (false)

std::map<std::string, uint64_t>
BlockedSignalsByThread()
{
    std::map<std::string, uint64_t> result;
    DIR *tasks = opendir("/proc/self/task");
    for (dirent *task = readdir(tasks); task != nullptr; task = readdir(tasks)) {
        if (task->d_name[0] == '.')
            continue;
        std::ifstream status(std::string("/proc/self/task/") + task->d_name + "/status");
        for (std::string line; std::getline(status, line);)
            if (line.rfind("SigBlk:", 0) == 0)
                result[task->d_name] = std::stoull(line.substr(7), nullptr, 16);
    }
    closedir(tasks);
    return result;
}

// Fails, and ends the test program, when something doesn't return.
void
ExpectSoon(const std::function<void()> &action)
{
    std::future<void> done = std::async(std::launch::async, action);
    if (done.wait_for(std::chrono::seconds(15)) != std::future_status::ready) {
        std::fprintf(stderr, "still waiting after 15 seconds\n");
        std::abort();
    }
}

TEST(ConsumerTest, ReadsRecordsWithAllTheirParts)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.Produce(
        "events", 0,
        {"key", "value", {{"h1", "x"}, {"h2", std::nullopt}, {"h1", ""}}, 1700000000123});
    broker.Produce("events", 0, {std::nullopt, std::nullopt, {}, 0});
    broker.Produce("events", 0, {"", "", {}, 0});

    auto consumer = Connect(broker.brokers());
    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    Message message;
    ASSERT_RECORD(*consumer, message, 0);
    EXPECT_EQ(message.topic, "events");
    EXPECT_EQ(message.partition, 0);
    EXPECT_EQ(message.key, "key");
    EXPECT_EQ(message.value, "value");
    EXPECT_EQ(message.timestamp_ms, 1700000000123);
    EXPECT_FALSE(message.is_log_append_time);
    ASSERT_EQ(message.headers.size(), 3u);
    EXPECT_EQ(message.headers[0].key, "h1");
    EXPECT_EQ(message.headers[0].value, "x");
    EXPECT_EQ(message.headers[1].key, "h2");
    EXPECT_EQ(message.headers[1].value.data(), nullptr);
    EXPECT_NE(message.headers[2].value.data(), nullptr);
    EXPECT_EQ(message.headers[2].value, "");

    ASSERT_RECORD(*consumer, message, 1);
    EXPECT_EQ(message.key.data(), nullptr);
    EXPECT_EQ(message.value.data(), nullptr) << "a tombstone";
    EXPECT_TRUE(message.headers.empty());
    EXPECT_GT(message.timestamp_ms, 1700000000123);

    ASSERT_RECORD(*consumer, message, 2);
    EXPECT_NE(message.key.data(), nullptr);
    EXPECT_NE(message.value.data(), nullptr) << "an empty value is not a tombstone";
    EXPECT_EQ(message.value, "");

    ASSERT_TRUE(PollPartition(*consumer, &message));
    EXPECT_EQ(message.kind, Kind::kEndOfPartition);
    EXPECT_EQ(message.offset, 3);
    EXPECT_EQ(message.topic, "events");
    EXPECT_EQ(message.error_name, "_PARTITION_EOF");

    // The end is told again after more records.
    broker.Produce("events", 0, {std::nullopt, "more", {}, 0});
    ASSERT_RECORD(*consumer, message, 3);
    EXPECT_TRUE(message.error_text.empty());
    ASSERT_TRUE(PollKind(*consumer, &message, Kind::kEndOfPartition));
    EXPECT_EQ(message.offset, 4);
}

TEST(ConsumerTest, StartsEachPartitionAtItsOwnOffset)
{
    MockBroker broker(3);
    broker.CreateTopic("a", 3);
    broker.CreateTopic("b", 1);
    for (int partition = 0; partition < 3; ++partition)
        broker.ProduceNumbers("a", partition, 0, 10);
    broker.ProduceNumbers("b", 0, 0, 10);

    auto consumer = Connect(broker.brokers());
    ASSERT_TRUE(consumer->Assign({{"a", 0, 0}, {"a", 1, 4}, {"a", 2, 10}, {"b", 0, 9}}).ok());
    std::map<std::pair<std::string, int32_t>, std::vector<int64_t>> offsets;
    std::map<std::pair<std::string, int32_t>, int64_t> ends;
    Message message;
    ASSERT_TRUE(PollUntil(*consumer, &message, [&](const Message &got) {
        std::pair<std::string, int32_t> partition(got.topic, got.partition);
        if (got.kind == Kind::kRecord)
            offsets[partition].push_back(got.offset);
        if (got.kind == Kind::kEndOfPartition)
            ends[partition] = got.offset;
        return ends.size() == 4;
    }));
    EXPECT_EQ((offsets[{"a", 0}]), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
    EXPECT_EQ((offsets[{"a", 1}]), (std::vector<int64_t>{4, 5, 6, 7, 8, 9}));
    EXPECT_EQ((offsets[{"a", 2}]), (std::vector<int64_t>{}));
    EXPECT_EQ((offsets[{"b", 0}]), (std::vector<int64_t>{9}));
    for (const auto &[partition, end] : ends)
        EXPECT_EQ(end, 10) << partition.first << partition.second;
}

TEST(ConsumerTest, DropsWhatWasFetchedBeforeANewAssignment)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    broker.ProduceNumbers("events", 0, 0, 1000);
    broker.ProduceNumbers("events", 1, 0, 1000);
    auto consumer = Connect(broker.brokers());
    Message message;

    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    ASSERT_RECORD(*consumer, message, 0); // one fetch brought the other 999 too
    ASSERT_TRUE(consumer->Assign({{"events", 0, 5}}).ok());
    ASSERT_RECORD(*consumer, message, 5);

    // Forward, backward, to the same place; with and without taking a record in between.
    unsigned random = 7;
    for (int round = 0; round < 200; ++round) {
        random = random * 1103515245 + 12345;
        int64_t offset = (random >> 8) % 1000;
        ASSERT_TRUE(consumer->Assign({{"events", 0, offset}}).ok());
        if (round % 3 == 0)
            continue;
        ASSERT_RECORD(*consumer, message, offset);
        ASSERT_EQ(message.value, std::to_string(offset));
    }
}

TEST(ConsumerTest, AddsAndRemovesPartitions)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    broker.ProduceNumbers("events", 0, 0, 100);
    broker.ProduceNumbers("events", 1, 0, 100);
    auto consumer = Connect(broker.brokers());
    Message message;
    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    ASSERT_RECORD(*consumer, message, 0);
    ASSERT_RECORD(*consumer, message, 1);

    ASSERT_TRUE(consumer->Assign({{"events", 0, 2}, {"events", 1, 50}}).ok());
    std::map<int32_t, int64_t> expected = {{0, 2}, {1, 50}};
    while (expected[0] < 100 || expected[1] < 100) {
        ASSERT_TRUE(PollKind(*consumer, &message, Kind::kRecord));
        ASSERT_EQ(message.offset, expected[message.partition]++) << message.partition;
    }

    ASSERT_TRUE(consumer->Assign({{"events", 1, 0}}).ok());
    for (int64_t offset = 0; offset < 100; ++offset) {
        ASSERT_RECORD(*consumer, message, offset);
        ASSERT_EQ(message.partition, 1);
    }

    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    ASSERT_RECORD(*consumer, message, 0);
    ASSERT_TRUE(consumer->Assign({}).ok());
    while (consumer->Poll(100, &message))
        EXPECT_NE(message.kind, Kind::kRecord);
}

TEST(ConsumerTest, RefusesAssignmentsWithoutAnOffset)
{
    auto consumer = Connect("localhost:1");
    for (int64_t offset : {int64_t{-1}, int64_t{-2}, kOffsetUnknown}) {
        Status status = consumer->Assign({{"events", 3, offset}});
        ASSERT_FALSE(status.ok());
        EXPECT_NE(status.message().find("events/3"), std::string::npos) << status.message();
    }
}

TEST(ConsumerTest, ReportsAnOffsetThatIsNotInTheLog)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    broker.ProduceNumbers("events", 0, 0, 10);
    broker.ProduceNumbers("events", 1, 0, 10);
    auto consumer = Connect(broker.brokers());
    ASSERT_TRUE(consumer->Assign({{"events", 0, 1000}, {"events", 1, 0}}).ok());
    Message message;
    ASSERT_TRUE(PollKind(*consumer, &message, Kind::kPartitionError));
    EXPECT_TRUE(message.is_out_of_range);
    EXPECT_FALSE(message.is_fatal);
    EXPECT_EQ(message.topic, "events");
    EXPECT_EQ(message.partition, 0);
    EXPECT_EQ(message.offset, 1000);
    EXPECT_EQ(message.error_name, "_AUTO_OFFSET_RESET");
    EXPECT_FALSE(message.error_text.empty());

    // Only that partition stops, and a new assignment starts it again.
    consumer->Assign({{"events", 0, 9}, {"events", 1, 9}});
    std::set<int32_t> seen;
    ASSERT_TRUE(PollUntil(*consumer, &message, [&](const Message &got) {
        if (got.kind == Kind::kRecord && got.offset == 9)
            seen.insert(got.partition);
        return seen.size() == 2;
    }));
}

TEST(ConsumerTest, ReportsPartitionErrorsAndGoesOn)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 10);
    rd_kafka_mock_push_request_errors(broker.cluster(), kFetchRequest, 1,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    auto consumer = Connect(broker.brokers());
    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    Message message;
    ASSERT_TRUE(PollPartition(*consumer, &message));
    EXPECT_EQ(message.kind, Kind::kPartitionError);
    EXPECT_EQ(message.error_name, "TOPIC_AUTHORIZATION_FAILED");
    EXPECT_EQ(message.offset, 0);
    EXPECT_FALSE(message.is_out_of_range);
    ASSERT_RECORD(*consumer, message, 0);
    EXPECT_EQ(message.error_code, 0);
}

TEST(ConsumerTest, ReportsATopicThatIsNotThere)
{
    MockBroker broker;
    auto consumer = Connect(broker.brokers());
    ASSERT_TRUE(consumer->Assign({{"nowhere", 0, 0}}).ok());
    Message message;
    ASSERT_TRUE(PollKind(*consumer, &message, Kind::kPartitionError));
    EXPECT_EQ(message.topic, "nowhere");
    EXPECT_EQ(message.partition, 0);
    EXPECT_EQ(message.offset, -1);
    EXPECT_EQ(message.error_name, "UNKNOWN_TOPIC_OR_PART");
    Result<std::vector<TopicMetadata>> all = consumer->FetchMetadata({}, 10000);
    ASSERT_TRUE(all.ok()) << all.message();
    EXPECT_TRUE(all.value().empty()) << "assigning must not create a topic";

    // Once the topic is there, the assignment that waited for it is served.
    broker.CreateTopic("nowhere", 1);
    broker.ProduceNumbers("nowhere", 0, 0, 1);
    ASSERT_TRUE(PollKind(*consumer, &message, Kind::kRecord));
}

// Told by librdkafka only when it learns of the topic; a partition assigned later is waited for in
// silence, which is why the watcher compares with the metadata.
TEST(ConsumerTest, ReportsAPartitionThatIsNotThere)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    auto consumer = Connect(broker.brokers());
    ASSERT_TRUE(consumer->Assign({{"events", 7, 0}}).ok());
    Message message;
    ASSERT_TRUE(PollKind(*consumer, &message, Kind::kPartitionError));
    EXPECT_EQ(message.topic, "events");
    EXPECT_EQ(message.partition, 7);
    EXPECT_EQ(message.error_name, "_UNKNOWN_PARTITION");
}

TEST(ConsumerTest, ReportsALostBrokerAndReadsOnAfterwards)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 10);
    auto consumer = Connect(broker.brokers());
    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    Message message;
    ASSERT_TRUE(PollKind(*consumer, &message, Kind::kEndOfPartition));

    rd_kafka_mock_broker_set_down(broker.cluster(), 1);
    std::set<std::string> errors;
    bool has_log = false;
    ASSERT_TRUE(PollUntil(*consumer, &message, [&](const Message &got) {
        if (got.kind == Kind::kClientError) {
            EXPECT_EQ(got.partition, -1);
            EXPECT_FALSE(got.is_fatal);
            EXPECT_FALSE(got.error_text.empty());
            EXPECT_NE(got.error_code, 0);
            errors.insert(got.error_name);
        }
        if (got.kind == Kind::kLog) {
            EXPECT_FALSE(got.error_text.empty());
            EXPECT_FALSE(got.error_name.empty());
            EXPECT_LE(got.severity, 6);
            has_log = true;
        }
        return has_log && errors.count("_ALL_BROKERS_DOWN") != 0;
    }));
    EXPECT_GT(errors.size(), 1u);

    rd_kafka_mock_broker_set_up(broker.cluster(), 1);
    broker.ProduceNumbers("events", 0, 10, 1);
    ASSERT_TRUE(PollKind(*consumer, &message, Kind::kRecord));
    EXPECT_EQ(message.offset, 10) << "nothing twice, nothing missing";
}

TEST(ConsumerTest, ReportsThatNoBrokerIsThere)
{
    auto consumer = Connect("localhost:1");
    Message message;
    EXPECT_TRUE(PollUntil(*consumer, &message, [](const Message &got) {
        return got.kind == Kind::kClientError && got.error_name == "_ALL_BROKERS_DOWN";
    }));
    // Errors reach a poll that doesn't wait, too, and a wait ends early for them.
    EXPECT_FALSE(consumer->FetchMetadata({"events"}, 200).ok());
    EXPECT_FALSE(consumer->QueryWatermarks("events", 0, 200).ok());
    std::vector<PartitionOffset> times = {{"events", 0, 0}};
    EXPECT_FALSE(consumer->OffsetsForTimes(&times, 200).ok());
    EXPECT_EQ(times[0].next_offset, 0);
}

TEST(ConsumerTest, WakesUpForEveryArrival)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    auto consumer = Connect(broker.brokers());
    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    pollfd ready = {consumer->wakeup_fd(), POLLIN, 0};
    Message message;
    int64_t expected = 0;
    for (int round = 0; round < 200; ++round) {
        broker.ProduceNumbers("events", 0, round, 1);
        Deadline deadline;
        while (expected <= round) {
            ASSERT_FALSE(deadline.IsOver()) << "slept through record " << expected;
            ASSERT_EQ(poll(&ready, 1, 15000), 1) << "slept through record " << expected;
            consumer->ClearWakeup();
            while (consumer->Poll(0, &message))
                if (message.kind == Kind::kRecord) {
                    ASSERT_EQ(message.offset, expected);
                    ++expected;
                }
        }
    }
    ASSERT_TRUE(PollKind(*consumer, &message, Kind::kEndOfPartition));
    consumer->ClearWakeup();
    while (consumer->Poll(0, &message))
        ;
    consumer->ClearWakeup();
    EXPECT_EQ(poll(&ready, 1, 0), 0) << "nothing to read, nothing to wake for";
}

TEST(ConsumerTest, RunsItsThreadsWithAllSignalsBlocked)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    auto before = BlockedSignalsByThread();
    auto consumer = Connect(broker.brokers());
    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    Message message;
    ASSERT_TRUE(PollKind(*consumer, &message, Kind::kEndOfPartition));
    int found = 0;
    for (const auto &[thread, blocked] : BlockedSignalsByThread()) {
        if (before.count(thread) != 0)
            continue;
        ++found;
        for (int signal : {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGCHLD,
                           SIGPIPE, SIGURG, SIGIO})
            EXPECT_TRUE(blocked & (uint64_t{1} << (signal - 1))) << thread << " takes " << signal;
    }
    EXPECT_GE(found, 3) << "main, bootstrap broker, broker";
}

TEST(ConsumerTest, TellsWhichTopicsExistWithoutCreatingAny)
{
    MockBroker broker;
    broker.CreateTopic("one", 1);
    broker.CreateTopic("four", 4);
    auto consumer = Connect(broker.brokers());
    Result<std::vector<TopicMetadata>> some =
        consumer->FetchMetadata({"four", "none", "one"}, 10000);
    ASSERT_TRUE(some.ok()) << some.message();
    ASSERT_EQ(some.value().size(), 3u);
    EXPECT_EQ(some.value()[0].topic, "four");
    EXPECT_EQ(some.value()[0].partition_count, 4);
    EXPECT_EQ(some.value()[0].error_name, "");
    EXPECT_EQ(some.value()[1].topic, "none");
    EXPECT_EQ(some.value()[1].partition_count, 0);
    EXPECT_EQ(some.value()[1].error_name, "UNKNOWN_TOPIC_OR_PART");
    EXPECT_EQ(some.value()[2].partition_count, 1);

    Result<std::vector<TopicMetadata>> all = consumer->FetchMetadata({}, 10000);
    ASSERT_TRUE(all.ok()) << all.message();
    std::set<std::string> names;
    for (const TopicMetadata &topic : all.value())
        names.insert(topic.topic);
    EXPECT_EQ(names, (std::set<std::string>{"four", "one"}));
    EXPECT_FALSE(consumer->FetchMetadata({std::string(600, 'x')}, 1000).ok());
}

TEST(ConsumerTest, KnowsWatermarks)
{
    MockBroker broker(2);
    broker.CreateTopic("events", 2);
    broker.ProduceNumbers("events", 0, 0, 7);
    auto consumer = Connect(broker.brokers());
    Watermarks cached = consumer->CachedWatermarks("events", 0);
    EXPECT_EQ(cached.low, -1);
    EXPECT_EQ(cached.high, -1);
    EXPECT_EQ(consumer->CachedWatermarks("nowhere", 9).high, -1);

    Result<Watermarks> asked = consumer->QueryWatermarks("events", 0, 10000);
    ASSERT_TRUE(asked.ok()) << asked.message();
    EXPECT_EQ(asked.value().low, 0);
    EXPECT_EQ(asked.value().high, 7);
    asked = consumer->QueryWatermarks("events", 1, 10000);
    ASSERT_TRUE(asked.ok()) << asked.message();
    EXPECT_EQ(asked.value().low, 0);
    EXPECT_EQ(asked.value().high, 0);
    EXPECT_FALSE(consumer->QueryWatermarks("events", 2, 10000).ok());
    EXPECT_FALSE(consumer->QueryWatermarks("nowhere", 0, 10000).ok());

    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    Message message;
    ASSERT_TRUE(PollKind(*consumer, &message, Kind::kEndOfPartition));
    cached = consumer->CachedWatermarks("events", 0);
    EXPECT_EQ(cached.low, 0);
    EXPECT_EQ(cached.high, 7);
}

TEST(ConsumerTest, AnswersTheEndForTimesWithoutALaterRecord)
{
    MockBroker broker(2);
    broker.CreateTopic("events", 2);
    broker.ProduceNumbers("events", 0, 0, 7);
    auto consumer = Connect(broker.brokers());
    // A mock broker knows no times, only the beginning, the end, and "no such record".
    std::vector<PartitionOffset> times = {{"events", 0, 4102444800000}, {"events", 1, 0}};
    Status status = consumer->OffsetsForTimes(&times, 10000);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(times[0].next_offset, 7);
    EXPECT_EQ(times[1].next_offset, 0);
    times = {{"events", 0, 1}, {"events", 5, 1}};
    EXPECT_FALSE(consumer->OffsetsForTimes(&times, 10000).ok());
    EXPECT_EQ(times[0].next_offset, 1) << "untouched on failure";
    times.clear();
    EXPECT_TRUE(consumer->OffsetsForTimes(&times, 10000).ok());
}

// What another client sees as the group's position.
int64_t
Committed(const std::string &brokers, const std::string &group, const std::string &topic,
          int32_t partition)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", brokers.c_str(), nullptr, 0);
    rd_kafka_conf_set(conf, "group.id", group.c_str(), nullptr, 0);
    rd_kafka_conf_set(conf, "log_level", "2", nullptr, 0);
    rd_kafka_t *other = rd_kafka_new(RD_KAFKA_CONSUMER, conf, nullptr, 0);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic.c_str(), partition);
    rd_kafka_resp_err_t code = rd_kafka_committed(other, list, 10000);
    int64_t offset = code == RD_KAFKA_RESP_ERR_NO_ERROR ? list->elems[0].offset : -2;
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(other);
    return offset;
}

TEST(ConsumerTest, MirrorsOffsetsToTheGroup)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    broker.ProduceNumbers("events", 0, 0, 10);
    auto consumer = Connect(broker.brokers(), "lag-tools");
    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    // More than fit in one request: the later ones are merged and sent after its answer.
    for (int64_t offset = 1; offset <= 10; ++offset)
        consumer->MirrorOffsets({{"events", 0, offset}, {"events", 1, kOffsetUnknown}});
    consumer->MirrorOffsets({{"events", 1, 3}});
    Message message;
    Deadline deadline;
    while (Committed(broker.brokers(), "lag-tools", "events", 0) != 10 ||
           Committed(broker.brokers(), "lag-tools", "events", 1) != 3) {
        ASSERT_FALSE(deadline.IsOver());
        while (consumer->Poll(0, &message))
            ASSERT_NE(message.kind, Kind::kClientError) << message.error_text;
    }
}

TEST(ConsumerTest, MirrorsNothingWithoutAGroup)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    auto consumer = Connect(broker.brokers());
    consumer->MirrorOffsets({{"events", 0, 5}});
    Message message;
    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    ASSERT_TRUE(PollKind(*consumer, &message, Kind::kEndOfPartition));
    EXPECT_EQ(Committed(broker.brokers(), "pulse-no-group", "events", 0), RD_KAFKA_OFFSET_INVALID);
}

TEST(ConsumerTest, AssignsWhileTheGroupsBrokerIsSilent)
{
    MockBroker broker(2);
    broker.CreateTopic("events", 1);
    rd_kafka_mock_partition_set_leader(broker.cluster(), "events", 0, 1);
    rd_kafka_mock_coordinator_set(broker.cluster(), "group", "lag-tools", 2);
    broker.ProduceNumbers("events", 0, 0, 10);
    auto consumer = Connect(broker.brokers(), "lag-tools");
    Message message;
    ASSERT_TRUE(consumer->Assign({{"events", 0, 0}}).ok());
    ASSERT_RECORD(*consumer, message, 0);

    rd_kafka_mock_broker_set_rtt(broker.cluster(), 2, 20000);
    for (int round = 0; round < 10; ++round) {
        consumer->MirrorOffsets({{"events", 0, round}});
        ASSERT_TRUE(consumer->Assign({{"events", 0, round}}).ok());
        ASSERT_RECORD(*consumer, message, round);
    }
}

TEST(ConsumerTest, CanBeDestroyedAtAnyMoment)
{
    MockBroker broker(2);
    broker.CreateTopic("events", 4);
    for (int partition = 0; partition < 4; ++partition)
        broker.ProduceNumbers("events", partition, 0, 100);
    for (int round = 0; round < 20; ++round) {
        auto consumer = Connect(broker.brokers(), "lag-tools");
        Message message;
        if (round % 5 == 0)
            continue;
        ASSERT_TRUE(consumer->Assign({{"events", 0, 0}, {"events", 1, 0}, {"events", 2, 0}}).ok());
        if (round % 5 == 1)
            continue;
        ASSERT_TRUE(PollKind(*consumer, &message, Kind::kRecord)); // still held at the end
        if (round % 5 == 2)
            continue;
        consumer->MirrorOffsets({{"events", 0, 1}});
        if (round % 5 == 3)
            continue;
        ASSERT_TRUE(consumer->Assign({{"events", 3, 0}}).ok());
    }
    // Deleted partitions: the library would wait for ever.
    for (int round = 0; round < 3; ++round) {
        std::string topic = "deleted" + std::to_string(round);
        broker.CreateTopic(topic, 3);
        broker.ProduceNumbers(topic, 0, 0, 100);
        auto consumer = Connect(broker.brokers());
        Message message;
        ASSERT_TRUE(consumer->Assign({{topic, 0, 0}, {topic, 1, 0}, {topic, 2, 0}}).ok());
        ASSERT_TRUE(PollKind(*consumer, &message, Kind::kRecord));
        rd_kafka_mock_topic_set_error(broker.cluster(), topic.c_str(),
                                      RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
        ASSERT_TRUE(consumer->FetchMetadata({topic}, 10000).ok());
        ASSERT_TRUE(PollKind(*consumer, &message, Kind::kPartitionError));
        if (round == 1) {
            ASSERT_TRUE(consumer->Assign({{topic, 0, 5}, {topic, 1, 0}}).ok());
        } else if (round == 2) {
            ASSERT_TRUE(consumer->Assign({}).ok());
        }
        ExpectSoon([&] { consumer.reset(); });
    }
    auto stranded = Connect("localhost:1");
    ASSERT_TRUE(stranded->Assign({{"events", 0, 0}}).ok());
    stranded.reset();
}

} // namespace

} // namespace pulse::kafka
