// Random events, whole and damaged, against what must hold for every input: a refusal with sound
// texts, or cells that are sound and lie where they may. Whole events are checked against the
// generator's own idea of the outcome. The seed is printed; PULSE_TEST_SEED repeats a run.
#include "decode_fixture.hpp"

#include <algorithm>
#include <cstdlib>
#include <random>

namespace pulse::decode {
namespace {

unsigned
Seed()
{
    const char *given = std::getenv("PULSE_TEST_SEED");
    return given != nullptr ? static_cast<unsigned>(std::atol(given)) : std::random_device()();
}

std::shared_ptr<const Mapping>
WideMapping(UnknownFields policy)
{
    MappingBuilder builder;
    builder.Add("t", ColumnType::kText).Add("i2", ColumnType::kInt2).Add("i4", ColumnType::kInt4);
    builder.Add("i8", ColumnType::kInt8).Add("f4", ColumnType::kFloat4);
    builder.Add("f8", ColumnType::kFloat8).Add("num", ColumnType::kNumeric);
    builder.Add("b", ColumnType::kBool).Add("ts", ColumnType::kTimestamp);
    builder.Add("d", ColumnType::kDate).Add("u", ColumnType::kUuid).Add("j", ColumnType::kJson);
    builder.Add("o", ColumnType::kOther).Add("deep", ColumnType::kText, {"ctx", "page", "t"});
    builder.Add("ctx_i", ColumnType::kInt4, {"ctx", "i4"}).Rest().Unknown(policy);
    return builder.Build();
}

class Generator {
  public:
    explicit Generator(unsigned seed) : random_(seed) {}

    size_t Below(size_t limit) { return random_() % limit; }

    std::string Value(int depth)
    {
        switch (Below(depth > 0 ? 10 : 8)) {
        case 0:
            return "null";
        case 1:
            return Below(2) == 0 ? "true" : "false";
        case 2:
            return Integer();
        case 3:
            return Integer() + "." + std::to_string(Below(1000)) + (Below(3) == 0 ? "e-5" : "");
        case 4:
            return "\"2026-11-20T12:34:56." + std::to_string(Below(1000)) + "Z\"";
        case 5:
            return "\"2026-11-2" + std::to_string(Below(10)) + "\"";
        case 6:
            return "\"0190b3c4-7a1e-7c3d-9f00-0123456789ab\"";
        case 7:
            return String();
        case 8:
            return Array(depth - 1);
        default:
            return Object(depth - 1, "n");
        }
    }

    std::string String()
    {
        constexpr const char *kPieces[] = {"a",
                                           "bc",
                                           " ",
                                           "\\n",
                                           "\\u00e4",
                                           "\\ud83d\\ude00",
                                           "\xc3\xa4",
                                           "\xe2\x82\xac",
                                           "\xf0\x9f\x98\x80",
                                           "\\\"",
                                           "\\\\",
                                           "0",
                                           "abcdefghij",
                                           "{",
                                           ",",
                                           "\x7f"};
        std::string text = "\"";
        for (size_t i = Below(8); i > 0; i--)
            text += kPieces[Below(std::size(kPieces))];
        return text + "\"";
    }

    std::string Object(int depth, const std::string &prefix)
    {
        std::string text = "{" + Space();
        for (size_t i = 0, count = Below(4); i < count; i++)
            text += (i == 0 ? "\"" : ",\"") + prefix + std::to_string(i) + "\":" + Space() +
                    Value(depth);
        return text + "}";
    }

    // A sound event: each mapped or unmapped field perhaps, in any order, with any value.
    std::string Event()
    {
        std::vector<std::string> names = {"t",  "i2", "i4", "i8", "f4", "f8", "num", "b",
                                          "ts", "d",  "u",  "j",  "o",  "x",  "y",   "z\\u00e4"};
        std::shuffle(names.begin(), names.end(), random_);
        std::string text = Space() + "{";
        const char *comma = "";
        for (const std::string &name : names) {
            if (Below(2) == 0)
                continue;
            text += comma + ("\"" + name + "\"") + Space() + ":" + Space();
            text += Below(16) == 0 ? Value(2) : FittingValue(name);
            comma = ",";
        }
        if (Below(2) == 0) {
            text += std::string(comma) + "\"ctx\":{\"page\":{\"t\":" + Value(0) +
                    "},\"i4\":" + FittingValue("i4") + "}";
            comma = ",";
        }
        if (Below(2) == 0)
            text += std::string(comma) + "\"properties\":" + Object(2, "p");
        return text + "}" + Space();
    }

