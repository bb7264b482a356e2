// src/decode/convert.cpp: every column type against every JSON type, ranges at their edges, and the
// words of the refusals.
#include "decode_fixture.hpp"

#include <limits>

namespace pulse::decode {
namespace {

// The outcome of one value for a single column named c.
std::string
Convert(ColumnType type, const std::string &json)
{
    Decoded decoded(MappingBuilder().Add("c", type).Build(), "{\"c\":" + json + "}");
    return decoded.is_event() ? decoded.Show(0) : decoded.Outcome();
}

TEST(Convert, TextTakesAnyScalarAsWritten)
{
    EXPECT_EQ(Convert(ColumnType::kText, "\"a\""), "text a");
    EXPECT_EQ(Convert(ColumnType::kText, "\"\""), "text ");
    EXPECT_EQ(Convert(ColumnType::kText, "\"a\\n\\u00e4\\\"\""), "text a\n\xc3\xa4\"");
    EXPECT_EQ(Convert(ColumnType::kText, "-1.50e+2"), "text -1.50e+2");
    EXPECT_EQ(Convert(ColumnType::kText, "123456789012345678901234567890"),
              "text 123456789012345678901234567890");
    EXPECT_EQ(Convert(ColumnType::kText, "true"), "text true");
    EXPECT_EQ(Convert(ColumnType::kText, "false"), "text false");
    EXPECT_EQ(Convert(ColumnType::kText, "null"), "null");
    EXPECT_EQ(Convert(ColumnType::kText, "{\"x\":1}"),
              "type /c: expected string, number or boolean, found object {\"x\":1}");
    EXPECT_EQ(Convert(ColumnType::kText, "[1]"),
              "type /c: expected string, number or boolean, found array [1]");
}

TEST(Convert, TextStaysInTheValueUnlessItHasEscapes)
{
    auto mapping = MappingBuilder().Add("a", ColumnType::kText).Add("b", ColumnType::kText).Build();
    Decoded decoded(mapping, "{\"a\":\"plain\",\"b\":\"es\\tcaped\"}");
    EXPECT_TRUE(decoded.IsInValue(decoded.cell(0).view()));
    EXPECT_FALSE(decoded.IsInValue(decoded.cell(1).view()));
    EXPECT_EQ(decoded.Show(1), "text es\tcaped");
}

TEST(Convert, EmptyTextIsNotNull)
{
    Decoded decoded(MappingBuilder().Add("c", ColumnType::kText).Build(), "{\"c\":\"\"}");
    EXPECT_EQ(decoded.cell(0).kind, CellKind::kText);
    EXPECT_NE(decoded.cell(0).view().data(), nullptr);
    EXPECT_EQ(decoded.cell(0).length, 0u);
}

TEST(Convert, IntegersOfEachWidthAtTheirEdges)
{
    EXPECT_EQ(Convert(ColumnType::kInt2, "32767"), "integer 32767");
    EXPECT_EQ(Convert(ColumnType::kInt2, "-32768"), "integer -32768");
    EXPECT_EQ(Convert(ColumnType::kInt2, "32768"),
              "number /c: expected integer from -32768 to 32767, found number 32768");
    EXPECT_EQ(Convert(ColumnType::kInt2, "-32769"),
              "number /c: expected integer from -32768 to 32767, found number -32769");
    EXPECT_EQ(Convert(ColumnType::kInt4, "2147483647"), "integer 2147483647");
    EXPECT_EQ(Convert(ColumnType::kInt4, "-2147483648"), "integer -2147483648");
    EXPECT_TRUE(Convert(ColumnType::kInt4, "2147483648").starts_with("number /c"));
    EXPECT_EQ(Convert(ColumnType::kInt8, "9223372036854775807"), "integer 9223372036854775807");
    EXPECT_EQ(Convert(ColumnType::kInt8, "-9223372036854775808"), "integer -9223372036854775808");
    EXPECT_TRUE(Convert(ColumnType::kInt8, "9223372036854775808").starts_with("number /c"));
    EXPECT_TRUE(Convert(ColumnType::kInt8, "-9223372036854775809").starts_with("number /c"));
    EXPECT_TRUE(Convert(ColumnType::kInt8, "100000000000000000000000").starts_with("number /c"));
    EXPECT_EQ(Convert(ColumnType::kInt8, "-0"), "integer 0");
}

TEST(Convert, WhatIsNoIntegerIsATypeError)
{
    for (ColumnType type : {ColumnType::kInt2, ColumnType::kInt4, ColumnType::kInt8}) {
        EXPECT_EQ(Convert(type, "\"12\""), "type /c: expected integer, found string \"12\"");
        EXPECT_EQ(Convert(type, "1.5"), "type /c: expected integer, found number 1.5");
        EXPECT_EQ(Convert(type, "1.0"), "type /c: expected integer, found number 1.0");
        EXPECT_EQ(Convert(type, "1e2"), "type /c: expected integer, found number 1e2");
        EXPECT_EQ(Convert(type, "1E2"), "type /c: expected integer, found number 1E2");
        EXPECT_EQ(Convert(type, "true"), "type /c: expected integer, found true");
        EXPECT_EQ(Convert(type, "{}"), "type /c: expected integer, found object {}");
        EXPECT_EQ(Convert(type, "null"), "null");
    }
}

TEST(Convert, Reals)
{
    EXPECT_EQ(Convert(ColumnType::kFloat8, "0.1"), "real 0.10000000000000001");
    EXPECT_EQ(Convert(ColumnType::kFloat8, "1.7976931348623157e308"),
              "real 1.7976931348623157e+308");
    EXPECT_EQ(Convert(ColumnType::kFloat8, "-5e-324"), "real -4.9406564584124654e-324");
    EXPECT_EQ(Convert(ColumnType::kFloat8, "1.8e308"), "number /c: number out of range: 1.8e308");
    EXPECT_EQ(Convert(ColumnType::kFloat8, "-0"), "real -0");
    EXPECT_EQ(Convert(ColumnType::kFloat8, "1E3"), "real 1000");
    EXPECT_EQ(Convert(ColumnType::kFloat8, "9007199254740993"), "real 9007199254740992");
    EXPECT_EQ(Convert(ColumnType::kFloat8, "9.5e307"), "real 9.4999999999999993e+307");
    EXPECT_EQ(Convert(ColumnType::kFloat8, "1e-307"), "real 9.9999999999999991e-308");
    EXPECT_EQ(Convert(ColumnType::kFloat4, "0.1"), "real 0.10000000149011612");
    EXPECT_EQ(Convert(ColumnType::kFloat4, "3.4028234e38"), "real 3.4028234663852886e+38");
    EXPECT_EQ(Convert(ColumnType::kFloat4, "1e39"),
              "number /c: out of range of real, found number 1e39");
    EXPECT_EQ(Convert(ColumnType::kFloat4, "1e-60"),
              "number /c: out of range of real, found number 1e-60");
    EXPECT_EQ(Convert(ColumnType::kFloat4, "0e10"), "real 0");
    EXPECT_EQ(Convert(ColumnType::kFloat8, "\"1\""),
              "type /c: expected number, found string \"1\"");
    EXPECT_EQ(Convert(ColumnType::kFloat8, "false"), "type /c: expected number, found false");
}

TEST(Convert, NumericKeepsItsDigits)
{
    for (const char *number : {"0", "-0", "1.10", "-12345678901234567890.123456789000", "1E+3"})
        EXPECT_EQ(Convert(ColumnType::kNumeric, number), std::string("text ") + number);
    EXPECT_EQ(Convert(ColumnType::kNumeric, "\"1\""),
              "type /c: expected number, found string \"1\"");
    EXPECT_EQ(Convert(ColumnType::kNumeric, "\"NaN\""),
              "type /c: expected number, found string \"NaN\"");
}

TEST(Convert, Booleans)
{
    EXPECT_EQ(Convert(ColumnType::kBool, "true"), "bool true");
    EXPECT_EQ(Convert(ColumnType::kBool, "false"), "bool false");
    for (const char *json : {"0", "1", "\"true\"", "[]"})
        EXPECT_TRUE(Convert(ColumnType::kBool, json).starts_with("type /c: expected boolean"));
}

TEST(Convert, Timestamps)
{
    EXPECT_EQ(Convert(ColumnType::kTimestamp, "\"2026-11-20T12:34:56.789Z\""),
              "timestamp 1795178096789000");
    EXPECT_EQ(Convert(ColumnType::kTimestamp, "\"2026-11-20T12\\u003a34:56Z\""),
              "timestamp 1795178096000000");
    EXPECT_EQ(Convert(ColumnType::kTimestamp, "1795178096789"), "timestamp 1795178096789000");
    EXPECT_EQ(Convert(ColumnType::kTimestamp, "-1"), "timestamp -1000");
    EXPECT_EQ(Convert(ColumnType::kTimestamp, "-0"), "timestamp 0");
    for (const char *json :
         {"\"2026-11-20T12:34:60Z\"", "\"2026-11-20\"", "\"infinity\"", "\"\"", "\"1795178096789\"",
          "1.5", "1e3", "253402300800000", "9223372036854775807", "99999999999999999999"})
        EXPECT_EQ(Convert(ColumnType::kTimestamp, json),
                  std::string("time /c: expected RFC 3339 time or epoch milliseconds, found ") +
                      (json[0] == '"' ? "string " : "number ") + json);
    EXPECT_EQ(Convert(ColumnType::kTimestamp, "true"),
              "type /c: expected RFC 3339 time or epoch milliseconds, found true");
    EXPECT_TRUE(Convert(ColumnType::kTimestamp, "{}").starts_with("type /c"));
}

TEST(Convert, Dates)
{
    EXPECT_EQ(Convert(ColumnType::kDate, "\"1970-01-02\""), "date 1");
    EXPECT_EQ(Convert(ColumnType::kDate, "\"1969-12-31\""), "date -1");
    EXPECT_EQ(Convert(ColumnType::kDate, "\"2026-02-29\""),
              "time /c: expected RFC 3339 date, found string \"2026-02-29\"");
    EXPECT_TRUE(Convert(ColumnType::kDate, "\"1970-01-02T00:00:00Z\"").starts_with("time /c"));
    EXPECT_EQ(Convert(ColumnType::kDate, "5"), "type /c: expected RFC 3339 date, found number 5");
}

TEST(Convert, Uuids)
{
    const std::string uuid = "0190b3c4-7A1E-7c3d-9f00-0123456789ab";
    EXPECT_EQ(Convert(ColumnType::kUuid, '"' + uuid + '"'), "text " + uuid);
    EXPECT_EQ(Convert(ColumnType::kUuid, "\"\\u0030" + uuid.substr(1) + '"'), "text " + uuid);
    for (const std::string &bad :
         {std::string(), uuid.substr(1), uuid + "0", '{' + uuid + '}', std::string(36, '0'),
          std::string(36, '-'), "g" + uuid.substr(1), "@" + uuid.substr(1), "`" + uuid.substr(1),
          uuid.substr(0, 35) + "\xc3\xa4"})
        EXPECT_EQ(Convert(ColumnType::kUuid, '"' + bad + '"'),
                  "type /c: expected UUID string, found string \"" + bad + '"');
    EXPECT_TRUE(Convert(ColumnType::kUuid, "1").starts_with("type /c"));
}

TEST(Convert, JsonTakesAnythingAsWritten)
{
    for (const char *json :
         {"{ \"a\" : [ 1.50, \"\\u00e4\" ] }", "[]", "\"a\\\"\"", "-1.0E2", "true", "false"})
        EXPECT_EQ(Convert(ColumnType::kJson, json), std::string("json ") + json);
    EXPECT_EQ(Convert(ColumnType::kJson, "null"),
              "null"); // SQL's, so that NOT NULL means something
}

TEST(Convert, OtherTypesGetTextForTheirInputFunction)
{
    EXPECT_EQ(Convert(ColumnType::kOther, "\"10.0.0.1\""), "text 10.0.0.1");
    EXPECT_EQ(Convert(ColumnType::kOther, "\"a\\tb\""), "text a\tb");
    EXPECT_EQ(Convert(ColumnType::kOther, "5"), "text 5");
    EXPECT_EQ(Convert(ColumnType::kOther, "[1, 2]"), "text [1, 2]");
    EXPECT_EQ(Convert(ColumnType::kOther, "{\"a\":1}"), "text {\"a\":1}");
}

TEST(Convert, LengthIsCheckedUnescapedAndInBytes)
{
    MappingBuilder builder;
    builder.Add("c", ColumnType::kText);
    builder.last().max_bytes = 4;
    auto outcome = [&](const char *json) { return Decoded(builder.Build(), json).Outcome(); };
    EXPECT_EQ(outcome("{\"c\":\"abcd\"}"), "event");
    EXPECT_EQ(outcome("{\"c\":\"\\u0061\\u0062\\u0063\\u0064\"}"), "event");
    EXPECT_EQ(outcome("{\"c\":\"\\u00e4\\u00e4\"}"), "event");
    EXPECT_EQ(outcome("{\"c\":\"abcde\"}"),
              "too_long /c: text of 5 bytes, the column takes at most 4");
    EXPECT_EQ(outcome("{\"c\":\"abc\xc3\xa4\"}"),
              "too_long /c: text of 5 bytes, the column takes at most 4");
    EXPECT_EQ(outcome("{\"c\":12345}"), "too_long /c: text of 5 bytes, the column takes at most 4");
}

class EventTime : public testing::Test {
  protected:
    std::string Outcome(int64_t time_ms, int64_t now_us = kTestNowUs)
    {
        Decoder decoder(builder_.Build());
        std::string value = "{\"t\":" + std::to_string(time_ms) + "}";
        Arena arena;
        Cell cell;
        Reject reject;
        if (decoder.Decode(value, now_us, arena, &cell, &reject))
            return "event";
        return std::string(InfoOf(reject.code).name) + ": " + std::string(reject.message);
    }

