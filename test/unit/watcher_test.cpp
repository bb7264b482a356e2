// What the coordinator's thread learns from the broker, against librdkafka's mock brokers.
// src/ingest/watcher.hpp.
#include "ingest/watcher.hpp"

#include <gtest/gtest.h>

#include "base/crc32c.hpp"

#include <filesystem>
#include <poll.h>
#include <thread>

#include "mock_broker.hpp"

namespace pulse::ingest {

namespace {

using kafka::Deadline;
using kafka::MockBroker;

WatchRequest
Probe(const std::string &brokers, std::vector<std::string> topics, int64_t id = 0)
{
    WatchRequest request;
    request.kind = WatchRequest::Kind::kProbe;
    request.id = id;
    request.pipeline = "events";
    request.version = 7;
    request.config.brokers = brokers;
    request.config.client_id = "pulse-test";
    request.topics = std::move(topics);
    return request;
}

WatchRequest
Resolve(const std::string &brokers, std::vector<PartitionOffset> partitions, Position position)
{
    WatchRequest request = Probe(brokers, {}, 1);
    request.kind = WatchRequest::Kind::kResolve;
    request.partitions = std::move(partitions);
    request.position = position;
    return request;
}

std::vector<WatchAnswer>
TakeAnswers(Watcher &watcher, size_t count)
{
    std::vector<WatchAnswer> answers;
    Deadline deadline(40);
    while (answers.size() < count && !deadline.IsOver()) {
        pollfd fd = {watcher.fd(), POLLIN, 0};
        (void)poll(&fd, 1, 1000);
        for (WatchAnswer &answer : watcher.TakeAnswers())
            answers.push_back(std::move(answer));
    }
    return answers;
}

WatchAnswer
AskOne(Watcher &watcher, WatchRequest request)
{
    watcher.Ask(std::move(request));
    std::vector<WatchAnswer> answers = TakeAnswers(watcher, 1);
    if (answers.empty())
        throw std::runtime_error("no answer");
    return answers[0];
}

// "topic/partition low..high", sorted as they came.
std::vector<std::string>
Show(const std::vector<PartitionWatermarks> &watermarks)
{
    std::vector<std::string> result;
    for (const PartitionWatermarks &entry : watermarks)
        result.push_back(entry.topic + "/" + std::to_string(entry.partition) + " " +
                         std::to_string(entry.low) + ".." + std::to_string(entry.high));
    return result;
}

// "topic/partition: why".
std::vector<std::string>
Show(const std::vector<PartitionTrouble> &troubles)
{
    std::vector<std::string> result;
    for (const PartitionTrouble &entry : troubles)
        result.push_back(entry.topic + "/" + std::to_string(entry.partition) + ": " + entry.text);
    return result;
}

std::vector<int64_t>
Offsets(const WatchAnswer &answer)
{
    std::vector<int64_t> result;
    for (const PartitionOffset &entry : answer.resolved)
        result.push_back(entry.next_offset);
    return result;
}

} // namespace

TEST(WatcherTest, FindsPartitionsAndTheirEnds)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    broker.CreateTopic("other", 1);
    broker.ProduceNumbers("events", 1, 0, 7);
    Watcher watcher;
    WatchAnswer answer = AskOne(watcher, Probe(broker.brokers(), {"events"}));
    EXPECT_EQ(answer.error, "");
    EXPECT_EQ(answer.pipeline, "events");
    EXPECT_EQ(answer.version, 7);
    EXPECT_EQ(Show(answer.watermarks),
              (std::vector<std::string>{"events/0 0..0", "events/1 0..7"}));
    EXPECT_TRUE(answer.missing_topics.empty());

    broker.ProduceNumbers("events", 0, 0, 3);
    answer = AskOne(watcher, Probe(broker.brokers(), {"other", "events"}));
    EXPECT_EQ(Show(answer.watermarks),
              (std::vector<std::string>{"events/0 0..3", "events/1 0..7", "other/0 0..0"}));
}