    void Damage(std::string *text)
    {
        constexpr const char *kPieces[] = {"\"",
                                           "\\",
                                           "{",
                                           "}",
                                           "[",
                                           "]",
                                           ",",
                                           ":",
                                           "\\u0000",
                                           "\\udc00",
                                           "\\ud800",
                                           "\xff",
                                           "\xed\xa0\x80",
                                           "1e999",
                                           "1.1111111111e-2147483639",
                                           "\xc3",
                                           "-",
                                           "e",
                                           ".",
                                           "\"x\":1,",
                                           "null",
                                           "\n",
                                           "\x01",
                                           "\xef\xbb\xbf"};
        for (size_t i = 1 + Below(3); i > 0; i--) {
            size_t at = Below(text->size() + 1);
            switch (Below(5)) {
            case 0:
                text->insert(at, kPieces[Below(std::size(kPieces))]);
                break;
            case 1:
                if (at < text->size())
                    (*text)[at] = static_cast<char>(Below(256));
                break;
            case 2:
                text->erase(at, 1 + Below(4));
                break;
            case 3:
                text->insert(at, text->substr(Below(text->size() + 1), Below(20)));
                break;
            default:
                text->resize(at);
            }
        }
    }

  private:
    // A value that the column of that name takes.
    std::string FittingValue(const std::string &name)
    {
        if (name[0] == 'i')
            return std::to_string(static_cast<int>(Below(65536)) - 32768);
        if (name[0] == 'f' || name == "num")
            return std::to_string(static_cast<int>(Below(1000)) - 500) + ".250";
        if (name == "b")
            return Below(2) == 0 ? "true" : "false";
        if (name == "ts")
            return Below(2) == 0 ? "\"2026-11-20T12:34:56.5+01:00\"" : "1795178096789";
        if (name == "d")
            return "\"2026-11-2" + std::to_string(Below(10)) + "\"";
        if (name == "u")
            return "\"0190b3c4-7a1e-7c3d-9f00-0123456789ab\"";
        return name == "t" ? String() : Value(2);
    }

    std::string Integer()
    {
        std::string digits = Below(2) == 0 ? "-" : "";
        digits += std::to_string(1 + Below(9));
        for (size_t i = Below(Below(2) == 0 ? 4 : 22); i > 0; i--)
            digits += static_cast<char>('0' + Below(10));
        return digits;
    }

    std::string Array(int depth)
    {
        std::string text = "[";
        for (size_t i = 0, count = Below(4); i < count; i++)
            text += (i == 0 ? "" : ",") + Space() + Value(depth);
        return text + "]";
    }

    std::string Space()
    {
        constexpr const char *kSpaces[] = {"", "", "", " ", "\n\t", "\r\n"};
        return kSpaces[Below(std::size(kSpaces))];
    }

