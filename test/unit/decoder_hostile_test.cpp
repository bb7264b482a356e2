// Bad input, one test per hazard: what the payload is made of, what RapidJSON 1.1.0 gets wrong, and
// payloads built to take time or memory.
#include "decode_fixture.hpp"

#include <chrono>

namespace pulse::decode {
namespace {

const std::string kBom = "\xef\xbb\xbf";

std::string
Outcome(std::string_view value)
{
    return Decoded(MappingBuilder().Add("c", ColumnType::kText).Rest().Build(), value).Outcome();
}

std::string
Code(std::string_view value)
{
    return Decoded(MappingBuilder().Add("c", ColumnType::kText).Rest().Build(), value).Code();
}

std::string
Repeat(std::string_view text, size_t count)
{
    std::string result;
    for (size_t i = 0; i < count; i++)
        result += text;
    return result;
}

TEST(Hostile, NoValueEmptyValueAndByteOrderMark)
{
    Decoder decoder(MappingBuilder().Build());
    Arena arena;
    Reject reject;
    EXPECT_FALSE(decoder.Decode(std::string_view(), kTestNowUs, arena, nullptr, &reject));
    EXPECT_EQ(reject.code, RejectCode::kTombstone);
    EXPECT_EQ(reject.message, "the record has no value");
    EXPECT_EQ(reject.path.data(), nullptr);
    EXPECT_EQ(Outcome(""), "empty: the value has zero bytes");
    EXPECT_EQ(Outcome(kBom + "{}"),
              "syntax: expected a JSON value, not a byte order mark, at byte 0");
    EXPECT_EQ(Outcome(" \n\t\r "), "syntax: expected a JSON value at byte 5, the end of the value");
}

TEST(Hostile, BytesThatAreNotText)
{
    EXPECT_EQ(Outcome("{\"c\":\"\xff\"}"), "encoding: invalid UTF-8 at byte 6: \\xff\"}");
    EXPECT_EQ(Outcome("{\"c\":\"\xc0\xaf\"}"), "encoding: invalid UTF-8 at byte 6: \\xc0\\xaf\"}");
    EXPECT_EQ(Outcome("{\"c\":\"\xed\xa0\x80\"}"),
              "encoding: invalid UTF-8 at byte 6: \\xed\\xa0\\x80\"");
    EXPECT_EQ(Outcome("{\"c\":\"\xe2\x82"), "encoding: invalid UTF-8 at byte 6: \\xe2\\x82");
    EXPECT_EQ(Outcome(std::string_view("{\"c\":\"a\0b\"}", 11)), "encoding: NUL byte at byte 7");
    // A NUL would end RapidJSON's parse as if the value ended there.
    EXPECT_EQ(Outcome(std::string_view("{}\0{", 4)), "encoding: NUL byte at byte 2");
    EXPECT_EQ(Outcome(std::string_view("{\0}\0", 4)), "encoding: NUL byte at byte 1");
    EXPECT_EQ(Outcome(std::string_view("\xff\xfe{\0}\0", 6)),
              "encoding: invalid UTF-8 at byte 0: \\xff\\xfe{\\x00");
}

TEST(Hostile, EscapedNul)
{
    EXPECT_EQ(Outcome("{\"c\":\"a\\u0000\"}"), "nul /c: \\u0000 in a string at byte 7");
    EXPECT_EQ(Outcome("{\"a\":[1,{\"b\":\"\\u0000\"}]}"),
              "nul /a/1/b: \\u0000 in a string at byte 14");
    EXPECT_EQ(Outcome("{\"a\":{\"x\\u0000\":1}}"), "nul /a: \\u0000 in a string at byte 8");
    EXPECT_EQ(Code("{\"c\":\"\\\\u0000\"}"), "event");
}

TEST(Hostile, HalfSurrogates)
{
    EXPECT_EQ(Outcome("{\"c\":\"\\ud800\"}"),
              "surrogate /c: half a surrogate pair at byte 6: \\ud800");
    EXPECT_EQ(Outcome("{\"c\":\"x\\udc00\"}"),
              "surrogate /c: half a surrogate pair at byte 7: \\udc00");
    EXPECT_EQ(Outcome("{\"a\":{\"b\":[0,\"\\uDFFF\"]}}"),
              "surrogate /a/b/1: half a surrogate pair at byte 14: \\uDFFF");
    EXPECT_EQ(Outcome("{\"k\":1,\"\\ud800\":1}"),
              "surrogate : half a surrogate pair at byte 8: \\ud800");
    EXPECT_EQ(Outcome("{\"k\":1,\"\\udc00\":1}"),
              "surrogate : half a surrogate pair at byte 8: \\udc00");
    EXPECT_EQ(Code("{\"c\":\"\\ud800\\ud800\"}"), "surrogate");
    EXPECT_EQ(Code("{\"c\":\"\\ud800\\n\"}"), "surrogate");
    EXPECT_EQ(Code("{\"c\":\"\\ud800\\u00\"}"), "syntax");
    EXPECT_EQ(
        Decoded(MappingBuilder().Add("c", ColumnType::kText).Build(), "{\"c\":\"\\ud83d\\ude00\"}")
            .Show(0),
        "text \xf0\x9f\x98\x80");
}

TEST(Hostile, ExponentUnderflowThatAbortsStrtod)
{
    EXPECT_EQ(Outcome("{\"c\":1.1111111111e-2147483639}"),
              "number /c: number out of range: 1.1111111111e-2147483639");
    EXPECT_EQ(Code("1.1111111111e-2147483639"), "number");
}

TEST(Hostile, ControlCharactersAtEveryPlaceOfAString)
{
    for (int control = 1; control < 0x20; control++)
        for (size_t at = 0; at < 24; at++) {
            std::string text(24, '\x7f');
            text[at] = static_cast<char>(control);
            ASSERT_EQ(Code("{\"c\":\"" + text + "\"}"), "syntax") << control << " at " << at;
        }
}

TEST(Hostile, EveryPrefixEndsAtItsEnd)
{
    // Decoded copies the value to a block of its size: the address sanitizer watches its end.
    const std::string whole = "{\"c\":\"\\ud83d\\ude00\xe2\x82\xac\\n\",\"n\":-1.5e+10,\"t\":true,"
                              "\"f\":false,\"u\":null,\"a\":[{},[]]}";
    ASSERT_EQ(Outcome(whole), "event");
    for (size_t length = 1; length < whole.size(); length++) {
        std::string code = Code(whole.substr(0, length));
        EXPECT_TRUE(code == "syntax" || code == "encoding" || code == "surrogate") << length;
    }
}

TEST(Hostile, DeepNestingIsRefusedAtTheLimit)
{
    EXPECT_EQ(Code("{\"c\":null,\"a\":" + Repeat("[", 63) + Repeat("]", 63) + "}"), "event");
    EXPECT_EQ(Code("{\"a\":" + Repeat("[", 64) + Repeat("]", 64) + "}"), "depth");
    EXPECT_EQ(Code(Repeat("{\"a\":", 64) + "1" + Repeat("}", 64)), "event");
    EXPECT_EQ(Code(Repeat("{\"a\":", 65) + "1" + Repeat("}", 65)), "depth");
    EXPECT_EQ(Code(Repeat("[", 1000000)), "depth");
    EXPECT_EQ(Code(Repeat("{\"a\":", 200000)), "depth");
    EXPECT_EQ(Code(Repeat("[{\"\":", 200000)), "depth");
    Decoded deep(MappingBuilder().Build(), Repeat("{\"a\":", 70));
    EXPECT_EQ(deep.reject().message, "nested deeper than 64 levels");
    EXPECT_EQ(deep.reject().path, Repeat("/a", 64));
}

TEST(Hostile, DepthLimitIsASetting)
{
    MappingBuilder builder;
    builder.limits().max_depth = 1;
    EXPECT_EQ(Decoded(builder.Build(), "{\"a\":1}").Code(), "event");
    EXPECT_EQ(Decoded(builder.Build(), "{\"a\":[]}").Code(), "depth");
    builder.limits().max_depth = 5000;
    EXPECT_EQ(
        Decoded(builder.Build(), "{\"a\":" + Repeat("[", 4999) + Repeat("]", 4999) + "}").Code(),
        "event");
    builder.limits().max_depth = 0;
    EXPECT_EQ(Decoded(builder.Build(), "{}").Code(), "depth");
}

TEST(Hostile, DuplicateNamesAtEveryLevel)
{
    EXPECT_EQ(Outcome("{\"c\":1,\"c\":1}"), "dup_key /c: duplicate member name \"c\"");
    EXPECT_EQ(Outcome("{\"c\":1,\"\\u0063\":1}"), "dup_key /c: duplicate member name \"c\"");
    EXPECT_EQ(Outcome("{\"\":1,\"\":1}"), "dup_key /: duplicate member name \"\"");
    EXPECT_EQ(Outcome("{\"a\":[0,{\"b/c\":1,\"x\":{},\"b\\/c\":2}]}"),
              "dup_key /a/1/b~1c: duplicate member name \"b/c\"");
    EXPECT_EQ(Outcome("{\"a\":{\"a\":{\"a\":1}},\"b\":{\"a\":1}}"), "event");
    EXPECT_EQ(Outcome("{\"a\":[{\"x\":1},{\"x\":1}],\"x\":1}"), "event");
    EXPECT_EQ(Outcome("{\"a\":1,\"A\":1}"), "event");
}

TEST(Hostile, HundredThousandNamesInOneObject)
{
    std::string members;
    for (int i = 0; i < 100000; i++)
        members += "\"" + std::to_string(i) + "\":1,";
    MappingBuilder builder;
    builder.Rest().limits().max_message_bytes = 4000000;
    Decoder decoder(builder.Build());
    Decoded top(decoder, "{" + members + "\"last\":1}");
    EXPECT_EQ(top.Code(), "event");
    EXPECT_EQ(top.cell(0).length, members.size() + 10);
    EXPECT_EQ(Decoded(decoder, "{" + members + "\"77777\":1}").Code(), "dup_key");
    EXPECT_EQ(Decoded(decoder, "{\"properties\":{" + members + "\"last\":1}}").Code(), "event");
    EXPECT_EQ(Decoded(decoder, "{\"properties\":{" + members + "\"last\":1},\"5\":1}").Code(),
              "dup_key");
    EXPECT_EQ(Decoded(decoder, "{\"a\":1}").Show(0), "json {\"a\":1}");
}

TEST(Hostile, Oversize)
{
    MappingBuilder builder;
    builder.limits().max_message_bytes = 10;
    EXPECT_EQ(Decoded(builder.Build(), "{\"a\":1234}").Code(), "event");
    EXPECT_EQ(Decoded(builder.Build(), "{\"a\":12345}").Outcome(),
              "oversize: the value has 11 bytes, the limit is 10");
    EXPECT_EQ(Decoded(builder.Build(), std::string(11, '\0')).Code(), "oversize");
    EXPECT_EQ(Decoded(builder.Build(), "").Code(), "empty");
}

TEST(Hostile, NumbersOutOfRange)
{
    for (const char *number : {"1.8e308", "-1e309", "1e400", "1e400000", "1e100000", "1e-400",
                               "1e-100000", "1e99999999999999999999", "0e99999", "0e-99999"})
        EXPECT_EQ(Outcome(std::string("{\"a\":[") + number + "]}"),
                  std::string("number /a/0: number out of range: ") + number);
    EXPECT_EQ(Code("{\"a\":" + std::string(309, '9') + "}"), "number");
    EXPECT_EQ(Code("{\"a\":0." + std::string(1000, '9') + "}"), "number");
    EXPECT_EQ(Code("{\"a\":0." + std::string(999, '9') + "}"), "event");
    EXPECT_EQ(Code("{\"a\":" + std::string(900000, '9') + "}"), "number");
    EXPECT_EQ(Code("{\"a\":1e" + std::string(900000, '9') + "}"), "number");
    EXPECT_EQ(Code("{\"a\":1e-" + std::string(900000, '9') + "}"), "number");
    for (const char *number : {"-0", "9223372036854775808", "123456789012345678901234567890",
                               "-0.0", "1e-307", "1.7976931348623157e308", "1E+2"})
        EXPECT_EQ(Outcome(std::string("{\"a\":") + number + "}"), "event");
}

TEST(Hostile, SchemaFramedPayloads)
{
    using namespace std::string_literals;
    const std::string frame = "\0\0\1\2\3"s;
    Decoded json(MappingBuilder().Add("c", ColumnType::kText).Build(), frame + "{\"c\":\"x\"}");
    EXPECT_EQ(json.Show(0), "text x");
    EXPECT_TRUE(json.IsInValue(json.cell(0).view()));
    EXPECT_EQ(Outcome(frame), "schema_framed_payload: framed with schema id 66051, not a JSON "
                              "object inside");
    EXPECT_EQ(Code(frame + "\x02\x06"
                           "foo"),
              "schema_framed_payload");
    EXPECT_EQ(Code(frame + " {}"), "schema_framed_payload");
    EXPECT_EQ(Code(frame + "[]"), "schema_framed_payload");
    EXPECT_EQ(Outcome("\0\xff\xff\xff\xff"s), "schema_framed_payload: framed with schema id "
                                              "4294967295, not a JSON object inside");
    EXPECT_EQ(Code("\0\0\0\1"s), "encoding");
    EXPECT_EQ(Outcome(frame + "{\"c\":\"\xff\"}"), "encoding: invalid UTF-8 at byte 11: \\xff\"}");
    EXPECT_EQ(Outcome(frame + "{\"c\":\"\\udc00\"}"),
              "surrogate /c: half a surrogate pair at byte 11: \\udc00");
    EXPECT_EQ(Outcome(frame + "{\"c\":}"),
              "syntax: expected a JSON value at byte 10, found: }"); // counted with the frame
}

TEST(Hostile, TopLevelMustBeAnObject)
{
    EXPECT_EQ(Outcome("[]"), "not_object: expected object, found array []");
    EXPECT_EQ(Outcome("\"{}\""), "not_object: expected object, found string \"{}\"");
    EXPECT_EQ(Outcome(" 12 "), "not_object: expected object, found number 12");
    EXPECT_EQ(Outcome("null"), "not_object: expected object, found null");
    EXPECT_EQ(Outcome("true"), "not_object: expected object, found true");
    EXPECT_EQ(Outcome("[{\"a\":{}},{}]"),
              "not_object: expected object, found array [{\"a\":{}},{}]");
}

TEST(Hostile, MessagesShowNoControlCharactersAndLittlePayload)
{
    MappingBuilder builder;
    builder.Add("c", ColumnType::kInt4);
    Decoded terminal(builder.Build(), "{\"c\":\"\xc2\x9b"
                                      "31m\x7f\"}");
    EXPECT_EQ(terminal.reject().message, "expected integer, found string \"\\xc2\\x9b31m\\x7f\"");
    Decoded longer(builder.Build(), "{\"c\":\"" + std::string(100000, 'x') + "\"}");
    EXPECT_EQ(longer.reject().message,
              "expected integer, found string \"" + std::string(119, 'x') + "...");
    std::string name(100000, 'n');
    Decoded pointer(builder.Build(), "{\"" + name + "\":1,\"" + name + "\":1}");
    EXPECT_EQ(pointer.Code(), "dup_key");
    EXPECT_LE(pointer.reject().path.size(), 512u);
    EXPECT_TRUE(pointer.reject().path.ends_with("n..."));
}

TEST(Hostile, SyntaxMessagesNameTheByte)
{
    EXPECT_EQ(Outcome("{\"a\":1,}"), "syntax: expected a member name at byte 7, found: }");
    EXPECT_EQ(Outcome("{\"a\" 1}"), "syntax: expected a colon after a member name at byte 5, "
                                    "found: 1}");
    EXPECT_EQ(Outcome("{\"a\":1 \"b\":2}"),
              "syntax: expected a comma or } after a member at byte 7, found: \"b\":2}");
    EXPECT_EQ(Outcome("[1 2]"),
              "syntax: expected a comma or ] after an element at byte 3, found: 2]");
    EXPECT_EQ(Outcome("{} x"), "syntax: expected nothing after the JSON value at byte 3, found: x");
    EXPECT_EQ(Outcome("{\"a\":\"x"),
              "syntax: expected a quote that ends the string at byte 7, the end of the value");
    EXPECT_EQ(Outcome("{\"a\":\"\t\"}"),
              "syntax: invalid escape or control character in a string at byte 6, found: "
              "\\x09\"}");
    EXPECT_EQ(Outcome("{\"a\":\"\\x\"}"),
              "syntax: invalid escape or control character in a string at byte 6, found: "
              "\\x\"}");
    EXPECT_EQ(Outcome("{\"a\":\"\\u12G4\"}"),
              "syntax: expected four hexadecimal digits after \\u at byte 6, found: \\u12G4\"}");
    EXPECT_EQ(Outcome("{\"a\":1.}"),
              "syntax: expected a digit after the decimal point at byte 7, found: }");
    EXPECT_EQ(Outcome("{\"a\":1e}"), "syntax: expected a digit in the exponent at byte 7, "
                                     "found: }");
}

// A megabyte takes milliseconds; the limit is there for algorithms that are quadratic, which miss
// it by far on any machine.
TEST(Hostile, NoPayloadIsSlow)
{
    constexpr size_t kBytes = 1000000;
    std::vector<std::string> payloads = {Repeat("1,", kBytes / 2),
                                         "[" + Repeat("1,", kBytes / 2),
                                         Repeat("[],", kBytes / 3),
                                         "[" + Repeat("[],", kBytes / 3),
                                         "[" + Repeat("{\"a\":1},", kBytes / 8),
                                         "[\"" + Repeat("\\u00e4", kBytes / 6) + "\"]",
                                         "{\"c\":\"" + Repeat("\\n", kBytes / 2),
                                         "[" + Repeat("\"\\n\",", kBytes / 5),
                                         "[" + Repeat("\"\",", kBytes / 3),
                                         std::string(kBytes, ' '),
                                         Repeat("\xc3\xa4", kBytes / 2),
                                         std::string(kBytes, '9'),
                                         "[" + Repeat("-0.1e-1,", kBytes / 8),
                                         "{\"" + std::string(kBytes - 10, 'k')};
    Decoder decoder(MappingBuilder().Add("c", ColumnType::kText).Rest().Build());
    for (const std::string &payload : payloads) {
        auto start = std::chrono::steady_clock::now();
        Decoded decoded(decoder, payload.substr(0, kBytes));
        std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        EXPECT_LT(took.count(), 5.0) << payload.substr(0, 20);
    }
}

} // namespace
} // namespace pulse::decode