TEST(WatcherTest, NamesMissingTopicsAndCreatesNone)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    Watcher watcher;
    for (int round = 0; round < 2; round++) {
        WatchAnswer answer = AskOne(watcher, Probe(broker.brokers(), {"nowhere", "events"}));
        EXPECT_EQ(answer.error, "");
        ASSERT_EQ(answer.missing_topics.size(), 1u);
        EXPECT_EQ(Describe(*answer.missing_topics.begin()), "topic \"nowhere\" does not exist");
        EXPECT_EQ(Show(answer.watermarks), (std::vector<std::string>{"events/0 0..0"}));
    }
    broker.CreateTopic("nowhere", 1);
    WatchAnswer answer = AskOne(watcher, Probe(broker.brokers(), {"nowhere"}));
    EXPECT_TRUE(answer.missing_topics.empty());
    EXPECT_EQ(Show(answer.watermarks), (std::vector<std::string>{"nowhere/0 0..0"}));
}

TEST(WatcherTest, SaysWhatKafkaSaysOfATopic)
{
    MockBroker broker;
    broker.CreateTopic("secret", 1);
    broker.CreateTopic("events", 1);
    rd_kafka_mock_topic_set_error(broker.cluster(), "secret",
                                  RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    Watcher watcher;
    WatchAnswer answer = AskOne(watcher, Probe(broker.brokers(), {"secret", "events"}));
    ASSERT_EQ(answer.missing_topics.size(), 1u);
    EXPECT_EQ(Describe(*answer.missing_topics.begin()),
              "topic \"secret\" cannot be read (TOPIC_AUTHORIZATION_FAILED)");
    EXPECT_EQ(Show(answer.watermarks), (std::vector<std::string>{"events/0 0..0"}));
    answer = AskOne(watcher, Resolve(broker.brokers(), {{"secret", 0, 0}}, Position{}));
    EXPECT_NE(answer.error.find("TOPIC_AUTHORIZATION_FAILED"), std::string::npos) << answer.error;
}

TEST(WatcherTest, MatchesRegularExpressions)
{
    MockBroker broker;
    const std::string longest(60, 'z');
    for (const std::string &topic :
         {std::string("clicks_de"), std::string("clicks_fr"), std::string("myclicks_de"), longest,
          std::string("__consumer_offsets")})
        broker.CreateTopic(topic, 1);
    Watcher watcher;
    WatchAnswer answer = AskOne(watcher, Probe(broker.brokers(), {"^clicks_(de|fr)$"}));
    EXPECT_EQ(answer.error, "");
    EXPECT_EQ(Show(answer.watermarks),
              (std::vector<std::string>{"clicks_de/0 0..0", "clicks_fr/0 0..0"}));
    answer = AskOne(watcher, Probe(broker.brokers(), {"^.*"}));
    EXPECT_EQ(answer.watermarks.size(), 4u) << "Kafka's own topics are not for pipelines";
    answer = AskOne(watcher, Probe(broker.brokers(), {"^nothing"}));
    EXPECT_EQ(answer.error, "");
    EXPECT_TRUE(answer.watermarks.empty());
    EXPECT_TRUE(answer.missing_topics.empty());
    answer = AskOne(watcher, Probe(broker.brokers(), {"^(([a-z_]*)*)*!"}));
    EXPECT_EQ(answer.error, "") << "no pattern takes for ever";
    answer = AskOne(watcher, Probe(broker.brokers(), {"^clicks_("}));
    EXPECT_NE(answer.error.find("^clicks_("), std::string::npos) << answer.error;
    EXPECT_TRUE(answer.is_definition) << "the broker has nothing to do with it";
    answer = AskOne(watcher, Probe(broker.brokers(), {"^clicks_d"}));
    EXPECT_EQ(answer.watermarks.size(), 1u) << "a bad pattern harms nothing else";
}

TEST(WatcherTest, ResolvesPositions)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    broker.ProduceNumbers("events", 0, 0, 10);
    broker.ProduceNumbers("events", 1, 0, 5);
    Watcher watcher;
    std::vector<PartitionOffset> both{{"events", 0, 0}, {"events", 1, 0}};
    auto ask = [&](Position position) {
        return AskOne(watcher, Resolve(broker.brokers(), both, position));
    };
    WatchAnswer answer = ask({Position::Kind::kEarliest, 0});
    EXPECT_EQ(answer.error, "");
    EXPECT_EQ(answer.kind, WatchRequest::Kind::kResolve);
    EXPECT_EQ(Offsets(answer), (std::vector<int64_t>{0, 0}));
    EXPECT_EQ(Show(answer.watermarks),
              (std::vector<std::string>{"events/0 0..10", "events/1 0..5"}));
    EXPECT_EQ(Offsets(ask({Position::Kind::kLatest, 0})), (std::vector<int64_t>{10, 5}));
    EXPECT_EQ(Offsets(ask({Position::Kind::kOffset, 7})), (std::vector<int64_t>{7, 7}))
        << "the asker compares it with the ends";
    // A time after the last record is the end of the log.
    EXPECT_EQ(Offsets(ask({Position::Kind::kTime, 4102444800000})), (std::vector<int64_t>{10, 5}));
}

