// Records in a batch: copies that outlive librdkafka's message, ranges of offsets, headers as
// bytes, decoding again. src/ingest/batch.hpp.
#include "ingest/batch.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <random>

#include "decode_fixture.hpp"

namespace pulse::ingest {

namespace {

using decode::kTestNowUs;
using decode::MappingBuilder;
using Headers = std::vector<std::pair<std::string, std::optional<std::string>>>;

// As librdkafka does: the bytes are gone when the next message comes.
class Source {
  public:
    const kafka::Message &Make(int64_t offset, std::optional<std::string> key,
                               std::optional<std::string> value, Headers headers = {})
    {
        key_ = std::move(key);
        value_ = std::move(value);
        headers_ = std::move(headers);
        message_.offset = offset;
        message_.timestamp_ms = 1000 + offset;
        message_.key = View(key_);
        message_.value = View(value_);
        message_.headers.clear();
        for (const auto &[name, text] : headers_)
            message_.headers.push_back({name, View(text)});
        return message_;
    }

  private:
    static std::string_view View(const std::optional<std::string> &text)
    {
        return text ? std::string_view(*text) : std::string_view();
    }

    std::optional<std::string> key_;
    std::optional<std::string> value_;
    Headers headers_;
    kafka::Message message_;
};

Headers
Visit(std::string_view encoded)
{
    Headers headers;
    VisitHeaders(encoded, [&](std::string_view key, std::string_view value) {
        headers.emplace_back(key, value.data() == nullptr
                                      ? std::nullopt
                                      : std::optional<std::string>(std::string(value)));
    });
    return headers;
}

std::string_view
Encode(const Headers &headers, Arena &arena)
{
    std::vector<kafka::Header> views;
    for (const auto &[name, text] : headers)
        views.push_back({name, text ? std::string_view(*text) : std::string_view()});
    return EncodeHeaders(views, arena);
}

} // namespace

TEST(BatchTest, HeadersComeBackAsTheyWere)
{
    Arena arena;
    Headers headers{{"trace", "1-2-3"},
                    {"trace", "twice"},
                    {"", ""},
                    {"null", std::nullopt},
                    {"empty", ""},
                    {std::string("\0\xff", 2), std::string("\0\1\2\xfe", 4)},
                    {"long", std::string(100000, 'x')}};
    EXPECT_EQ(Visit(Encode(headers, arena)), headers);
    EXPECT_TRUE(Visit(Encode({}, arena)).empty());
    EXPECT_TRUE(Visit({}).empty()) << "no headers at all";
}

TEST(BatchTest, AnyHeadersComeBackAsTheyWere)
{
    std::mt19937 random(11);
    for (int round = 0; round < 300; round++) {
        Arena arena;
        Headers headers;
        for (uint32_t i = random() % 20; i > 0; i--) {
            std::string bytes(random() % 300, '\0');
            for (char &byte : bytes)
                byte = static_cast<char>(random());
            headers.emplace_back(bytes.substr(0, bytes.size() / 3),
                                 random() % 5 == 0 ? std::nullopt : std::optional(bytes));
        }
        ASSERT_EQ(Visit(Encode(headers, arena)), headers);
    }
}

TEST(BatchTest, OwnsItsBytes)
{
    auto mapping = MappingBuilder().Add("name", decode::ColumnType::kText).Build();
    decode::Decoder decoder(mapping);
    Batch batch;
    batch.mapping = mapping;
    batch.ranges = {{"events", 0, 5, 5, -1, 0}, {"events", 1, 0, 0, -1, 0}};
    {
        Source source;
        batch.Append(source.Make(5, "key", R"({"name":"first"})", {{"h", "v"}}), 0, decoder,
                     kTestNowUs);
        batch.Append(source.Make(7, std::nullopt, R"({"name":"sec\u006fnd"})"), 0, decoder,
                     kTestNowUs);
        batch.Append(source.Make(0, "", std::nullopt), 1, decoder, kTestNowUs);
        (void)source.Make(99, "XXX", std::string(500, 'X'));
    }
    ASSERT_EQ(batch.records.size(), 3u);
    const Record &first = batch.records[0];
    EXPECT_EQ(first.key, "key");
    EXPECT_EQ(first.value, R"({"name":"first"})");
    EXPECT_EQ(first.timestamp_ms, 1005);
    EXPECT_EQ(first.kafka_offset, 5);
    EXPECT_EQ(first.reject.code, decode::RejectCode::kNone);
    EXPECT_EQ(first.cells[0].view(), "first");
    EXPECT_EQ(Visit(first.headers), (Headers{{"h", "v"}}));
    EXPECT_EQ(batch.records[1].cells[0].view(), "second");
    EXPECT_EQ(batch.records[1].key.data(), nullptr) << "no key is not an empty key";
    EXPECT_EQ(batch.records[1].headers.data(), nullptr);
    EXPECT_NE(batch.records[2].key.data(), nullptr);
    EXPECT_EQ(batch.records[2].value.data(), nullptr);
    EXPECT_EQ(batch.records[2].reject.code, decode::RejectCode::kTombstone);
}

TEST(BatchTest, RangesFollowTheRecords)
{
    auto mapping = MappingBuilder().Add("name", decode::ColumnType::kText).Build();
    decode::Decoder decoder(mapping);
    Batch batch;
    batch.mapping = mapping;
    batch.ranges = {{"events", 0, 5, 5, -1, 0}};
    Source source;
    batch.Append(source.Make(5, "k", "{}"), 0, decoder, kTestNowUs);
    batch.Append(source.Make(9, "k", "{}"), 0, decoder, kTestNowUs); // 6 to 8 were compacted away
    EXPECT_EQ(batch.ranges[0].expected_offset, 5);
    EXPECT_EQ(batch.ranges[0].next_offset, 10);
    EXPECT_EQ(batch.ranges[0].record_count, 2u);
    EXPECT_EQ(batch.payload_bytes(), 6u);
    EXPECT_GE(batch.bytes(), Arena::kChunkBytes);
}

// The target changed after the batch was read: other columns, other types, the same bytes.
TEST(BatchTest, DecodesAgainForAnotherTarget)
{
    auto old_mapping = MappingBuilder().Add("count", decode::ColumnType::kInt2).Build();
    decode::Decoder old_decoder(old_mapping);
    Batch batch;
    batch.mapping = old_mapping;
    batch.ranges = {{"events", 0, 0, 0, -1, 0}};
    Source source;
    batch.Append(source.Make(0, "k", R"({"count":70000,"name":"a"})"), 0, old_decoder, kTestNowUs);
    batch.Append(source.Make(1, "k", R"({"count":7,"name":8})"), 0, old_decoder, kTestNowUs);
    batch.AppendSetAside(source.Make(2, "k", R"({"count":7,"name":8})"), 0,
                         decode::RejectCode::kQuarantined, "it crashes");
    EXPECT_EQ(batch.records[0].reject.code, decode::RejectCode::kNumber);
    EXPECT_EQ(batch.records[1].reject.code, decode::RejectCode::kNone);

    auto new_mapping = MappingBuilder()
                           .Add("name", decode::ColumnType::kText)
                           .Add("missing", decode::ColumnType::kText)
                           .Add("count", decode::ColumnType::kInt8)
                           .Build();
    decode::Decoder new_decoder(new_mapping);
    batch.mapping = new_mapping;
    FlightMark mark{};
    batch.DecodeAgain(new_decoder, kTestNowUs, &mark);
    EXPECT_FALSE(mark.IsSet());
    ASSERT_EQ(batch.records[0].reject.code, decode::RejectCode::kNone)
        << batch.records[0].reject.message;
    EXPECT_EQ(batch.records[0].cells[0].view(), "a");
    EXPECT_EQ(batch.records[0].cells[1].kind, CellKind::kMissing);
    EXPECT_EQ(batch.records[0].cells[2].integer, 70000);
    EXPECT_EQ(batch.records[1].cells[0].view(), "8");
    // What was set aside is never looked at.
    EXPECT_EQ(batch.records[2].reject.code, decode::RejectCode::kQuarantined);
    EXPECT_EQ(batch.records[2].reject.message, "it crashes");
    EXPECT_EQ(batch.records[2].value, R"({"count":7,"name":8})");
    EXPECT_EQ(batch.ranges[0].next_offset, 3);
    EXPECT_EQ(batch.ranges[0].record_count, 3u);
}

} // namespace pulse::ingest