    void SetUp() override
    {
        builder_.Add("t", ColumnType::kTimestamp);
        builder_.last().is_event_time = true;
        builder_.limits().reject_older_than_us = 400 * kMicrosPerDay;
        builder_.limits().reject_newer_than_us = 90 * kMicrosPerSecond;
    }

    MappingBuilder builder_;
    const int64_t now_ms_ = kTestNowUs / 1000;
};

TEST_F(EventTime, LimitsAreInclusive)
{
    int64_t oldest = now_ms_ - 400 * kMicrosPerDay / 1000;
    EXPECT_EQ(Outcome(now_ms_), "event");
    EXPECT_EQ(Outcome(oldest), "event");
    EXPECT_EQ(Outcome(oldest - 1), "too_old: event time is more than 400 days in the past, found "
                                   "number " +
                                       std::to_string(oldest - 1));
    EXPECT_EQ(Outcome(now_ms_ + 90000), "event");
    EXPECT_EQ(Outcome(now_ms_ + 90001), "too_new: event time is more than 90 seconds in the "
                                        "future, found number " +
                                            std::to_string(now_ms_ + 90001));
}

TEST_F(EventTime, ZeroIsNever)
{
    builder_.limits().reject_older_than_us = 0;
    builder_.limits().reject_newer_than_us = 0;
    EXPECT_EQ(Outcome(kMinTimestampUs / 1000), "event");
    EXPECT_EQ(Outcome(kMaxTimestampUs / 1000), "event");
}

TEST_F(EventTime, WhatRetentionDroppedIsTooOld)
{
    builder_.limits().reject_older_than_us = 0;
    builder_.limits().not_before_us = (now_ms_ - 1000) * 1000;
    EXPECT_EQ(Outcome(now_ms_ - 1000), "event");
    EXPECT_EQ(Outcome(now_ms_ - 1001), "too_old: event time is before what retention keeps, "
                                       "found number " +
                                           std::to_string(now_ms_ - 1001));
}

TEST_F(EventTime, OtherTimesAreNotJudged)
{
    builder_.last().is_event_time = false;
    EXPECT_EQ(Outcome(0), "event");
    EXPECT_EQ(Outcome(now_ms_ * 2), "event");
}

TEST_F(EventTime, ClockFarOffDoesNotOverflow)
{
    EXPECT_TRUE(Outcome(0, INT64_MAX).starts_with("too_old"));
    EXPECT_TRUE(Outcome(-1000, INT64_MAX).starts_with("too_old"));
    EXPECT_TRUE(Outcome(0, INT64_MIN).starts_with("too_new"));
    EXPECT_TRUE(Outcome(1000, INT64_MIN).starts_with("too_new"));
}

TEST_F(EventTime, DatesAreJudgedAtTheirMidnight)
{
    builder_.last().type = ColumnType::kDate;
    Decoded today(builder_.Build(), "{\"t\":\"2026-11-20\"}");
    EXPECT_EQ(today.Code(), "event");
    Decoded tomorrow(builder_.Build(), "{\"t\":\"2026-11-21\"}");
    EXPECT_EQ(tomorrow.Code(), "too_new");
    Decoded old(builder_.Build(), "{\"t\":\"2025-10-16\"}");
    EXPECT_EQ(old.Code(), "too_old");
}

// The outcome of one value for an array column named c.
std::string
ConvertArray(ColumnType element, const std::string &json)
{
    MappingBuilder builder;
    builder.Add("c", element).last().is_array = true;
    Decoded decoded(builder.Build(), "{\"c\":" + json + "}");
    return decoded.is_event() ? decoded.Show(0) : decoded.Outcome();
}

TEST(Convert, ArraysElementByElement)
{
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "[]"), "text {}");
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, " [ 1 ,\t-2, null,\n3 ] "), "text {1,-2,NULL,3}");
    EXPECT_EQ(ConvertArray(ColumnType::kFloat8, "[0.1,1e3,-5e-324]"), "text {0.1,1e3,-5e-324}");
    EXPECT_EQ(ConvertArray(ColumnType::kNumeric, "[1.50]"), "text {\"1.50\"}");
    EXPECT_EQ(ConvertArray(ColumnType::kBool, "[true,false]"), "text {t,f}");
    EXPECT_EQ(ConvertArray(ColumnType::kText, R"(["a,b","","NULL","q\"\\","\u00e4]",1,true])"),
              "text {\"a,b\",\"\",\"NULL\",\"q\\\"\\\\\",\"\xc3\xa4]\",\"1\",\"true\"}");
    EXPECT_EQ(ConvertArray(ColumnType::kTimestamp, R"(["2026-01-02T03:04:05.6+01:00",-1])"),
              "text {\"2026-01-02T02:04:05.600000Z\",\"1969-12-31T23:59:59.999000Z\"}");
    EXPECT_EQ(ConvertArray(ColumnType::kDate, R"(["0001-01-01","9999-12-31"])"),
              "text {\"0001-01-01\",\"9999-12-31\"}");
    EXPECT_EQ(ConvertArray(ColumnType::kJson, R"([{"a":[1,"]"]},[2]])"),
              "text {\"{\\\"a\\\":[1,\\\"]\\\"]}\",\"[2]\"}");
    EXPECT_EQ(ConvertArray(ColumnType::kOther, R"(["x",{"a":1}])"),
              "text {\"x\",\"{\\\"a\\\":1}\"}");
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "null"), "null");
}