TEST(WatcherTest, TellsTheSameLogFromAnother)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 10);
    Watcher watcher;
    auto ask = [&](int64_t highest, const Fingerprint &last) {
        WatchAnswer answer =
            AskOne(watcher, Resolve(broker.brokers(), {{"events", 0, highest, last}}, Position{}));
        EXPECT_EQ(answer.error, "");
        return answer.logs.at(0);
    };
    Fingerprint ninth = {9, Fingerprint::kUnknownTime, RecordCrc({}, "9")};
    EXPECT_EQ(ask(10, ninth), LogIdentity::kSame);
    EXPECT_EQ(ask(10, {}), LogIdentity::kUnproved);
    EXPECT_EQ(ask(11, {}), LogIdentity::kAnother) << "more was read than there is";
    ninth.crc++;
    EXPECT_EQ(ask(10, ninth), LogIdentity::kAnother);
    EXPECT_EQ(ask(0, {10, Fingerprint::kUnknownTime, 1}), LogIdentity::kAnother);
}

TEST(WatcherTest, ReadsOneRecord)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 10);
    Watcher watcher;
    auto read = [&](int64_t from) {
        WatchRequest request = Resolve(broker.brokers(), {{"events", 0, from}}, Position{});
        request.kind = WatchRequest::Kind::kRead;
        WatchAnswer answer = AskOne(watcher, request);
        EXPECT_EQ(answer.error, "");
        return answer.record;
    };
    FetchedRecord record = read(7);
    EXPECT_TRUE(record.is_found && record.has_value && !record.has_key);
    EXPECT_EQ(record.kafka_offset, 7);
    EXPECT_EQ(record.value, "7");
    EXPECT_FALSE(read(10).is_found);
}

TEST(WatcherTest, SaysWhyThereIsNoAnswer)
{
    Watcher watcher;
    WatchAnswer answer = AskOne(watcher, Probe("localhost:1", {"events"}));
    EXPECT_NE(answer.error, "");
    EXPECT_TRUE(answer.watermarks.empty());
    WatchRequest request = Probe("localhost:1", {"events"});
    request.config.options = {{"fetch.wait.max.ms", "a while"}};
    answer = AskOne(watcher, std::move(request));
    EXPECT_NE(answer.error.find("fetch.wait.max.ms"), std::string::npos) << answer.error;
    EXPECT_TRUE(answer.is_definition);
}

