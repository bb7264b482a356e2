// Trying a connection out, against librdkafka's mock brokers, and giving a client up without
// waiting for it. src/ingest/connection_check.hpp, src/ingest/aside.hpp.
#include "ingest/connection_check.hpp"

#include <gtest/gtest.h>

#include <poll.h>
#include <thread>

#include "ingest/aside.hpp"
#include "kafka/consumer.hpp"
#include "mock_broker.hpp"

namespace pulse::ingest {

namespace {

using kafka::Deadline;
using kafka::MockBroker;

kafka::Config
ConfigFor(const std::string &brokers)
{
    kafka::Config config;
    config.brokers = brokers;
    config.client_id = "pulse-test";
    return config;
}

std::vector<Finding>
CheckAll(const std::string &brokers, std::vector<std::string> topics)
{
    ConnectionCheck check(ConfigFor(brokers), std::move(topics));
    std::vector<Finding> findings;
    Deadline deadline(40);
    while (!deadline.IsOver()) {
        pollfd fd = {check.fd(), POLLIN, 0};
        (void)poll(&fd, 1, 1000);
        if (check.Take(&findings))
            return findings;
    }
    ADD_FAILURE() << "the check did not end";
    return findings;
}

const Finding *
Find(const std::vector<Finding> &findings, const std::string &what)
{
    for (const Finding &finding : findings)
        if (finding.what == what)
            return &finding;
    return nullptr;
}

} // namespace

TEST(ConnectionCheck, ExplainsScramThatNewBrokersRefuse)
{
    const char *text =
        "SASL authentication error: Authentication failed during authentication due to "
        "invalid credentials with SASL mechanism SCRAM-SHA-256";
    bool is_old = kafka::LibraryVersion() < 0x02060100;
    EXPECT_EQ(HintFor(text).find("2.6.1") != std::string::npos, is_old);
    EXPECT_EQ(HintFor("SASL PLAIN: invalid credentials").find("2.6.1"), std::string::npos);
}

TEST(ConnectionCheck, FindsEverythingInOrder)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    std::vector<Finding> findings = CheckAll(broker.brokers(), {"^ev", "events"});
    ASSERT_EQ(findings.size(), 6u);
    EXPECT_EQ(findings[0].what, "client");
    EXPECT_EQ(findings[1].what, "brokers");
    EXPECT_EQ(findings[2].what, "cluster");
    EXPECT_EQ(findings[3].detail, "1 topic match");
    EXPECT_EQ(findings[4].detail, "2 partitions with 0 offsets");
    EXPECT_EQ(findings[5].what, "reading events");
    for (const Finding &finding : findings)
        EXPECT_TRUE(finding.is_ok) << finding.what << ": " << finding.detail;
}

TEST(ConnectionCheck, StopsAtABrokerThatIsNotThere)
{
    std::vector<Finding> findings = CheckAll("127.0.0.1:1", {"events"});
    const Finding *brokers = Find(findings, "brokers");
    ASSERT_NE(brokers, nullptr);
    EXPECT_FALSE(brokers->is_ok);
    EXPECT_NE(brokers->detail.find("Connection refused"), std::string::npos) << brokers->detail;
    EXPECT_FALSE(brokers->hint.empty());
    EXPECT_EQ(Find(findings, "topic events"), nullptr);
}

TEST(ConnectionCheck, SaysThatTheClientCannotBeMade)
{
    std::vector<Finding> findings = CheckAll("", {"events"});
    ASSERT_EQ(findings.size(), 1u);
    EXPECT_FALSE(findings[0].is_ok);
}

TEST(Aside, DestroysWithoutMakingTheCallerWait)
{
    // Reserved but never answering: 192.0.2.0/24 is for documentation.
    AsidePtr<ConnectionCheck> check(new ConnectionCheck(ConfigFor("192.0.2.1:9092"), {"events"}));
    auto started = std::chrono::steady_clock::now();
    check.reset();
    EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(1));
    Deadline deadline(40);
    while (ClosingCount() > 0 && !deadline.IsOver())
        std::this_thread::yield();
    EXPECT_EQ(ClosingCount(), 0);
}

} // namespace pulse::ingest
