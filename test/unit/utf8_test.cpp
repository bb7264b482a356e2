// src/base/utf8.cpp against RFC 3629, exhaustively for all two-byte sequences and by an independent
// decoder for random ones.
#include "base/utf8.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace pulse {
namespace {

Utf8Fault
FaultOf(std::string_view bytes)
{
    return CheckUtf8(bytes).fault;
}

// Another way to the same answer: decode, then look at the code point.
bool
IsValidByDecoding(std::string_view bytes)
{
    size_t at = 0;
    while (at < bytes.size()) {
        auto lead = static_cast<unsigned char>(bytes[at]);
        size_t length = lead < 0x80       ? 1
                        : lead >> 5 == 6  ? 2
                        : lead >> 4 == 14 ? 3
                        : lead >> 3 == 30 ? 4
                                          : 0;
        if (length == 0 || at + length > bytes.size())
            return false;
        uint32_t code_point = length == 1 ? lead : lead & (0x7Fu >> length);
        for (size_t i = 1; i < length; i++) {
            auto byte = static_cast<unsigned char>(bytes[at + i]);
            if (byte >> 6 != 2)
                return false;
            code_point = code_point << 6 | (byte & 0x3F);
        }
        constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
        if (code_point < kSmallest[length] || code_point > 0x10FFFF ||
            (code_point >= 0xD800 && code_point <= 0xDFFF) || code_point == 0)
            return false;
        at += length;
    }
    return true;
}

TEST(Utf8, AcceptsTheBoundariesOfEachLength)
{
    for (const char *text :
         {"", "a", "\x01", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
          "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
        EXPECT_EQ(FaultOf(text), Utf8Fault::kNone) << testing::PrintToString(text);
}

TEST(Utf8, RefusesWhatIsNotUtf8)
{
    for (const char *text : {"\x80", "\xbf", "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80",
                             "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                             "\xf5\x80\x80\x80", "\xff", "\xfe", "\xc2", "\xe1\x80", "\xf1\x80\x80",
                             "\xc2"
                             "a",
                             "\xe1\x80"
                             "a",
                             "\xf1\x80\x80"
                             "a"})
        EXPECT_EQ(FaultOf(text), Utf8Fault::kInvalid) << testing::PrintToString(text);
}

TEST(Utf8, ReportsNulAsItself)
{
    Utf8Check check = CheckUtf8(std::string_view("ab\0c", 4));
    EXPECT_EQ(check.fault, Utf8Fault::kNul);
    EXPECT_EQ(check.offset, 2u);
}

TEST(Utf8, FindsOneBadByteAtEveryPlaceOfEveryLength)
{
    for (size_t length = 1; length < 100; length++)
        for (size_t at = 0; at < length; at++)
            for (char bad : {'\0', '\x80', '\xff'}) {
                std::string text(length, 'a');
                text[at] = bad;
                Utf8Check check = CheckUtf8(text);
                ASSERT_EQ(check.fault, bad == '\0' ? Utf8Fault::kNul : Utf8Fault::kInvalid);
                ASSERT_EQ(check.offset, at) << "length " << length;
            }
}

TEST(Utf8, LowBytesAreNotTakenForNul)
{
    for (size_t length = 1; length < 80; length++)
        EXPECT_EQ(FaultOf(std::string(length, '\x01')), Utf8Fault::kNone);
}

TEST(Utf8, FirstFaultWins)
{
    EXPECT_EQ(CheckUtf8(std::string_view("\xff\0", 2)).fault, Utf8Fault::kInvalid);
    EXPECT_EQ(CheckUtf8(std::string_view("\0\xff", 2)).fault, Utf8Fault::kNul);
}

TEST(Utf8, CharacterAcrossTheFastPathsWordIsWhole)
{
    for (size_t before = 0; before < 70; before++) {
        std::string text = std::string(before, 'x') + "\xf0\x9f\x98\x80" + std::string(40, 'y');
        EXPECT_EQ(FaultOf(text), Utf8Fault::kNone) << before;
        EXPECT_EQ(CheckUtf8(text.substr(0, before + 3)).offset, before);
    }
}

TEST(Utf8, AgreesWithDecodingOnAllShortSequences)
{
    for (int first = 0; first < 256; first++)
        for (int second = 0; second < 256; second++) {
            char text[] = {static_cast<char>(first), static_cast<char>(second), '\x80', '\x80'};
            for (size_t length = 1; length <= 4; length++) {
                std::string_view bytes(text, length);
                ASSERT_EQ(FaultOf(bytes) == Utf8Fault::kNone, IsValidByDecoding(bytes))
                    << first << " " << second << " " << length;
            }
        }
}

TEST(Utf8, AgreesWithDecodingOnRandomBytes)
{
    unsigned seed = std::random_device()();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    constexpr char kAlphabet[] =
        "a\x80\xbf\xc0\xc2\xdf\xe0\xe1\xed\xef\xf0\xf4\xf5\x9f\xa0\x90\x8f";
    for (int i = 0; i < 200000; i++) {
        std::string text(random() % 24, 'a');
        for (char &byte : text)
            if (random() % 3 == 0)
                byte = kAlphabet[random() % (sizeof(kAlphabet) - 1)];
        ASSERT_EQ(FaultOf(text) == Utf8Fault::kNone, IsValidByDecoding(text))
            << testing::PrintToString(text);
    }
}

TEST(Utf8, CharacterLength)
{
    EXPECT_EQ(Utf8CharacterLength(""), 0u);
    EXPECT_EQ(Utf8CharacterLength("ab"), 1u);
    EXPECT_EQ(Utf8CharacterLength("\xc3\xa4"
                                  "b"),
              2u);
    EXPECT_EQ(Utf8CharacterLength("\xe2\x82\xac"), 3u);
    EXPECT_EQ(Utf8CharacterLength("\xf0\x9f\x98\x80"), 4u);
    EXPECT_EQ(Utf8CharacterLength("\xa4"), 0u);
}

} // namespace
} // namespace pulse