// The coordinator of many pipelines: one broker that is away takes no answer from the others.
TEST(WatcherTest, AnswersInOrder)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    Watcher watcher;
    watcher.Ask(Probe(broker.brokers(), {"events"}, 1));
    watcher.Ask(Probe("localhost:1", {"events"}, 2));
    watcher.Ask(Probe(broker.brokers(), {"events"}, 3));
    std::vector<WatchAnswer> answers = TakeAnswers(watcher, 3);
    ASSERT_EQ(answers.size(), 3u);
    for (size_t i = 0; i < 3; i++) {
        EXPECT_EQ(answers[i].id, static_cast<int64_t>(i) + 1);
        EXPECT_EQ(answers[i].error.empty(), i != 1);
    }
}

TEST(WatcherTest, ReachesABrokerThatWasAway)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    rd_kafka_mock_broker_set_down(broker.cluster(), 1);
    Watcher watcher;
    EXPECT_NE(AskOne(watcher, Probe(broker.brokers(), {"events"})).error, "");
    rd_kafka_mock_broker_set_up(broker.cluster(), 1);
    Deadline deadline(30);
    std::string error = "not asked";
    while (!error.empty() && !deadline.IsOver())
        error = AskOne(watcher, Probe(broker.brokers(), {"events"})).error;
    EXPECT_EQ(error, "");
}

// Twenty pipelines of a broker that is away: each would have to wait for the timeouts of the
// others.
TEST(WatcherTest, WaitsForASilentBrokerOnce)
{
    Watcher watcher;
    for (int i = 0; i < 20; i++)
        watcher.Ask(Probe("localhost:1", {"events"}, i));
    std::vector<WatchAnswer> answers = TakeAnswers(watcher, 20);
    ASSERT_EQ(answers.size(), 20u);
    for (const WatchAnswer &answer : answers) {
        EXPECT_NE(answer.error, "");
        EXPECT_FALSE(answer.is_definition);
    }
}

constexpr std::chrono::seconds kAtOnce(4); // librdkafka would wait five for a leader
constexpr const char *kLeaderless = "it has no leader (LEADER_NOT_AVAILABLE)";

// Requests of others, queued behind the one about the partition in trouble.
void
ExpectOthersAreServed(MockBroker &broker, WatchRequest troubled, std::chrono::seconds within)
{
    Watcher watcher;
    (void)AskOne(watcher, Probe(broker.brokers(), {"other"})); // the client is made and connected
    auto began = std::chrono::steady_clock::now();
    watcher.Ask(std::move(troubled));
    WatchRequest other = Probe(broker.brokers(), {"other"}, 2);
    other.pipeline = "other";
    watcher.Ask(other);
    WatchRequest seek = Resolve(broker.brokers(), {{"other", 0, 0}}, {Position::Kind::kLatest, 0});
    seek.pipeline = "other";
    watcher.Ask(seek);
    std::vector<WatchAnswer> answers = TakeAnswers(watcher, 3);
    ASSERT_EQ(answers.size(), 3u);
    EXPECT_EQ(answers[1].error, "");
    EXPECT_EQ(Show(answers[1].watermarks), (std::vector<std::string>{"other/0 0..4"}));
    EXPECT_EQ(answers[2].error, "");
    EXPECT_EQ(Offsets(answers[2]), (std::vector<int64_t>{4}));
    EXPECT_LT(std::chrono::steady_clock::now() - began, within);
}

