// Isolating bad rows by bisection, against brute force. src/ingest/bisect.hpp.
#include "ingest/bisect.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace pulse::ingest {

namespace {

struct Settled {
    std::multiset<uint32_t> inserted;
    std::multiset<uint32_t> bad;
    uint32_t reached = 0;
    int attempts = 0;
};

// Plays PostgreSQL: a row in known fails while it is evaluated, one in unknown at the end of the
// statement, when nobody can say which row it was.
Settled
Isolate(uint32_t begin, uint32_t end, const std::set<uint32_t> &known,
        const std::set<uint32_t> &unknown, int max_attempts)
{
    Settled settled;
    Bisect bisect(begin, end, max_attempts);
    Slice slice;
    uint32_t last_begin = begin;
    while (bisect.Next(&slice)) {
        settled.attempts++;
        EXPECT_LT(slice.begin, slice.end);
        EXPECT_GE(slice.begin, begin);
        EXPECT_LE(slice.end, end);
        EXPECT_GE(slice.begin, last_begin) << "left to right";
        last_begin = slice.begin;
        auto first_known = known.lower_bound(slice.begin);
        auto first_unknown = unknown.lower_bound(slice.begin);
        if (first_known != known.end() && *first_known < slice.end) {
            settled.bad.insert(*first_known);
            bisect.FailedAt(*first_known);
        } else if (first_unknown != unknown.end() && *first_unknown < slice.end) {
            if (bisect.FailedSomewhere()) {
                EXPECT_EQ(slice.end, slice.begin + 1);
                settled.bad.insert(slice.begin);
            }
        } else {
            for (uint32_t row = slice.begin; row < slice.end; row++)
                settled.inserted.insert(row);
        }
    }
    settled.reached = bisect.reached();
    return settled;
}

} // namespace

TEST(BisectTest, TriesTheWholeBatchFirst)
{
    Settled settled = Isolate(0, 1000, {}, {}, 32);
    EXPECT_EQ(settled.attempts, 1);
    EXPECT_EQ(settled.reached, 1000u);
    EXPECT_EQ(settled.inserted.size(), 1000u);
}

TEST(BisectTest, HasNothingToTryInAnEmptyBatch)
{
    Settled settled = Isolate(7, 7, {}, {}, 32);
    EXPECT_EQ(settled.attempts, 0);
    EXPECT_EQ(settled.reached, 7u);
}

TEST(BisectTest, SpendsOneAbortForARowThatIsKnown)
{
    // The failure, what precedes it, what follows it.
    EXPECT_EQ(Isolate(0, 1000, {500}, {}, 32).attempts, 3);
    EXPECT_EQ(Isolate(0, 1000, {0}, {}, 32).attempts, 2);
    EXPECT_EQ(Isolate(0, 1000, {999}, {}, 32).attempts, 2);
    EXPECT_EQ(Isolate(0, 1, {0}, {}, 32).attempts, 1);
}

TEST(BisectTest, HalvesWhenTheRowIsNotKnown)
{
    Settled settled = Isolate(0, 1024, {}, {1023}, 100);
    EXPECT_EQ(settled.attempts, 1 + 2 * 10);
    EXPECT_EQ(settled.bad, (std::multiset<uint32_t>{1023}));
    EXPECT_EQ(settled.inserted.size(), 1023u);
}

// Whatever is bad: each good row is inserted once, each bad one found once, in order.
TEST(BisectTest, SettlesEveryRowOnceWhateverIsBad)
{
    std::mt19937 random(20261120);
    for (int round = 0; round < 2000; round++) {
        uint32_t begin = random() % 50;
        uint32_t end = begin + random() % 200;
        std::set<uint32_t> known;
        std::set<uint32_t> unknown;
        uint32_t one_in = 1 + random() % 40;
        for (uint32_t row = begin; row < end; row++)
            if (random() % one_in == 0)
                (random() % 2 == 0 ? known : unknown).insert(row);
        Settled settled = Isolate(begin, end, known, unknown, 100000);
        std::multiset<uint32_t> bad(known.begin(), known.end());
        bad.insert(unknown.begin(), unknown.end());
        ASSERT_EQ(settled.reached, end);
        ASSERT_EQ(settled.bad, bad) << "round " << round;
        ASSERT_EQ(settled.inserted.size() + bad.size(), end - begin);
        for (uint32_t row = begin; row < end; row++)
            ASSERT_EQ(settled.inserted.count(row) + settled.bad.count(row), 1u) << row;
    }
}

// When the attempts are used up, reached() says how far the batch goes: all before it is settled,
// and nothing behind it was inserted. (A row behind it may be known to be bad; it is read again.)
TEST(BisectTest, EndsTheBatchWhereTheAttemptsEnd)
{
    std::mt19937 random(42);
    int exhausted = 0;
    for (int round = 0; round < 2000; round++) {
        uint32_t end = 1 + random() % 300;
        int max_attempts = 1 + static_cast<int>(random() % 33);
        std::set<uint32_t> known;
        std::set<uint32_t> unknown;
        for (uint32_t row = 0; row < end; row++)
            if (random() % 8 == 0)
                (random() % 2 == 0 ? known : unknown).insert(row);
        Settled settled = Isolate(0, end, known, unknown, max_attempts);
        ASSERT_LE(settled.attempts, max_attempts);
        ASSERT_LE(settled.reached, end);
        exhausted += settled.reached < end ? 1 : 0;
        for (uint32_t row = 0; row < end; row++) {
            size_t found = settled.inserted.count(row) + settled.bad.count(row);
            bool is_bad = known.contains(row) || unknown.contains(row);
            if (row < settled.reached) {
                ASSERT_EQ(found, 1u) << "row " << row << " of round " << round;
                ASSERT_EQ(settled.bad.contains(row), is_bad) << "row " << row;
            } else {
                ASSERT_EQ(settled.inserted.count(row), 0u) << "row " << row;
            }
        }
    }
    EXPECT_GT(exhausted, 500) << "the test has lost its point";
}

// With 32 attempts the largest batch still moves on, so an unlucky one can't be tried for ever.
TEST(BisectTest, AlwaysMovesOn)
{
    for (uint32_t end : {1u, 2u, 31u, 10000u, 1000000u}) {
        std::set<uint32_t> all;
        for (uint32_t row = 0; row < std::min(end, 100u); row++)
            all.insert(row);
        EXPECT_GT(Isolate(0, end, {}, all, 32).reached, 0u) << end;
        EXPECT_GT(Isolate(0, end, all, {}, 32).reached, 0u) << end;
    }
}

} // namespace pulse::ingest
