// The true answers: each rule on a handful of events, and all of them against a recount by brute
// force. src/sim/truth.hpp.
#include "sim/truth.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <vector>

namespace pulse::sim {

namespace {

constexpr int64_t kMidnightMs = 1'767'225'600'000; // 2026-01-01T00:00:00Z
constexpr int32_t kDay = 20454;                    // the same day
constexpr int64_t kSecond = 1000;
constexpr int64_t kMinute = 60 * kSecond;
constexpr int64_t kHour = 60 * kMinute;
constexpr int64_t kDayMs = 24 * kHour;

Record
At(int64_t offset_ms, EventType type = EventType::kPageView, uint32_t user = 1)
{
    Record record;
    record.event.event_ms = kMidnightMs + offset_ms;
    record.arrival_ms = record.event.event_ms;
    record.event.user = {user, false};
    record.event.type = type;
    record.event.page = {PageKind::kProduct, static_cast<uint32_t>(type)};
    return record;
}

Truth
TruthOf(const std::vector<Record> &records)
{
    Truth truth{Rules{}};
    for (const Record &record : records)
        truth.Add(record);
    truth.Settle();
    return truth;
}

TEST(Truth, SilenceLongerThanHalfAnHourEndsASession)
{
    EXPECT_EQ(TruthOf({At(0), At(30 * kMinute)}).sessions().size(), 1u);
    EXPECT_EQ(TruthOf({At(0), At(30 * kMinute + 1)}).sessions().size(), 2u);
}

TEST(Truth, ArrivalOrderDoesNotMatter)
{
    const Truth truth = TruthOf({At(40 * kMinute), At(0), At(20 * kMinute)});
    ASSERT_EQ(truth.sessions().size(), 1u);
    EXPECT_EQ(truth.sessions()[0].start_ms, kMidnightMs);
    EXPECT_EQ(truth.sessions()[0].end_ms, kMidnightMs + 40 * kMinute);
}

TEST(Truth, EndlessVisitsAreCut)
{
    std::vector<Record> records;
    for (int64_t at = 0; at <= 50 * kHour; at += 10 * kMinute)
        records.push_back(At(at));
    const Truth truth = TruthOf(records);
    ASSERT_EQ(truth.sessions().size(), 3u);
    EXPECT_EQ(truth.sessions()[1].start_ms, kMidnightMs + kDayMs);
}

TEST(Truth, BounceLandingExitAndConversion)
{
    const Truth truth =
        TruthOf({At(0), At(1 * kHour), At(1 * kHour + kSecond, EventType::kCheckout),
                 At(1 * kHour + 2 * kSecond, EventType::kPayment)});
    ASSERT_EQ(truth.sessions().size(), 2u);
    EXPECT_TRUE(truth.sessions()[0].is_bounce);
    EXPECT_FALSE(truth.sessions()[0].is_converted);
    const Session &session = truth.sessions()[1];
    EXPECT_FALSE(session.is_bounce);
    EXPECT_TRUE(session.is_converted);
    EXPECT_EQ(session.landing_page, (Page{PageKind::kProduct, 0}));
    EXPECT_EQ(session.exit_page, (Page{PageKind::kProduct, 4}));
    EXPECT_EQ(session.events, 3);
    EXPECT_EQ(session.page_views, 1);
    EXPECT_EQ(session.ordered_steps, 1) << "no product was looked at";
}

TEST(Truth, FunnelInAnyOrderAndInOrder)
{
    const Truth truth =
        TruthOf({At(0, EventType::kProductView), At(kSecond, EventType::kPageView),
                 At(0, EventType::kPageView, 2), At(kSecond, EventType::kProductView, 2)});
    const Day &day = truth.days().at(kDay);
    EXPECT_EQ(day.step_users[0], 2);
    EXPECT_EQ(day.step_users[1], 2);
    EXPECT_EQ(day.ordered_step_users[0], 2);
    EXPECT_EQ(day.ordered_step_users[1], 1) << "user 1 saw the product first";
}

TEST(Truth, ActiveUsersOfAWeekAndAMonth)
{
    const Truth truth = TruthOf({At(0), At(2 * kDayMs), At(0, EventType::kPageView, 2),
                                 At(40 * kDayMs, EventType::kPageView, 3)});
    EXPECT_EQ(truth.days().size(), 41u) << "days without events count, too";
    auto day = [&](int32_t number) { return truth.days().at(kDay + number); };
    EXPECT_EQ(day(0).active_users, 2);
    EXPECT_EQ(day(1).active_users, 0);
    EXPECT_EQ(day(6).active_users_7d, 2);
    EXPECT_EQ(day(7).active_users_7d, 1);
    EXPECT_EQ(day(8).active_users_7d, 1);
    EXPECT_EQ(day(9).active_users_7d, 0);
    EXPECT_EQ(day(29).active_users_30d, 2);
    EXPECT_EQ(day(30).active_users_30d, 1);
    EXPECT_EQ(day(32).active_users_30d, 0);
    EXPECT_EQ(day(40).active_users_30d, 1);
}

TEST(Truth, LateEventsDuplicatesAndRejectsAreCounted)
{
    Record late = At(0);
    late.arrival_ms += 5 * kMinute + 1;
    Record in_time = At(kSecond);
    in_time.arrival_ms += 5 * kMinute;
    Record duplicate = At(0);
    duplicate.is_duplicate = true;
    Record malformed = At(0);
    malformed.spoiler = &kSpoilerTable[3];
    const Truth truth = TruthOf({late, in_time, duplicate, malformed});
    EXPECT_EQ(truth.records(), 4);
    EXPECT_EQ(truth.events(), 2);
    EXPECT_EQ(truth.late_events(), 1);
    EXPECT_EQ(truth.days().at(kDay).late_events, 1);
    EXPECT_EQ(truth.duplicates(), 1);
    EXPECT_EQ(truth.rejects(), 1);
    EXPECT_EQ(truth.rejects_by_spoiler()[3], 1);
}

// The generator's stream, recounted in the most obvious way.
TEST(Truth, AgreesWithARecount)
{
    Model model;
    model.events = 60'000;
    model.users = 3000;
    model.start_ms = kMidnightMs;
    model.duration_ms = 3 * kDayMs;
    model.late = model.out_of_order = model.duplicates = model.malformed = model.bots = 0.03;
    Generator generator(model);
    Truth truth{Rules{}};
    std::map<User, std::set<int64_t>> moments;
    std::map<int64_t, std::set<User>> active;
    Record record;
    while (generator.Next(&record)) {
        truth.Add(record);
        if (record.spoiler != nullptr)
            continue;
        moments[record.event.user].insert(record.event.event_ms);
        active[record.event.event_ms / kDayMs].insert(record.event.user);
    }
    truth.Settle();

    size_t sessions = 0;
    for (const auto &[user, times] : moments) {
        int64_t visit = 0, last = INT64_MIN / 2, part = 0;
        for (int64_t time : times) {
            const bool is_new = time - last > 30 * kMinute;
            visit = is_new ? time : visit;
            const int64_t now = (time - visit) / kDayMs;
            sessions += is_new || now != part ? 1 : 0;
            part = now;
            last = time;
        }
    }
    EXPECT_EQ(truth.sessions().size(), sessions);
    EXPECT_EQ(truth.events(), 60'000);
    for (const auto &[number, day] : truth.days()) {
        EXPECT_EQ(day.active_users, static_cast<int64_t>(active[number].size()));
        std::set<User> week;
        for (int64_t back = 0; back < 7; back++)
            week.insert(active[number - back].begin(), active[number - back].end());
        EXPECT_EQ(day.active_users_7d, static_cast<int64_t>(week.size()));
    }
}

} // namespace

} // namespace pulse::sim