TEST(WatcherTest, APartitionWithoutLeaderCostsTheOthersNothing)
{
    MockBroker broker;
    broker.CreateTopic("events", 3);
    broker.CreateTopic("other", 1);
    broker.ProduceNumbers("events", 0, 0, 3);
    broker.ProduceNumbers("events", 1, 0, 5);
    broker.ProduceNumbers("other", 0, 0, 4);
    Watcher watcher;
    EXPECT_EQ(AskOne(watcher, Probe(broker.brokers(), {"events"})).watermarks.size(), 3u);
    rd_kafka_mock_partition_set_leader(broker.cluster(), "events", 1, -1);
    for (int round = 0; round < 3; round++) {
        auto began = std::chrono::steady_clock::now();
        WatchAnswer answer = AskOne(watcher, Probe(broker.brokers(), {"events"}));
        EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(4))
            << "nobody waits for a leader";
        EXPECT_EQ(answer.error, "");
        EXPECT_EQ(Show(answer.watermarks),
                  (std::vector<std::string>{"events/0 0..3", "events/2 0..0"}));
        EXPECT_EQ(Show(answer.troubles),
                  (std::vector<std::string>{std::string("events/1: ") + kLeaderless}));
    }
    ExpectOthersAreServed(broker, Probe(broker.brokers(), {"events"}, 1), kAtOnce);

    rd_kafka_mock_partition_set_leader(broker.cluster(), "events", 1, 1);
    WatchAnswer answer = AskOne(watcher, Probe(broker.brokers(), {"events"}));
    EXPECT_EQ(Show(answer.watermarks),
              (std::vector<std::string>{"events/0 0..3", "events/1 0..5", "events/2 0..0"}));
    EXPECT_TRUE(answer.troubles.empty());
}

TEST(WatcherTest, OnePartitionWithoutLeaderIsNoBrokerThatIsAway)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    rd_kafka_mock_partition_set_leader(broker.cluster(), "events", 0, -1);
    Watcher watcher;
    WatchAnswer answer = AskOne(watcher, Probe(broker.brokers(), {"events"}));
    EXPECT_EQ(answer.error, "");
    EXPECT_EQ(Show(answer.troubles),
              (std::vector<std::string>{std::string("events/0: ") + kLeaderless}));
}

TEST(WatcherTest, CommandsAboutAPartitionWithoutLeaderAreRefusedAtOnce)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    broker.CreateTopic("other", 1);
    broker.ProduceNumbers("events", 0, 0, 3);
    broker.ProduceNumbers("other", 0, 0, 4);
    rd_kafka_mock_partition_set_leader(broker.cluster(), "events", 1, -1);
    std::vector<PartitionOffset> both{{"events", 0, 1}, {"events", 1, 1}};
    std::string why = std::string("partition 1 of topic \"events\": ") + kLeaderless;
    Position latest = {Position::Kind::kLatest, 0};

    Watcher watcher;
    WatchAnswer answer = AskOne(watcher, Resolve(broker.brokers(), both, latest));
    EXPECT_EQ(answer.error, why) << "all of them or none";
    EXPECT_EQ(Offsets(AskOne(watcher, Resolve(broker.brokers(), {both[0]}, latest))),
              (std::vector<int64_t>{3}));
    WatchRequest judge = Resolve(broker.brokers(), both, latest);
    judge.kind = WatchRequest::Kind::kJudge;
    answer = AskOne(watcher, judge);
    EXPECT_EQ(answer.error, "");
    EXPECT_EQ(Show(answer.watermarks), (std::vector<std::string>{"events/0 0..3"}));
    EXPECT_EQ(Offsets(answer), (std::vector<int64_t>{3}));
    EXPECT_EQ(answer.logs.size(), 1u);
    WatchRequest read = Resolve(broker.brokers(), {both[1]}, {});
    read.kind = WatchRequest::Kind::kRead;
    EXPECT_EQ(AskOne(watcher, read).error, why);
    ExpectOthersAreServed(broker, Resolve(broker.brokers(), both, latest), kAtOnce);
    ExpectOthersAreServed(broker, read, kAtOnce);
}

