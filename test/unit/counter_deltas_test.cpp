// Counting events per bucket and type, against std::map. src/ingest/counter_deltas.hpp.
#include "ingest/counter_deltas.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace pulse::ingest {

namespace {

using Counts = std::map<std::pair<int64_t, std::string>, int64_t>;

Counts
Contents(const std::vector<CounterDelta> &deltas)
{
    Counts counts;
    for (const CounterDelta &delta : deltas)
        EXPECT_TRUE(
            counts.insert({{delta.bucket_us, std::string(delta.event_type)}, delta.count}).second)
            << "a bucket is in the list once";
    return counts;
}

int64_t
BucketOf(int64_t timestamp_us, int64_t width_us)
{
    int64_t bucket = timestamp_us / width_us;
    return (timestamp_us < 0 && timestamp_us % width_us != 0 ? bucket - 1 : bucket) * width_us;
}

std::vector<std::string>
ManyTypes(int count)
{
    std::vector<std::string> types{"", "page_view"};
    for (int i = 0; i < count; i++)
        types.push_back("type_" + std::to_string(i));
    return types;
}

} // namespace

TEST(CounterDeltasTest, CountsAsAMapDoes)
{
    std::mt19937_64 random(1);
    std::vector<std::string> types = ManyTypes(30);
    for (int round = 0; round < 50; round++) {
        int64_t spread_us = CounterDeltas::kMinuteUs * static_cast<int64_t>(1 + random() % 5000);
        CounterDeltas deltas;
        Counts expected;
        for (int i = 0; i < 3000; i++) {
            int64_t at_us = static_cast<int64_t>(random() % static_cast<uint64_t>(2 * spread_us)) -
                            spread_us; // before 1970 as well
            const std::string &type = types[random() % types.size()];
            deltas.Add(at_us, type, CounterDeltas::kMinuteUs);
            expected[{BucketOf(at_us, CounterDeltas::kMinuteUs), type}]++;
            if (random() % 1000 == 0) {
                ASSERT_EQ(Contents(deltas.Sorted()), expected); // and more are added after it
            }
        }
        ASSERT_EQ(Contents(deltas.Sorted()), expected) << "round " << round;
    }
}

// Workers lock counter rows in the order of the list: one that differs between them deadlocks.
TEST(CounterDeltasTest, SortsByBucketAndType)
{
    std::mt19937_64 random(2);
    std::vector<std::string> types = ManyTypes(10);
    CounterDeltas deltas;
    for (int i = 0; i < 5000; i++)
        deltas.Add(static_cast<int64_t>(random() % 100) * CounterDeltas::kHourUs,
                   types[random() % types.size()], CounterDeltas::kHourUs);
    const std::vector<CounterDelta> &sorted = deltas.Sorted();
    ASSERT_GT(sorted.size(), 500u);
    for (size_t i = 1; i < sorted.size(); i++)
        ASSERT_LT(std::pair(sorted[i - 1].bucket_us, sorted[i - 1].event_type),
                  std::pair(sorted[i].bucket_us, sorted[i].event_type));
}

TEST(CounterDeltasTest, WiderBucketsHoldTheSameEvents)
{
    std::mt19937_64 random(3);
    std::vector<std::string> types = ManyTypes(5);
    CounterDeltas minutes;
    CounterDeltas hours;
    CounterDeltas days;
    for (int i = 0; i < 20000; i++) {
        int64_t at_us = static_cast<int64_t>(random() % (5 * CounterDeltas::kDayUs)) -
                        2 * CounterDeltas::kDayUs;
        const std::string &type = types[random() % types.size()];
        minutes.Add(at_us, type, CounterDeltas::kMinuteUs);
        hours.Add(at_us, type, CounterDeltas::kHourUs);
        days.Add(at_us, type, CounterDeltas::kDayUs);
    }
    CounterDeltas from_minutes = minutes.Coarser(CounterDeltas::kHourUs);
    EXPECT_EQ(Contents(from_minutes.Sorted()), Contents(hours.Sorted()));
    CounterDeltas from_hours = from_minutes.Coarser(CounterDeltas::kDayUs);
    EXPECT_EQ(Contents(from_hours.Sorted()), Contents(days.Sorted()));
}

TEST(CounterDeltasTest, BucketsBeginAtTheirStartBefore1970Too)
{
    CounterDeltas deltas;
    deltas.Add(-1, "a", CounterDeltas::kDayUs);
    deltas.Add(0, "a", CounterDeltas::kDayUs);
    deltas.Add(-CounterDeltas::kDayUs, "a", CounterDeltas::kDayUs);
    Counts expected{{{-CounterDeltas::kDayUs, "a"}, 2}, {{0, "a"}, 1}};
    EXPECT_EQ(Contents(deltas.Sorted()), expected);
}

TEST(CounterDeltasTest, EmptyStaysEmpty)
{
    CounterDeltas deltas;
    EXPECT_TRUE(deltas.Sorted().empty());
    EXPECT_TRUE(deltas.Coarser(CounterDeltas::kDayUs).Sorted().empty());
}

} // namespace pulse::ingest