TEST(Convert, WhatIsWrongInAnArrayIsNamed)
{
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "5"), "type /c: expected array, found number 5");
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "\"{1,2}\""),
              "type /c: expected array, found string \"{1,2}\"");
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "[1,\"2\"]"),
              "type /c/1: expected integer, found string \"2\"");
    EXPECT_EQ(ConvertArray(ColumnType::kInt2, "[1,2,70000]"),
              "number /c/2: expected integer from -32768 to 32767, found number 70000");
    EXPECT_EQ(ConvertArray(ColumnType::kText, "[{}]"),
              "type /c/0: expected string, number or boolean, found object {}");
    EXPECT_EQ(ConvertArray(ColumnType::kTimestamp, "[\"now\"]"),
              "time /c/0: expected RFC 3339 time or epoch milliseconds, found string \"now\"");
}

TEST(Convert, ArraysOfArraysHaveOneShape)
{
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "[[1,2],[3,4]]"), "text {{1,2},{3,4}}");
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "[[[[[[7]]]]]]"), "text {{{{{{7}}}}}}");
    constexpr char kShape[] = "expected arrays of one length at each of at most 6 levels, found ";
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "[[1,2],[3]]"),
              std::string("type /c/1: ") + kShape + "array [3]");
    for (const char *empty : {"[[]]", "[[],[]]", "[[],1]", "[1,[]]"})
        EXPECT_TRUE(ConvertArray(ColumnType::kInt4, empty).starts_with("type ")) << empty;
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "[[1],2]"),
              std::string("type /c/1: ") + kShape + "number 2");
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "[1,[2]]"),
              std::string("type /c/1: ") + kShape + "array [2]");
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "[[[[[[[7]]]]]]]"),
              std::string("type /c/0/0/0/0/0/0: ") + kShape + "array [7]");
    EXPECT_EQ(ConvertArray(ColumnType::kInt4, "[[1,\"x\"]]"),
              "type /c/0/1: expected integer, found string \"x\"");
}

