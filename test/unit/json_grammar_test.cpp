// RFC 8259, production by production: what is JSON decodes (as an element of an array in an
// unmapped field), what isn't is a decode error. Written from the RFC's grammar.
#include "decode_fixture.hpp"

namespace pulse::decode {
namespace {

std::string
CodeOfElement(const std::string &json)
{
    return Decoded(MappingBuilder().Rest().Build(), "{\"a\":[" + json + "]}").Code();
}

std::string
CodeOfDocument(std::string_view json)
{
    return Decoded(MappingBuilder().Rest().Build(), json).Code();
}

TEST(JsonGrammar, ValuesThatAreJson)
{
    for (const char *json :
         {// literals and structure
          "null", "true", "false", "[]", "{}", "[[]]", "[{}]", "{\"\":[]}", "[null,1,\"1\",{}]",
          "{\"a\":{\"b\":{\"c\":[]}}}", "[[[[[[[[[[]]]]]]]]]]", "1,2,3", "",
          // white space in every place it may stand
          " 1 ", "\t1\n", "\r\n1", " [ 1 , 2 ] ", " { \"a\" : 1 , \"b\" : 2 } ", "[\n]", "{\t}",
          // numbers
          "0", "-0", "1", "-1", "10", "123456789", "0.0", "-0.0", "0.5", "1.25", "-1.25", "1e1",
          "1E1", "1e+1", "1E+1", "1e-1", "1E-1", "0e0", "0E+0", "0e-1", "1.5e10", "-1.5E-10",
          "1e01", "1e00", "0.00000000000000000000000000000000000000000000000001",
          "20000000000000000000000000000000000", "1.000000000000000000000000000000005",
          // strings
          "\"\"", "\" \"", "\"a\"", "\"\\\"\"", "\"\\\\\"", "\"\\/\"", "\"/\"", "\"\\b\"",
          "\"\\f\"", "\"\\n\"", "\"\\r\"", "\"\\t\"", "\"\\u0001\"", "\"\\u0020\"", "\"\\u00e9\"",
          "\"\\u00E9\"", "\"\\uAbCd\"", "\"\\uFFFE\"", "\"\\uFFFF\"", "\"\\uFDD0\"",
          "\"\\ud834\\udd1e\"", "\"\\uDBFF\\uDFFE\"", "\"\\\\u0000\"", "\"\\\\\\\\\"",
          "\"\\\\\\\"\"", "\"\x7f\"", "\"\xc3\xa9\"", "\"\xe2\x80\xa8\xe2\x80\xa9\"",
          "\"\xef\xbf\xbf\"", "\"\xf0\x9f\x98\x80\"", "\"\xf4\x8f\xbf\xbf\"", "\"\xef\xbb\xbf\"",
          "\"// no comment\"", "\"[{,:}]\"", "\"'\"", "\"\\u0022\"", "\"\\u005C\"", "\"nul\"",
          // names
          "{\"a\\nb\":1}", "{\"\\u00e9\":1}", "{\"\xc3\xa9\":1}", "{\" \":1,\"  \":2}",
          "{\"a\":1,\"b\":1}"})
        EXPECT_EQ(CodeOfElement(json), "event") << json;
}

TEST(JsonGrammar, ValuesThatAreNot)
{
    for (const char *json :
         {// literals
          "nul", "nulll", "NULL", "Null", "tru", "truee", "TRUE", "True", "fals", "False", "nil",
          "none", "undefined", "NaN", "-NaN", "nan", "Infinity", "-Infinity", "Inf", "inf", "+Inf",
          // structure
          ",", "1,", ",1", "1,,2", "[1", "1]", "[1]]", "[1 2]", "1 2", "[,]", "[1,]", "[,1]", "[1}",
          "{1]", "{\"a\":1]", "[", "]", "{", "}", ":", "{,}", "{:}", "{\"a\"}", "{\"a\":}",
          "{\"a\",1}", "{\"a\":1,}", "{,\"a\":1}", "{\"a\":1,,\"b\":1}", "{\"a\"::1}", "{\"a\" 1}",
          "{\"a\":1 \"b\":1}", "{a:1}", "{'a':1}", "{1:1}", "{null:1}", "{[]:1}", "{\"a\":1:2}",
          "{\"a\":\"b\":\"c\"}", "[:]", "[\"a\":1]", "(1)", "<1>", "{\"a\"=1}", "{\"a\":1;\"b\":1}",
          // comments and white space that isn't any
          "1//", "1/**/", "/**/1", "#1", "1 #", "\f1", "\v1",
          "\xc2\xa0"
          "1",
          "\xe2\x80\x83"
          "1",
          "\xef\xbb\xbf"
          "1",
          "\x01", "\x7f",
          // numbers
          "+1", "+0", "--1", "-", "- 1", "01", "-01", "00", "0123", "1.", "-1.", ".5", "-.5", "0.",
          "1.e1", ".e1", "1e", "1E", "1e+", "1e-", "1.5e", "e1", "1e1.5", "1e1e1", "1.5.5", "1..5",
          "0x10", "0b1", "0o7", "1_000", "1,5.", "1a", "1f", "1L", "1n", "0e", "0e+", "1 .5",
          "1. 5", "1e 5", "- 0", "\xef\xbc\x91", "\xd9\xa1", "1+2", "1-2", "$1", "1%",
          // strings
          "\"", "\"a", "a\"", "'a'", "`a`", "\"a\"b", "\"\\\"", "\"\\a\"", "\"\\x41\"", "\"\\'\"",
          "\"\\0\"", "\"\\v\"", "\"\\ \"", "\"\\", "\"\\u\"", "\"\\u1\"", "\"\\u12\"", "\"\\u123\"",
          "\"\\u123g\"", "\"\\u 123\"", "\"\\u+123\"", "\"\\u-123\"", "\"\\U00e9\"", "\"\\u{e9}\"",
          "\"\\\xc3\xa9\"", "\"\t\"", "\"\n\"", "\"\r\"", "\"\b\"", "\"\x1f\"", "\"\x01\"",
          "\"\\ud834\\u\"", "\"\\ud834\\uzzzz\"", "\\u0022a\"", "\"\"\"\"", "a", "\\", "*", "@"})
        EXPECT_EQ(CodeOfElement(json), "syntax") << json;
}

TEST(JsonGrammar, StringsThatNoTextHolds)
{
    EXPECT_EQ(CodeOfElement("\"\\u0000\""), "nul");
    EXPECT_EQ(CodeOfElement("{\"\\u0000\":1}"), "nul");
    for (const char *json :
         {"\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\ud800\"", "\"\\udc00\\ud800\"", "\"\\ud800a\"",
          "\"\\ud800\\t\"", "\"\\udbff\\ue000\"", "{\"\\udead\":1}", "\"\\ud834\\udd1e\\udd1e\"",
          "\"\\uD800\\u0041\""})
        EXPECT_EQ(CodeOfElement(json), "surrogate") << json;
    for (const char *json : {"\"\x80\"", "\"\xe0\"", "\"\xc0\x80\"", "\"\xf5\x80\x80\x80\"",
                             "\"\xed\xa0\x80\"", "\xff", "{\"\xe9\":1}"})
        EXPECT_EQ(CodeOfElement(json), "encoding") << json;
}

TEST(JsonGrammar, Documents)
{
    for (const char *json : {"{}", " {}", "{} ", "\r\n{\t}\n", "{\"a\":1}"})
        EXPECT_EQ(CodeOfDocument(json), "event") << json;
    for (const char *json : {" ",
                             "\n",
                             "{}{}",
                             "{},{}",
                             "{} {}",
                             "{}}",
                             "{}]",
                             "{}x",
                             "{}\"\"",
                             "{}//",
                             "{}1",
                             "[]{}",
                             "\xef\xbb\xbf{}",
                             "{\xef\xbb\xbf}",
                             "1 2",
                             "\"a\" \"b\"",
                             "{}\xe2\x81\xa0",
                             "{};",
                             "<!-- -->",
                             "<a/>",
                             "abc"})
        EXPECT_EQ(CodeOfDocument(json), "syntax") << json;
    for (const char *json : {"[]", "0", "\"\"", "null", "true", "false", " [1] ", "-0.5e1"})
        EXPECT_EQ(CodeOfDocument(json), "not_object") << json;
}

} // namespace
} // namespace pulse::decode
