// Delays between retries. src/ingest/backoff.hpp.
#include "ingest/backoff.hpp"

#include <gtest/gtest.h>

#include <set>

namespace pulse::ingest {

TEST(BackoffTest, DoublesUpToTheMaximumWithAQuarterOfJitter)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        Backoff backoff(100, 5000, seed);
        int64_t ceiling_ms = 100;
        for (int i = 0; i < 20; i++) {
            int64_t delay_ms = backoff.NextMs();
            EXPECT_LE(delay_ms, ceiling_ms);
            EXPECT_GE(delay_ms, ceiling_ms - ceiling_ms / 4);
            ceiling_ms = std::min<int64_t>(ceiling_ms * 2, 5000);
        }
    }
}

TEST(BackoffTest, BeginsAgainAfterASuccess)
{
    Backoff backoff(100, 5000, 1);
    for (int i = 0; i < 10; i++)
        (void)backoff.NextMs();
    EXPECT_GT(backoff.NextMs(), 3000);
    backoff.Reset();
    EXPECT_LE(backoff.NextMs(), 100);
}

TEST(BackoffTest, WorkersDontKnockInStep)
{
    std::set<int64_t> delays;
    for (uint64_t pid = 1000; pid < 1100; pid++) {
        Backoff backoff(10000, 10000, pid);
        delays.insert(backoff.NextMs());
    }
    EXPECT_GT(delays.size(), 30u);
}

TEST(BackoffTest, NeverSpins)
{
    Backoff backoff(1, 4, 3);
    for (int i = 0; i < 1000; i++)
        ASSERT_GT(backoff.NextMs(), 0);
}

} // namespace pulse::ingest
