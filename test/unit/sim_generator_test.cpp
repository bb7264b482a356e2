// The simulated shop: the same bytes for the same seed, the shares that were asked for, records in
// order of arrival. src/sim/generator.hpp.
#include "sim/generator.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <string>

#include "decode_fixture.hpp"

namespace pulse::sim {

namespace {

constexpr int64_t kStartMs = 1'767'225'600'000; // 2026-01-01T00:00:00Z
constexpr int64_t kDayMs = 86'400'000;

Model
Shop(int64_t events)
{
    Model model;
    model.events = events;
    model.users = 5000;
    model.start_ms = kStartMs;
    model.duration_ms = kDayMs;
    return model;
}

Model
TroubledShop(int64_t events)
{
    Model model = Shop(events);
    model.late = 0.02;
    model.out_of_order = 0.05;
    model.duplicates = 0.01;
    model.malformed = 0.01;
    model.bots = 0.03;
    return model;
}

template <typename Visit>
void
ForEach(const Model &model, Visit visit)
{
    Generator generator(model);
    Record record;
    while (generator.Next(&record))
        visit(record);
}

// FNV-1a over everything that goes to Kafka.
uint64_t
Fingerprint(const Model &model)
{
    uint64_t hash = 0xcbf29ce484222325;
    std::string key, value, scratch;
    auto add = [&](const std::string &text) {
        for (char byte : text)
            hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
    };
    ForEach(model, [&](const Record &record) {
        bool has_value = Render(record, &key, &value, &scratch);
        add(key + "\n" + value + (has_value ? "\n" : "null\n") + std::to_string(record.arrival_ms));
    });
    return hash;
}

TEST(Generator, SameSeedSameBytes)
{
    EXPECT_EQ(Fingerprint(TroubledShop(20'000)), Fingerprint(TroubledShop(20'000)));
    Model other = TroubledShop(20'000);
    other.seed = 2;
    EXPECT_NE(Fingerprint(other), Fingerprint(TroubledShop(20'000)));
}

// The stream is a promise to whoever compares runs of different versions or machines. A change here
// belongs into CHANGELOG.md.
TEST(Generator, StreamIsTheOneOfThisVersion)
{
    EXPECT_EQ(Fingerprint(TroubledShop(20'000)), 3951048725024710935u);
}

TEST(Generator, GivesAsManyDistinctEventsAsAskedFor)
{
    std::set<std::pair<uint64_t, uint64_t>> ids;
    int64_t duplicates = 0, malformed = 0;
    ForEach(TroubledShop(50'000), [&](const Record &record) {
        if (record.spoiler != nullptr)
            malformed++;
        else if (!ids.emplace(record.event.id_high, record.event.id_low).second) {
            EXPECT_TRUE(record.is_duplicate);
            duplicates++;
        } else {
            EXPECT_FALSE(record.is_duplicate);
        }
    });
    EXPECT_EQ(ids.size(), 50'000u);
    EXPECT_NEAR(static_cast<double>(duplicates), 500, 100);
    EXPECT_NEAR(static_cast<double>(malformed), 500, 100);
}

TEST(Generator, RecordsComeInOrderOfArrival)
{
    int64_t last_ms = kStartMs;
    ForEach(TroubledShop(50'000), [&](const Record &record) {
        EXPECT_GE(record.arrival_ms, last_ms);
        last_ms = record.arrival_ms;
    });
    EXPECT_NEAR(static_cast<double>(last_ms - kStartMs), kDayMs, 0.05 * kDayMs);
}

TEST(Generator, SharesAreThoseAskedFor)
{
    int64_t events = 0, late = 0, disordered = 0, bots = 0;
    ForEach(TroubledShop(200'000), [&](const Record &record) {
        if (record.spoiler != nullptr || record.is_duplicate)
            return;
        const int64_t delay_ms = record.arrival_ms - record.event.event_ms;
        events++;
        late += delay_ms > 5 * 60'000 ? 1 : 0;
        disordered += delay_ms > 1'000 && delay_ms <= 61'000 ? 1 : 0;
        bots += record.event.user.is_bot ? 1 : 0;
        EXPECT_GE(delay_ms, 0);
    });
    const auto share = [&](int64_t count) { return static_cast<double>(count) / events; };
    EXPECT_NEAR(share(late), 0.02, 0.002);
    EXPECT_NEAR(share(disordered), 0.05 * 0.98, 0.003);
    EXPECT_NEAR(share(bots), 0.03, 0.01);
}

TEST(Generator, MishapsDoNotChangeWhoDoesWhat)
{
    // Same shop, and the same number of events on the way: only arrivals differ.
    std::set<std::pair<uint64_t, uint64_t>> calm, troubled;
    Model model = Shop(20'000);
    ForEach(model,
            [&](const Record &record) { calm.emplace(record.event.id_high, record.event.id_low); });
    model.out_of_order = 0.5;
    model.duplicates = 0.1;
    ForEach(model, [&](const Record &record) {
        troubled.emplace(record.event.id_high, record.event.id_low);
    });
    size_t common = 0;
    for (const auto &id : calm)
        common += troubled.count(id);
    EXPECT_GT(common, 19'900u);
}

TEST(Generator, NoUserDoesTwoThingsAtOnce)
{
    Model model = TroubledShop(50'000);
    model.users = 20; // everybody is always here
    std::set<std::pair<User, int64_t>> moments;
    ForEach(model, [&](const Record &record) {
        if (record.spoiler == nullptr && !record.is_duplicate) {
            EXPECT_TRUE(moments.emplace(record.event.user, record.event.event_ms).second);
        }
    });
}

TEST(Generator, RateFollowsTheDaysCurveButKeepsItsMean)
{
    std::map<int64_t, int64_t> by_hour;
    Model model = Shop(100'000);
    ForEach(model,
            [&](const Record &record) { by_hour[(record.arrival_ms - kStartMs) / 3'600'000]++; });
    EXPECT_GT(by_hour[20], 5 * by_hour[4]);

    // An hour of the night alone has the rate that was asked for, too.
    model.start_ms = kStartMs + 3 * 3'600'000;
    model.duration_ms = 3'600'000;
    int64_t last_ms = 0;
    ForEach(model, [&](const Record &record) { last_ms = record.arrival_ms; });
    EXPECT_NEAR(static_cast<double>(last_ms - model.start_ms), 3'600'000, 0.05 * 3'600'000);
}

TEST(Generator, MalformedRecordsAreRefusedWithTheirCode)
{
    // raw.events as pulse makes it.
    decode::MappingBuilder events = decode::EventsMapping();
    events.limits().reject_older_than_us = 400 * kMicrosPerDay;
    std::shared_ptr<decode::Mapping> mapping = std::make_shared<decode::Mapping>(*events.Build());
    mapping->columns[2].max_bytes = 1000; // user_id
    decode::Decoder decoder(mapping);
    std::map<std::string, int> seen;
    std::string key, value, scratch;
    ForEach(TroubledShop(10'000), [&](const Record &record) {
        bool has_value = Render(record, &key, &value, &scratch);
        Arena arena;
        std::vector<Cell> cells(mapping->columns.size());
        decode::Reject reject;
        const bool is_event =
            decoder.Decode(has_value ? std::string_view(value) : std::string_view(),
                           decode::kTestNowUs, arena, cells.data(), &reject);
        const std::string code(is_event ? "" : decode::InfoOf(reject.code).name);
        if (record.spoiler == nullptr) {
            EXPECT_EQ(code, "") << value;
        } else {
            EXPECT_EQ(code, record.spoiler->error_code) << value;
            seen[code]++;
        }
    });
    EXPECT_EQ(seen.size(), static_cast<size_t>(kSpoilers));
}

} // namespace

} // namespace pulse::sim