// Metadata still names it: only asking it takes long.
TEST(WatcherTest, ALeaderThatIsAwayCostsOnlyItsOwnPartitions)
{
    MockBroker broker(2);
    broker.CreateTopic("events", 2);
    broker.CreateTopic("other", 1);
    rd_kafka_mock_partition_set_leader(broker.cluster(), "events", 0, 1);
    rd_kafka_mock_partition_set_leader(broker.cluster(), "events", 1, 2);
    rd_kafka_mock_partition_set_leader(broker.cluster(), "other", 0, 1);
    broker.ProduceNumbers("events", 0, 0, 3);
    broker.ProduceNumbers("other", 0, 0, 4);
    rd_kafka_mock_broker_set_down(broker.cluster(), 2);
    Watcher watcher;
    WatchAnswer answer = AskOne(watcher, Probe(broker.brokers(), {"events"}));
    EXPECT_EQ(answer.error, "");
    EXPECT_EQ(Show(answer.watermarks), (std::vector<std::string>{"events/0 0..3"}));
    ASSERT_EQ(answer.troubles.size(), 1u);
    EXPECT_TRUE(answer.troubles[0].text.starts_with("broker 2, its leader, does not answer"))
        << answer.troubles[0].text;
    ExpectOthersAreServed(broker, Probe(broker.brokers(), {"events"}, 1), std::chrono::seconds(9));

    auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < 10; i++)
        watcher.Ask(Probe(broker.brokers(), {"events"}, i));
    for (const WatchAnswer &again : TakeAnswers(watcher, 10))
        EXPECT_EQ(Show(again.watermarks), (std::vector<std::string>{"events/0 0..3"}));
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(12))
        << "a leader that is away is waited for once";

    rd_kafka_mock_broker_set_up(broker.cluster(), 2);
    Deadline deadline(30);
    do
        answer = AskOne(watcher, Probe(broker.brokers(), {"events"}));
    while (!answer.troubles.empty() && !deadline.IsOver());
    EXPECT_EQ(Show(answer.watermarks),
              (std::vector<std::string>{"events/0 0..3", "events/1 0..0"}));
}

namespace {

int
Threads()
{
    return static_cast<int>(std::distance(std::filesystem::directory_iterator("/proc/self/task"),
                                          std::filesystem::directory_iterator()));
}

bool
ComeDownTo(int threads)
{
    Deadline deadline(30);
    while (Threads() > threads && !deadline.IsOver())
        std::this_thread::yield();
    return Threads() <= threads;
}

} // namespace

TEST(WatcherTest, KeepsNoClientThatNobodyUses)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    Watcher watcher;
    auto ask = [&](const std::string &pipeline, const std::string &wait_ms) {
        WatchRequest request = Probe(broker.brokers(), {"events"});
        request.pipeline = pipeline;
        request.config.options = {{"fetch.wait.max.ms", wait_ms}};
        EXPECT_EQ(AskOne(watcher, std::move(request)).error, "");
    };
    ask("one", "100");
    ask("two", "100");
    int with_one_client = Threads();
    for (int round = 0; round < 10; round++)
        ask("one", std::to_string(200 + round));
    ask("one", "100"); // both share one client again
    EXPECT_TRUE(ComeDownTo(with_one_client)) << Threads() << " threads, not " << with_one_client;

    ask("two", "300");
    watcher.Forget("two");
    EXPECT_TRUE(ComeDownTo(with_one_client)) << "the client of a pipeline that is gone";
    ask("one", "100");
}

// A broker that accepts connections and says nothing: taking its client down must hold nothing up.
TEST(WatcherTest, LeavesASilentBrokerBehind)
{
    MockBroker silent;
    MockBroker broker;
    broker.CreateTopic("events", 1);
    Watcher watcher;
    rd_kafka_mock_broker_set_rtt(silent.cluster(), 1, 3600 * 1000);
    EXPECT_NE(AskOne(watcher, Probe(silent.brokers(), {"events"})).error, "");
    EXPECT_EQ(AskOne(watcher, Probe(broker.brokers(), {"events"})).error, "");
}

TEST(WatcherTest, CanBeDestroyedWithRequestsWaiting)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    Watcher watcher;
    for (int i = 0; i < 50; i++)
        watcher.Ask(Probe(broker.brokers(), {"events"}, i));
}

} // namespace pulse::ingest
