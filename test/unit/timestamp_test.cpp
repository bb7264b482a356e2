// src/base/timestamp.cpp: exact values, the calendar day by day, and every way to be nearly right.
#include "base/timestamp.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace pulse {
namespace {

TEST(Rfc3339, ExactValues)
{
    EXPECT_EQ(ParseRfc3339("1970-01-01T00:00:00Z"), 0);
    EXPECT_EQ(ParseRfc3339("1970-01-01T00:00:00.000001Z"), 1);
    EXPECT_EQ(ParseRfc3339("1969-12-31T23:59:59.999999Z"), -1);
    EXPECT_EQ(ParseRfc3339("2026-11-20T12:34:56.789Z"), 1795178096789000);
    EXPECT_EQ(ParseRfc3339("2000-02-29T00:00:00Z"), 951782400000000);
    EXPECT_EQ(ParseRfc3339("0001-01-01T00:00:00Z"), kMinTimestampUs);
    EXPECT_EQ(ParseRfc3339("9999-12-31T23:59:59.999999Z"), kMaxTimestampUs);
}

TEST(Rfc3339, AcceptsTheWaysToWriteTheSameMoment)
{
    for (const char *text :
         {"2026-11-20T12:34:56Z", "2026-11-20t12:34:56z", "2026-11-20 12:34:56Z",
          "2026-11-20T12:34:56+00:00", "2026-11-20T12:34:56-00:00", "2026-11-20T13:34:56+01:00",
          "2026-11-20T07:04:56-05:30", "2026-11-21T12:33:56+23:59", "2026-11-20T12:34:56.0Z",
          "2026-11-20T12:34:56.000000000Z"})
        EXPECT_EQ(ParseRfc3339(text), 1795178096000000) << text;
}

TEST(Rfc3339, FractionIsCutNotRounded)
{
    EXPECT_EQ(ParseRfc3339("1970-01-01T00:00:00.9Z"), 900000);
    EXPECT_EQ(ParseRfc3339("1970-01-01T00:00:00.123456Z"), 123456);
    EXPECT_EQ(ParseRfc3339("1970-01-01T00:00:00.1234569Z"), 123456);
    EXPECT_EQ(ParseRfc3339("1970-01-01T00:00:00.999999999Z"), 999999);
    EXPECT_EQ(ParseRfc3339("1969-12-31T23:59:59.9999999Z"), -1);
}

TEST(Rfc3339, RefusesEverythingElse)
{
    for (const char *text : {"",
                             "Z",
                             "2026-11-20",
                             "2026-11-20T12:34:56",
                             "2026-11-20T12:34Z",
                             "2026-11-20T12:34:56.Z",
                             "2026-11-20T12:34:56.1234567890Z",
                             "2026-11-20T12:34:56,5Z",
                             "2026-11-20T12:34:60Z",
                             "2026-11-20T24:00:00Z",
                             "2026-11-20T12:60:00Z",
                             "2026-11-20T12:34:56+1:00",
                             "2026-11-20T12:34:56+0100",
                             "2026-11-20T12:34:56+01",
                             "2026-11-20T12:34:56+24:00",
                             "2026-11-20T12:34:56+01:60",
                             "2026-11-20T12:34:56+01:000",
                             "2026-11-20T12:34:56ZZ",
                             "2026-11-20T12:34:56Z ",
                             " 2026-11-20T12:34:56Z",
                             "2026-11-20  12:34:56Z",
                             "2026-11-20_12:34:56Z",
                             "2026-11-20T12:34:56 Z",
                             "2026-11-20T12:34:56UTC",
                             "2026-11-20T12:34:56 +01:00",
                             "20261120T123456Z",
                             "2026-00-20T12:34:56Z",
                             "2026-13-20T12:34:56Z",
                             "2026-11-00T12:34:56Z",
                             "2026-11-31T12:34:56Z",
                             "2026-02-29T12:34:56Z",
                             "1900-02-29T00:00:00Z",
                             "0000-12-31T23:59:59Z",
                             "10000-01-01T00:00:00Z",
                             "-001-01-01T00:00:00Z",
                             "+2026-11-20T12:34:56Z",
                             "2026-1-20T12:34:56Z",
                             "2026-11-20T1:34:56Z",
                             "2026-11-20T12:34: 6Z",
                             "2026-11-20T12:3a:56Z",
                             "2026/11/20T12:34:56Z",
                             "infinity",
                             "-infinity",
                             "now",
                             "epoch",
                             "20 Nov 2026 12:34:56 GMT",
                             "11/20/2026 12:34:56",
                             "2026-W47-5T12:34:56Z",
                             "2026-324T12:34:56Z",
                             "294277-01-01T00:00:00Z",
                             "2026-11-20T12:34:56\u00e9Z"})
        EXPECT_EQ(ParseRfc3339(text), std::nullopt) << text;
}

TEST(Rfc3339, OffsetMustNotLeaveTheYears)
{
    EXPECT_EQ(ParseRfc3339("0001-01-01T00:00:00+00:01"), std::nullopt);
    EXPECT_EQ(ParseRfc3339("0001-01-01T00:01:00+00:01"), kMinTimestampUs);
    EXPECT_EQ(ParseRfc3339("9999-12-31T23:59:59-00:01"), std::nullopt);
    EXPECT_EQ(ParseRfc3339("9999-12-31T23:59:59.999999+00:00"), kMaxTimestampUs);
}

TEST(Rfc3339, EveryPrefixAndEveryChangedByteIsSafe)
{
    const std::string whole = "2026-11-20T12:34:56.789+01:00";
    for (size_t length = 0; length < whole.size(); length++)
        EXPECT_EQ(ParseRfc3339(whole.substr(0, length)), std::nullopt) << length;
    for (size_t at = 0; at < whole.size(); at++)
        for (int byte = 0; byte < 256; byte++) {
            std::string text = whole;
            text[at] = static_cast<char>(byte);
            std::optional<int64_t> time = ParseRfc3339(text);
            if (time) {
                EXPECT_GE(*time, kMinTimestampUs);
                EXPECT_LE(*time, kMaxTimestampUs);
            }
        }
}

TEST(FullDate, CountsEveryDayOfTenThousandYears)
{
    constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int32_t expected = -719162; // 0001-01-01
    for (int year = 1; year <= 9999; year++)
        for (int month = 1; month <= 12; month++) {
            bool is_leap = year % 400 == 0 || (year % 4 == 0 && year % 100 != 0);
            int days = kDays[month - 1] + (month == 2 && is_leap ? 1 : 0);
            for (int day = 1; day <= 32; day++) {
                char text[40];
                std::snprintf(text, sizeof(text), "%04d-%02d-%02d", year % 10000, month, day);
                std::optional<int32_t> date = ParseFullDate(text);
                ASSERT_EQ(date.has_value(), day <= days) << text;
                if (date) {
                    ASSERT_EQ(*date, expected++) << text;
                }
            }
        }
    EXPECT_EQ(expected, 2932897); // 10000-01-01
}

TEST(FullDate, RefusesEverythingElse)
{
    for (const char *text : {"", "2026-11-2", "2026-11-200", "2026-11-20Z", "20261120", "2026-1-20",
                             "2026-11-20T00:00:00Z", "0000-01-01", "2026.11.20", " 026-11-20"})
        EXPECT_EQ(ParseFullDate(text), std::nullopt) << text;
}

TEST(EpochMs, RangeIsTheYearsOneToNinetyNineNinetyNine)
{
    EXPECT_EQ(MicrosFromEpochMs(0), 0);
    EXPECT_EQ(MicrosFromEpochMs(-1), -1000);
    EXPECT_EQ(MicrosFromEpochMs(1795178096789), 1795178096789000);
    EXPECT_EQ(MicrosFromEpochMs(-62135596800000), kMinTimestampUs);
    EXPECT_EQ(MicrosFromEpochMs(-62135596800001), std::nullopt);
    EXPECT_EQ(MicrosFromEpochMs(253402300799999), kMaxTimestampUs - 999);
    EXPECT_EQ(MicrosFromEpochMs(253402300800000), std::nullopt);
    EXPECT_EQ(MicrosFromEpochMs(INT64_MAX), std::nullopt);
    EXPECT_EQ(MicrosFromEpochMs(INT64_MIN), std::nullopt);
}

TEST(RoundTime, RoundsAsPostgresDoes)
{
    auto rounded = [](const char *text, int digits) {
        return FormatRfc3339(RoundTime(ParseRfc3339(text).value(), digits)).substr(0, 26);
    };
    EXPECT_EQ(rounded("2026-11-20T23:59:59.500000Z", 0), "2026-11-21T00:00:00.000000");
    EXPECT_EQ(rounded("2026-11-20T23:59:59.499999Z", 0), "2026-11-20T23:59:59.000000");
    EXPECT_EQ(rounded("2026-11-20T12:00:00.123456Z", 3), "2026-11-20T12:00:00.123000");
    EXPECT_EQ(rounded("2026-11-20T12:00:00.123456Z", 6), "2026-11-20T12:00:00.123456");
    EXPECT_EQ(rounded("1999-12-31T23:59:58.500000Z", 0),
              "1999-12-31T23:59:58.000000"); // away from 2000
    EXPECT_EQ(rounded("1969-12-31T23:59:59.500001Z", 0), "1970-01-01T00:00:00.000000");
    EXPECT_GT(RoundTime(kMaxTimestampUs, 0), kMaxTimestampUs);
}

TEST(Rfc3339, FormatsWhatItParsed)
{
    for (int64_t time_us : {kMinTimestampUs, kMaxTimestampUs, int64_t{-1}, int64_t{0}, int64_t{1},
                            int64_t{951782400000000}, int64_t{1795178096789012}})
        EXPECT_EQ(ParseRfc3339(FormatRfc3339(time_us)), time_us);
    EXPECT_EQ(FormatRfc3339(-1), "1969-12-31T23:59:59.999999Z");
    for (int32_t days = -719162; days <= 2932896; days += 17)
        ASSERT_EQ(ParseFullDate(FormatFullDate(days)), days);
    EXPECT_EQ(FormatFullDate(11016), "2000-02-29");
}

} // namespace
} // namespace pulse
