// src/decode/message.cpp: whatever the payload, messages and pointers are bounded printable UTF-8.
#include "decode/message.hpp"

#include <gtest/gtest.h>

#include <string>

#include "base/utf8.hpp"

namespace pulse::decode {
namespace {

std::string
Excerpt(std::string_view payload)
{
    Message message;
    message.AddExcerpt(payload);
    return std::string(message.view());
}

TEST(Message, AddsWordsAndNumbers)
{
    Message message;
    message.Add("from ").Add(INT64_MIN).Add(" to ").AddSize(UINT64_MAX);
    EXPECT_EQ(message.view(), "from -9223372036854775808 to 18446744073709551615");
}

TEST(Message, EscapesWhatATerminalWouldActOn)
{
    EXPECT_EQ(Excerpt("a\x1b[2J\n\x7f"), "a\\x1b[2J\\x0a\\x7f");
    EXPECT_EQ(Excerpt("\xc2\x9b"
                      "31m \xc2\xa0\xc3\xa4"),
              "\\xc2\\x9b31m \xc2\xa0\xc3\xa4");
    EXPECT_EQ(Excerpt(std::string_view("a\0b", 3)), "a\\x00b");
    EXPECT_EQ(Excerpt("\xc0\xaf\xff"), "\\xc0\\xaf\\xff");
}

TEST(Message, CutsExcerptsAtTheEndOfACharacter)
{
    std::string fits(kMaxExcerptBytes, 'x');
    EXPECT_EQ(Excerpt(fits), fits);
    EXPECT_EQ(Excerpt(fits + "y"), fits + "...");
    for (size_t before = kMaxExcerptBytes - 4; before <= kMaxExcerptBytes; before++) {
        std::string shown = Excerpt(std::string(before, 'x') + "\xf0\x9f\x98\x80" + fits);
        EXPECT_EQ(CheckUtf8(shown).fault, Utf8Fault::kNone);
        EXPECT_TRUE(shown.ends_with("..."));
        bool is_whole = before + 4 == kMaxExcerptBytes;
        EXPECT_EQ(shown.size(), (is_whole ? kMaxExcerptBytes : before) + 3);
    }
}

TEST(Message, ExcerptsOfNothingButEscapesAreAsShort)
{
    std::string worst(1000, '\x01');
    Message message;
    message.Add("a").AddExcerpt(worst).Add("b").AddExcerpt(worst).Add("c");
    EXPECT_EQ(message.view().size(), 3 + 2 * (kMaxExcerptBytes + 3));
    EXPECT_TRUE(message.view().ends_with("\\x01...c"));
}

TEST(Message, NeverOverflows)
{
    Message message;
    for (int i = 0; i < 1000; i++)
        message.AddExcerpt(std::string(1000, '\xff')).Add("words").Add(int64_t{i});
    EXPECT_EQ(CheckUtf8(message.view()).fault, Utf8Fault::kNone);
    EXPECT_LE(message.view().size(), 2048u);
}

TEST(Pointer, EscapesTokens)
{
    Pointer pointer;
    EXPECT_TRUE(pointer.empty());
    pointer.AddName("a/b~c").AddIndex(12).AddName("").AddName("\xc3\xa4");
    EXPECT_EQ(pointer.view(), "/a~1b~0c/12//\xc3\xa4");
}

TEST(Pointer, IsCutAtItsLimit)
{
    Pointer exact;
    exact.AddName(std::string(kMaxPathBytes - 4, 'x'));
    EXPECT_EQ(exact.view().size(), kMaxPathBytes - 3);
    exact.AddName("y").AddName("z");
    EXPECT_EQ(exact.view().size(), kMaxPathBytes);
    EXPECT_TRUE(exact.view().ends_with("x..."));
    for (size_t before = 490; before < 512; before++)
        for (const char *last : {"\xf0\x9f\x98\x80\xf0\x9f\x98\x80", "~~~~", "////"}) {
            Pointer pointer;
            pointer.AddName(std::string(before, 'x') + last + std::string(600, 'y'));
            EXPECT_LE(pointer.view().size(), kMaxPathBytes);
            EXPECT_EQ(CheckUtf8(pointer.view()).fault, Utf8Fault::kNone);
            EXPECT_TRUE(pointer.view().ends_with("..."));
            EXPECT_FALSE(pointer.view().ends_with("~...")); // half an escape
        }
}

} // namespace
} // namespace pulse::decode