    std::mt19937 random_;
};

bool
IsSoundText(std::string_view text)
{
    return CheckUtf8(text).fault == Utf8Fault::kNone;
}

void
CheckRefusal(const Decoded &decoded)
{
    const Reject &reject = decoded.reject();
    ASSERT_NE(InfoOf(reject.code).name, "");
    ASSERT_FALSE(reject.message.empty());
    ASSERT_TRUE(IsSoundText(reject.message));
    ASSERT_TRUE(IsSoundText(reject.path));
    ASSERT_LE(reject.path.size(), 512u);
    for (char byte : reject.message)
        ASSERT_TRUE(static_cast<unsigned char>(byte) >= 0x20 && byte != 0x7F);
    if (!reject.path.empty()) {
        ASSERT_EQ(reject.path[0], '/');
    }
}

void
CheckCells(const Decoded &decoded, const Mapping &mapping)
{
    for (size_t i = 0; i < mapping.columns.size(); i++) {
        const Cell &cell = decoded.cell(i);
        if (cell.kind != CellKind::kText && cell.kind != CellKind::kJson)
            continue;
        ASSERT_NE(cell.text, nullptr);
        ASSERT_TRUE(IsSoundText(cell.view()));
        ASSERT_LE(cell.length, decoded.value().size() + 2);
        if (cell.kind != CellKind::kJson)
            continue;
        // JSON text is JSON to a decoder without a mapping, so to PostgreSQL.
        Decoded again(MappingBuilder().Build(), "{\"v\":" + std::string(cell.view()) + "}");
        ASSERT_EQ(again.Outcome(), "event") << cell.view();
    }
}

TEST(DecoderRandom, SoundEventsAreDecodedOrRefusedForTheirTypes)
{
    unsigned seed = Seed();
    std::printf("seed %u\n", seed);
    SCOPED_TRACE(testing::Message() << "PULSE_TEST_SEED=" << seed);
    Generator generator(seed);
    Decoder decoder(WideMapping(UnknownFields::kKeep));
    int accepted = 0;
    for (int i = 0; i < 20000; i++) {
        std::string event = generator.Event();
        SCOPED_TRACE(event);
        Decoded bare(MappingBuilder().Build(), event);
        ASSERT_EQ(bare.Outcome(), "event");
        Decoded decoded(decoder, event);
        if (!decoded.is_event()) {
            std::string code = decoded.Code();
            ASSERT_TRUE(code == "type" || code == "number" || code == "time") << code;
            ASSERT_NO_FATAL_FAILURE(CheckRefusal(decoded));
            continue;
        }
        accepted++;
        ASSERT_NO_FATAL_FAILURE(CheckCells(decoded, decoder.mapping()));
    }
    EXPECT_GT(accepted, 5000);
}

TEST(DecoderRandom, DamagedEventsBreakNothing)
{
    unsigned seed = Seed();
    std::printf("seed %u\n", seed);
    SCOPED_TRACE(testing::Message() << "PULSE_TEST_SEED=" << seed);
    Generator generator(seed);
    std::vector<std::unique_ptr<Decoder>> decoders;
    for (UnknownFields policy :
         {UnknownFields::kKeep, UnknownFields::kDrop, UnknownFields::kReject})
        decoders.push_back(std::make_unique<Decoder>(WideMapping(policy)));
    int accepted = 0;
    for (int i = 0; i < 60000; i++) {
        std::string event = generator.Event();
        generator.Damage(&event);
        SCOPED_TRACE(testing::PrintToString(event));
        Decoder &decoder = *decoders[generator.Below(decoders.size())];
        Decoded decoded(decoder, event);
        if (decoded.is_event()) {
            ASSERT_NO_FATAL_FAILURE(CheckCells(decoded, decoder.mapping()));
            accepted++;
        } else {
            ASSERT_NO_FATAL_FAILURE(CheckRefusal(decoded));
        }
        // The same bytes give the same answer, whatever was decoded between.
        Decoded again(decoder, event);
        ASSERT_EQ(again.Outcome(), decoded.Outcome());
    }
    EXPECT_GT(accepted, 200);
}

TEST(DecoderRandom, RandomBytesAreRefused)
{
    unsigned seed = Seed();
    std::printf("seed %u\n", seed);
    Generator generator(seed);
    Decoder decoder(WideMapping(UnknownFields::kKeep));
    for (int i = 0; i < 50000; i++) {
        std::string bytes(1 + generator.Below(40), '{');
        for (char &byte : bytes)
            byte = static_cast<char>(generator.Below(256));
        Decoded decoded(decoder, bytes);
        if (!decoded.is_event()) {
            ASSERT_NO_FATAL_FAILURE(CheckRefusal(decoded)) << testing::PrintToString(bytes);
        }
    }
}

// Two ways to the same text: the decoder's slices and escapes against the string the test wrote.
TEST(DecoderRandom, TextRoundTripsThroughEveryWayToEscapeIt)
{
    unsigned seed = Seed();
    std::printf("seed %u\n", seed);
    Generator generator(seed);
    Decoder decoder(MappingBuilder().Add("t", ColumnType::kText).Rest().Build());
    for (int i = 0; i < 20000; i++) {
        std::string expected, json;
        for (size_t length = generator.Below(30); length > 0; length--) {
            char byte = static_cast<char>(1 + generator.Below(127));
            expected += byte;
            char escape[8];
            std::snprintf(escape, sizeof(escape), "\\u%04X", byte);
            if (byte < 0x20 || byte == '"' || byte == '\\' || generator.Below(8) == 0)
                json += escape;
            else
                json += byte;
        }
        Decoded decoded(decoder, "{\"t\":\"" + json + "\"}");
        ASSERT_EQ(decoded.Show(0), "text " + expected) << "seed " << seed << ": " << json;
        Decoded named(decoder, "{\"k" + json + "\":1,\"properties\":{\"k" + json + "\":2}}");
        ASSERT_EQ(named.Code(), "dup_key") << "seed " << seed << ": " << json;
    }
}

} // namespace
} // namespace pulse::decode
