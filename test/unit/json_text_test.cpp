// src/decode/json_text.cpp: escapes and the range of numbers at its edges.
#include "decode/json_text.hpp"

#include <gtest/gtest.h>

#include <string>

#include "base/utf8.hpp"

namespace pulse::decode {
namespace {

std::string
Unescaped(std::string_view inner)
{
    std::string target(inner.size(), '#');
    target.resize(Unescape(inner, target.data()));
    return target;
}

TEST(CheckEscapes, AcceptsWholeCharacters)
{
    for (const char *inner :
         {"", "a", "\\n", "\\u0001", "\\ud7ff", "\\ue000", "\\uFFFF", "\\uD83D\\uDE00",
          "\\ud800\\udc00\\udbff\\udfff", "\\\\u0000", "\\\\ud800", "a\\\\\\\\u0000b"})
        EXPECT_EQ(CheckEscapes(inner).fault, EscapeFault::kNone) << inner;
}

TEST(CheckEscapes, FindsNulAndHalves)
{
    struct Case {
        const char *inner;
        EscapeFault fault;
        size_t offset;
    };
    for (const Case &each :
         {Case{"\\u0000", EscapeFault::kNul, 0}, Case{"ab\\n\\u0000", EscapeFault::kNul, 4},
          Case{"\\\\\\u0000", EscapeFault::kNul, 2}, Case{"\\udc00", EscapeFault::kSurrogate, 0},
          Case{"\\uDFFF", EscapeFault::kSurrogate, 0}, Case{"\\ud800", EscapeFault::kSurrogate, 0},
          Case{"\\ud800x\\udc00", EscapeFault::kSurrogate, 0},
          Case{"\\ud800\\n", EscapeFault::kSurrogate, 0},
          Case{"\\ud800\\\\udc00", EscapeFault::kSurrogate, 0},
          Case{"\\ud800\\ud800", EscapeFault::kSurrogate, 0},
          Case{"\\ud800\\udc00\\udc00", EscapeFault::kSurrogate, 12},
          Case{"\\udc00\\ud800", EscapeFault::kSurrogate, 0},
          Case{"\\ud800\\u0000", EscapeFault::kSurrogate, 0}}) {
        EXPECT_EQ(CheckEscapes(each.inner).fault, each.fault) << each.inner;
        EXPECT_EQ(CheckEscapes(each.inner).offset, each.offset) << each.inner;
    }
}

TEST(Unescape, ExactBytes)
{
    EXPECT_EQ(Unescaped("plain"), "plain");
    EXPECT_EQ(Unescaped("\\\"\\\\\\/\\b\\f\\n\\r\\t"), "\"\\/\b\f\n\r\t");
    EXPECT_EQ(Unescaped("a\\u0041b\\u00e4c\\u20acd\\uD83D\\uDE00e"), "aAb\xc3\xa4"
                                                                     "c\xe2\x82\xac"
                                                                     "d\xf0\x9f\x98\x80"
                                                                     "e");
    EXPECT_EQ(Unescaped("\\u007f\\u0080\\u07ff\\u0800\\uffff"),
              "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf");
    EXPECT_EQ(Unescaped("\\ud800\\udc00\\udbff\\udfff"), "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf");
    EXPECT_EQ(Unescaped("\\u00Ff\\u00fF"), "\xc3\xbf\xc3\xbf");
    EXPECT_EQ(Unescaped("\\\\n"), "\\n");
}

TEST(Unescape, EveryCodeUnitIsItsUtf8)
{
    for (int unit = 1; unit < 0x10000; unit++) {
        char inner[8];
        std::snprintf(inner, sizeof(inner), "\\u%04x", unit);
        bool is_half = unit >= 0xD800 && unit <= 0xDFFF;
        ASSERT_EQ(CheckEscapes(inner).fault,
                  is_half ? EscapeFault::kSurrogate : EscapeFault::kNone);
        if (is_half)
            continue;
        std::string text = Unescaped(inner);
        ASSERT_EQ(CheckUtf8(text).fault, Utf8Fault::kNone) << inner;
        ASSERT_EQ(Utf8CharacterLength(text), text.size()) << inner;
    }
}

TEST(NumberRange, Edges)
{
    for (const char *number : {"0",
                               "-0",
                               "0.0",
                               "-0.0e0",
                               "0e308",
                               "0e-308",
                               "1",
                               "-1",
                               "9e307",
                               "1e307",
                               "-9.99e307",
                               "1e-307",
                               "9.99E-307",
                               "0.1e308",
                               "0.01e309",
                               "123e305",
                               "1000e-310",
                               "0.001e-304",
                               "1E+307",
                               "1e0000000000000000307",
                               "18446744073709551616",
                               "0.000001e0",
                               "1e308",
                               "-1e308",
                               "1.7976931348623157e308",
                               "-1.7976931348623157E+308",
                               "0.1e309",
                               "2.2250738585072014e-308",
                               "1e-308",
                               "10e-309",
                               "4.9406564584124654e-324",
                               "-5e-324"})
        EXPECT_TRUE(IsNumberInRange(number)) << number;
    for (const char *number : {"1.7976931348623159e308",
                               "-1.8e308",
                               "18e307",
                               "9.9e308",
                               "1e309",
                               "1e400",
                               "1e400000",
                               "-1e400",
                               "1e-324",
                               "1e-325",
                               "1e-400",
                               "1e-2147483648",
                               "1e2147483648",
                               "1.1111111111e-2147483639",
                               "1e99999999999999999999",
                               "1e-99999999999999999999",
                               "0e309",
                               "0e-309",
                               "0e-99999",
                               "0.0e400"})
        EXPECT_FALSE(IsNumberInRange(number)) << number;
}

TEST(NumberRange, AtMostAThousandDigits)
{
    EXPECT_TRUE(IsNumberInRange(std::string(308, '9')));
    EXPECT_FALSE(IsNumberInRange(std::string(309, '9')));
    EXPECT_TRUE(IsNumberInRange("0." + std::string(999, '1')));
    EXPECT_FALSE(IsNumberInRange("0." + std::string(1000, '1')));
    EXPECT_TRUE(IsNumberInRange("0." + std::string(323, '0') + "5"));
    EXPECT_FALSE(IsNumberInRange("0." + std::string(324, '0') + "5"));
    EXPECT_TRUE(IsNumberInRange("1" + std::string(308, '0')));
    EXPECT_FALSE(IsNumberInRange("2" + std::string(308, '0')));
    EXPECT_TRUE(IsNumberInRange("0." + std::string(999, '0')));
    EXPECT_FALSE(IsNumberInRange("0." + std::string(1000, '0')));
    EXPECT_TRUE(IsNumberInRange("0." + std::string(900, '0') + "1e700"));
}

} // namespace
} // namespace pulse::decode
