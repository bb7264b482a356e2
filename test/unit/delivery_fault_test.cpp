// Whose fault an undelivered record is. src/ingest/delivery_fault.cpp.
#include "ingest/delivery_fault.hpp"

#include <gtest/gtest.h>

namespace pulse::ingest {

TEST(DeliveryFaultTest, TellsRecordTopicAndWeatherApart)
{
    for (const char *name : {"MSG_SIZE_TOO_LARGE", "INVALID_MSG", "INVALID_MSG_SIZE",
                             "INVALID_RECORD", "INVALID_TIMESTAMP", "POLICY_VIOLATION"})
        EXPECT_EQ(FaultOf(name), DeliveryFault::kRecord) << name;
    for (const char *name :
         {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "TOPIC_EXCEPTION",
          "TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"})
        EXPECT_EQ(FaultOf(name), DeliveryFault::kTopic) << name;
    // What nobody knows may pass: nothing is given up for it.
    for (const char *name : {"_MSG_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_PURGE_QUEUE",
                             "NOT_ENOUGH_REPLICAS", "_GAPLESS_GUARANTEE", "", "NEVER_HEARD_OF"})
        EXPECT_EQ(FaultOf(name), DeliveryFault::kPassing) << name;
}

TEST(DeliveryFaultTest, FindsTheNameInAText)
{
    EXPECT_EQ(FaultOf("Broker: Message size too large (MSG_SIZE_TOO_LARGE)"),
              DeliveryFault::kRecord);
    EXPECT_EQ(FaultOf("_FATAL: Broker: Cluster authorization failed CLUSTER_AUTHORIZATION_FAILED"),
              DeliveryFault::kTopic);
    EXPECT_EQ(FaultOf("NOT_AN_INVALID_RECORD_AT_ALL"), DeliveryFault::kPassing);
}

TEST(DeliveryFaultTest, AlwaysHasAHint)
{
    for (const char *name : {"_UNKNOWN_TOPIC", "INVALID_MSG", "_TRANSPORT", "whatever"})
        EXPECT_NE(DeliveryHint(name), "") << name;
    EXPECT_NE(DeliveryHint("TOPIC_AUTHORIZATION_FAILED").find("WRITE"), std::string::npos);
}

} // namespace pulse::ingest