TEST(Convert, LengthsInCharacters)
{
    MappingBuilder builder;
    builder.Add("c", ColumnType::kText).last().max_characters = 3;
    auto outcome = [&](const char *json) {
        Decoded decoded(builder.Build(), std::string("{\"c\":") + json + "}");
        return decoded.is_event() ? decoded.Show(0) : decoded.Outcome();
    };
    EXPECT_EQ(outcome("\"\u00e4\u00f6\u00fc\""), "text \xc3\xa4\xc3\xb6\xc3\xbc");
    EXPECT_EQ(outcome("\"abc   \""), "text abc"); // as varchar(n) cuts it
    EXPECT_EQ(outcome("\"\u00e4    \""), "text \xc3\xa4  ");
    EXPECT_EQ(outcome("\"     \""), "text    ");
    EXPECT_EQ(outcome("\"abcd\""), "too_long /c: text of 4 characters, the column takes at most 3");
    EXPECT_EQ(outcome("1234"), "too_long /c: text of 4 characters, the column takes at most 3");
    builder.last().is_padded = true;
    EXPECT_EQ(outcome("\"a  \""), "text a");
    EXPECT_EQ(outcome("\"      \""), "text ");
    EXPECT_EQ(outcome("\"abcd\""), "too_long /c: text of 4 characters, the column takes at most 3");
}

