// When rejects stop a pipeline. src/ingest/breaker.hpp.
#include "ingest/breaker.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <random>

namespace pulse::ingest {

namespace {

void
Add(Breaker *breaker, int good, int bad)
{
    for (int i = 0; i < good; i++)
        breaker->Add(false);
    for (int i = 0; i < bad; i++)
        breaker->Add(true);
}

} // namespace

TEST(BreakerTest, WaitsForEnoughRecords)
{
    Breaker breaker;
    Add(&breaker, 0, 999);
    EXPECT_FALSE(breaker.IsTripped(0.5, 1000));
    breaker.Add(true);
    EXPECT_TRUE(breaker.IsTripped(0.5, 1000));
}

TEST(BreakerTest, TripsAboveTheRatioNotAtIt)
{
    Breaker breaker;
    Add(&breaker, 1000, 1000);
    EXPECT_FALSE(breaker.IsTripped(0.5, 1000));
    breaker.Add(true);
    EXPECT_TRUE(breaker.IsTripped(0.5, 1000));
    EXPECT_FALSE(breaker.IsTripped(0.51, 1000));
}

TEST(BreakerTest, NeverTripsAtOne)
{
    Breaker breaker;
    Add(&breaker, 0, 20000);
    EXPECT_FALSE(breaker.IsTripped(1.0, 1));
    EXPECT_TRUE(breaker.IsTripped(0.99, 1));
}

TEST(BreakerTest, TripsAtTheFirstRejectWithRatioZero)
{
    Breaker breaker;
    Add(&breaker, 1000, 0);
    EXPECT_FALSE(breaker.IsTripped(0.0, 1000));
    breaker.Add(true);
    EXPECT_TRUE(breaker.IsTripped(0.0, 1000));
}

TEST(BreakerTest, ForgetsWhatIsOlderThanTheWindow)
{
    Breaker breaker;
    Add(&breaker, 0, static_cast<int>(Breaker::kWindow));
    EXPECT_EQ(breaker.rejects(), Breaker::kWindow);
    Add(&breaker, static_cast<int>(Breaker::kWindow), 0);
    EXPECT_EQ(breaker.rejects(), 0u);
    EXPECT_EQ(breaker.seen(), Breaker::kWindow);
}

TEST(BreakerTest, CountsAsARecountOfTheWindowDoes)
{
    std::mt19937 random(7);
    Breaker breaker;
    std::deque<bool> window;
    uint32_t rejects = 0;
    for (int i = 0; i < 35000; i++) {
        bool is_reject = random() % (1 + static_cast<uint32_t>(i) / 5000) == 0;
        breaker.Add(is_reject);
        window.push_back(is_reject);
        rejects += is_reject ? 1 : 0;
        if (window.size() > Breaker::kWindow) {
            rejects -= window.front() ? 1 : 0;
            window.pop_front();
        }
        ASSERT_EQ(breaker.rejects(), rejects) << i;
        ASSERT_EQ(breaker.seen(), window.size()) << i;
    }
}

// A batch is judged on a copy; when it is rolled back the original has seen nothing.
TEST(BreakerTest, CopiesAreIndependent)
{
    Breaker breaker;
    Add(&breaker, 1000, 0);
    Breaker copy = breaker;
    Add(&copy, 0, 5000);
    EXPECT_TRUE(copy.IsTripped(0.5, 1000));
    EXPECT_FALSE(breaker.IsTripped(0.5, 1000));
    EXPECT_EQ(breaker.seen(), 1000u);
}

} // namespace pulse::ingest
