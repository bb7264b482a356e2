#include <gtest/gtest.h>

#include "base/excerpt.hpp"

namespace pulse {
namespace {

TEST(Excerpt, LeavesShortTextAsItIs)
{
    EXPECT_EQ(Excerpt(""), "");
    EXPECT_EQ(Excerpt("invalid input value for enum: \"Grüße €\""),
              "invalid input value for enum: \"Grüße €\"");
    EXPECT_EQ(Excerpt(std::string(256, 'x')), std::string(256, 'x'));
}

TEST(Excerpt, CutsBetweenCharacters)
{
    EXPECT_EQ(Excerpt(std::string(500000, 'x')), std::string(256, 'x') + "...");
    EXPECT_EQ(Excerpt(std::string(255, 'x') + "€ and more"), std::string(255, 'x') + "...");
    EXPECT_EQ(Excerpt(std::string(253, 'x') + "€ and more"), std::string(253, 'x') + "€...");
}

TEST(Excerpt, EscapesWhatATerminalObeysAndWhatIsNoText)
{
    EXPECT_EQ(Excerpt("a\nb\tc\r\x1b[2J\x7f"), "a\\nb\\tc\\x0d\\x1b[2J\\x7f");
    EXPECT_EQ(Excerpt("\xc2\x9b"), "\\xc2\\x9b"); // C1: a control sequence begins
    EXPECT_EQ(Excerpt("\xc2\xa0"), "\xc2\xa0");
    EXPECT_EQ(Excerpt("\xff\xe2\x82"), "\\xff\\xe2\\x82");
    EXPECT_EQ(Excerpt(std::string_view("\0", 1)), "\\x00");
}

TEST(Excerpt, WritesBytesOfJsonAsNoEscapeOfJson)
{
    EXPECT_EQ(Excerpt("\\n is not \n\t", 100, Escapes::kHex), "\\n is not \\x0a\\x09");
}

TEST(Excerpt, IsAsLongAsAsked)
{
    EXPECT_EQ(Excerpt("abc", 3), "abc");
    EXPECT_EQ(Excerpt("abcd", 3), "abc...");
    EXPECT_EQ(Excerpt("ab\x01", 5), "ab...");
    EXPECT_EQ(Excerpt("ab\x01", 6), "ab\\x01");
}

TEST(Excerpt, CutsNoEscapeInTwo)
{
    EXPECT_EQ(Excerpt(std::string(253, 'x') + "\x1b"), std::string(253, 'x') + "...");
    EXPECT_EQ(Excerpt(std::string(252, 'x') + "\x1b"), std::string(252, 'x') + "\\x1b");
}

} // namespace
} // namespace pulse