TEST(Convert, TimesAsPreciseAsTheColumn)
{
    MappingBuilder builder;
    builder.Add("c", ColumnType::kTimestamp).last().time_precision = 0;
    auto outcome = [&](const char *json) {
        Decoded decoded(builder.Build(), std::string("{\"c\":") + json + "}");
        return decoded.is_event() ? decoded.Show(0) : decoded.Outcome();
    };
    EXPECT_EQ(outcome("1700"), outcome("2000"));
    EXPECT_EQ(outcome("\"2026-11-20T23:59:59.5Z\""), outcome("\"2026-11-21T00:00:00Z\""));
    EXPECT_EQ(outcome("\"9999-12-31T23:59:59.9Z\"").substr(0, 4), "time");
}

TEST(Convert, DigitsOfNumeric)
{
    MappingBuilder builder;
    builder.Add("c", ColumnType::kNumeric).last().max_integer_digits = 2; // numeric(4, 2)
    auto outcome = [&](const char *json) {
        Decoded decoded(builder.Build(), std::string("{\"c\":") + json + "}");
        return decoded.is_event() ? decoded.Show(0) : decoded.Outcome();
    };
    EXPECT_EQ(outcome("99.99"), "text 99.99");
    EXPECT_EQ(outcome("-0.0999e3"), "text -0.0999e3");
    EXPECT_EQ(outcome("0"), "text 0");
    EXPECT_EQ(outcome("100"), "number /c: expected a number below 10^2, found number 100");
    EXPECT_EQ(outcome("-1e2"), "number /c: expected a number below 10^2, found number -1e2");
    builder.last().max_integer_digits = -2; // numeric(2, 4)
    EXPECT_EQ(outcome("0.0099"), "text 0.0099");
    EXPECT_EQ(outcome("0.01"), "number /c: expected a number below 10^-2, found number 0.01");
}

} // namespace
} // namespace pulse::decode
