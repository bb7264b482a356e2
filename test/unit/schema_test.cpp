// Events judged by a JSON Schema: every keyword of draft 4 that is supported, by the meaning the
// specification gives it, and what a reject says: where, by which rule, expected and found.
#include "decode_fixture.hpp"

#include "decode/schema_check.hpp"

namespace pulse::decode {
namespace {

std::shared_ptr<const Mapping>
WithSchema(const std::string &schema)
{
    auto fault = CheckSchema(schema);
    EXPECT_FALSE(fault) << schema << " at " << fault->pointer << ": " << fault->message;
    auto mapping = std::make_shared<Mapping>(*MappingBuilder().Rest().Build());
    mapping->schema = schema;
    return mapping;
}

// The value stands in an event as the member v.
class Judged {
  public:
    explicit Judged(const std::string &schema)
        : decoder_(WithSchema(R"({"properties": {"v": )" + schema + "}}"))
    {
    }

    bool Takes(const std::string &value)
    {
        Decoded decoded(decoder_, "{\"v\": " + value + "}");
        EXPECT_TRUE(decoded.is_event() || decoded.Code() == "schema") << decoded.Outcome();
        return decoded.is_event();
    }

    void Expect(std::initializer_list<const char *> good, std::initializer_list<const char *> bad)
    {
        for (const char *value : good)
            EXPECT_TRUE(Takes(value)) << value;
        for (const char *value : bad)
            EXPECT_FALSE(Takes(value)) << value;
    }

  private:
    Decoder decoder_;
};

std::string
Outcome(const std::string &schema, const std::string &event)
{
    return Decoded(WithSchema(schema), event).Outcome();
}

TEST(Schema, SaysWhereByWhichRuleExpectedAndFound)
{
    const char *schema =
        R"({"required": ["price"], "properties": {"price": {"$ref": "#/definitions/money"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        "a/b": {"additionalProperties": false, "properties": {"x": {}}}},
        "definitions": {"money": {"type": "number", "minimum": 0}}})";
    EXPECT_EQ(Outcome(schema, R"({"price": -3.50})"),
              "schema /price: breaks #/definitions/money/minimum, expected 0, found number -3.50");
    EXPECT_EQ(
        Outcome(schema, R"({"price": "12"})"),
        "schema /price: breaks #/definitions/money/type, expected \"number\", found string 12");
    EXPECT_EQ(Outcome(schema, R"({"x": {"y": 1}})"),
              "schema : breaks #/required, expected [\"price\"], found object {\"x\": {\"y\": 1}}");
    EXPECT_EQ(Outcome(schema, R"({"price": 1, "tags": ["a", "c"]})"),
              "schema /tags/1: breaks #/properties/tags/items/enum, expected [\"a\", \"b\"], found "
              "string c");
    EXPECT_EQ(Outcome(schema, R"({"price": 1, "tags": ["a","a","a","a"]})"),
              "schema /tags: breaks #/properties/tags/maxItems, expected 3, found array "
              "[\"a\",\"a\",\"a\",\"a\"]");
    EXPECT_EQ(
        Outcome(schema, R"({"price": 1, "a/b": {"x": 1, "y": 2}})"),
        "schema /a~1b/y: breaks #/properties/a~1b/additionalProperties, expected false, found "
        "member y");
    EXPECT_EQ(Outcome(schema, R"({"price": 1})"), "event");
}

TEST(Schema, KeepsMostOfThePayloadOutOfTheMessage)
{
    std::string secret(5000, 'x');
    Decoded decoded(WithSchema(R"({"properties": {"v": {"type": "number"}}})"),
                    "{\"v\": \"" + secret + "\"}");
    EXPECT_EQ(decoded.Code(), "schema");
    EXPECT_LT(decoded.reject().message.size(), 400u);
    EXPECT_LE(std::count(decoded.reject().message.begin(), decoded.reject().message.end(), 'x'),
              256);
}

TEST(Schema, ComesAfterColumnsAndUnknownFields)
{
    auto mapping = std::make_shared<Mapping>(*EventsMapping().Build());
    mapping->schema = R"({"required": ["price"]})";
    EXPECT_EQ(Decoded(mapping, R"({"event_type": "a"})").Code(), "missing_field");
    EXPECT_EQ(Decoded(mapping, R"({"event_type": "a", "user_id": "u",
                                   "event_timestamp": "2026-11-20T10:00:00Z"})")
                  .Code(),
              "schema");
    mapping = std::make_shared<Mapping>(*mapping);
    const_cast<Mapping &>(*mapping).unknown_fields = UnknownFields::kReject;
    EXPECT_EQ(Decoded(mapping, R"({"event_type": "a", "user_id": "u", "x": 1,
                                   "event_timestamp": "2026-11-20T10:00:00Z"})")
                  .Code(),
              "unknown_field");
}

TEST(Schema, Types)
{
    Judged(R"({"type": "integer"})")
        .Expect({"1", "-1", "0", "-0", "18446744073709551615"},
                {"1.0", "1e2", "\"1\"", "true", "null", "[]", "{}"});
    Judged(R"({"type": "number"})")
        .Expect({"1", "1.5", "1e300", "-0.0"}, {"\"1\"", "null", "false"});
    Judged(R"({"type": "string"})").Expect({"\"\"", "\"1\""}, {"1", "null", "[\"a\"]"});
    Judged(R"({"type": ["string", "null"]})").Expect({"null", "\"x\""}, {"0", "false"});
    Judged(R"({"type": "boolean"})").Expect({"true", "false"}, {"0", "null"});
    Judged(R"({"type": "object"})").Expect({"{}"}, {"[]", "\"{}\""});
    Judged(R"({"type": "array"})").Expect({"[]", "[1, [2]]"}, {"{}", "1"});
}

TEST(Schema, EnumComparesValues)
{
    Judged(R"({"enum": [1, "a", null, true, 2.5, -3]})")
        .Expect({"1", "1.0", "10e-1", "\"a\"", "\"\\u0061\"", "null", "true", "2.50", "-3.0"},
                {"2", "\"1\"", "false", "\"A\"", "\"null\"", "0", "3", "{}", "[]", "[1]"});
    Judged(R"({"enum": [0]})").Expect({"0", "-0", "0.0", "-0.0"}, {"false", "null", "\"\""});
}

TEST(Schema, Numbers)
{
    Judged(R"({"minimum": 1.5})").Expect({"1.5", "2", "\"0\""}, {"1", "1.4", "-7"});
    Judged(R"({"minimum": 1, "exclusiveMinimum": true})").Expect({"1.1", "2"}, {"1", "1.0"});
    Judged(R"({"minimum": 1, "exclusiveMinimum": false})").Expect({"1"}, {"0"});
    Judged(R"({"maximum": -2})")
        .Expect({"-2", "-2.5", "null"}, {"-1", "0", "18446744073709551615"});
    Judged(R"({"maximum": 3, "exclusiveMaximum": true})").Expect({"2.9"}, {"3", "3.0"});
    Judged(R"({"maximum": 18446744073709551614})")
        .Expect({"18446744073709551614", "-1"}, {"18446744073709551615", "1e20"});
    Judged(R"({"multipleOf": 3})").Expect({"0", "9", "-9", "9.0", "\"x\""}, {"10", "-10", "9.5"});
}

TEST(Schema, Strings)
{
    Judged(R"({"minLength": 2, "maxLength": 3})")
        .Expect({"\"ab\"", "\"äöü\"", "\"\\ud83d\\ude00\\ud83d\\ude00\"", "7"},
                {"\"a\"", "\"abcd\"", "\"\\ud83d\\ude00\""});
    Judged(R"({"pattern": "^[A-Z]{2}\\d+$"})")
        .Expect({"\"AB12\"", "5"}, {"\"aB12\"", "\"AB\"", "\"\""});
    Judged(R"({"pattern": "b"})").Expect({"\"abc\""}, {"\"ac\""});
    Judged(R"({"format": "email"})").Expect({"\"no address\""}, {});
}

TEST(Schema, Arrays)
{
    Judged(R"({"items": {"type": "integer"}})")
        .Expect({"[]", "[1, 2]", "{}"}, {"[1, \"2\"]", "[[1]]"});
    Judged(R"({"items": [{"type": "integer"}, {"type": "string"}]})")
        .Expect({"[]", "[1]", "[1, \"a\", null]"}, {"[\"a\"]", "[1, 2]"});
    Judged(R"({"items": [{}], "additionalItems": false})").Expect({"[]", "[1]"}, {"[1, 2]"});
    Judged(R"({"items": [{}], "additionalItems": {"type": "null"}})")
        .Expect({"[1, null]"}, {"[1, 2]"});
    Judged(R"({"additionalItems": false})").Expect({"[1, 2]"}, {});
    Judged(R"({"minItems": 1, "maxItems": 2})")
        .Expect({"[1]", "[1, 2]", "\"\""}, {"[]", "[1, 2, 3]"});
    Judged(R"({"items": {"items": {"minimum": 1}}})")
        .Expect({"[[1], [2, 3]]", "[1]"}, {"[[1], [2, 0]]"});
}

TEST(Schema, Objects)
{
    Judged(R"({"required": ["a", "b"]})").Expect({"{\"a\": null, \"b\": 1}", "[]"}, {"{\"a\": 1}"});
    Judged(R"({"properties": {"a": {"type": "string"}}})")
        .Expect({"{}", "{\"a\": \"x\", \"b\": 1}"}, {"{\"a\": 1}"});
    Judged(R"({"properties": {"a": {}}, "additionalProperties": false})")
        .Expect({"{\"a\": 1}"}, {"{\"b\": 1}"});
    Judged(R"({"properties": {"a": {}}, "additionalProperties": {"type": "null"}})")
        .Expect({"{\"a\": 1, \"b\": null}"}, {"{\"b\": 1}"});
    Judged(
        R"({"patternProperties": {"^n_": {"type": "number"}}, "properties": {"n_x": {"minimum": 3}}})")
        .Expect({"{\"n_a\": 1, \"b\": \"x\", \"n_x\": 4}"},
                {"{\"n_a\": \"1\"}", "{\"n_x\": 2}", "{\"n_x\": 4, \"n_y\": \"\"}",
                 "{\"n_x\": \"4\"}"});
    Judged(R"({"minProperties": 1, "maxProperties": 2})")
        .Expect({"{\"a\": 1}", "[]"}, {"{}", "{\"a\": 1, \"b\": 1, \"c\": 1}"});
    Judged(R"({"dependencies": {"a": ["b"], "c": {"required": ["d"]}}})")
        .Expect({"{}", "{\"b\": 1}", "{\"a\": 1, \"b\": 1}", "{\"c\": 1, \"d\": 1}"},
                {"{\"a\": 1}", "{\"c\": 1}", "{\"a\": 1, \"b\": 1, \"c\": 2}"});
}

TEST(Schema, Combinations)
{
    Judged(R"({"allOf": [{"minimum": 1}, {"maximum": 3}]})").Expect({"2"}, {"0", "4"});
    Judged(R"({"anyOf": [{"type": "string"}, {"minimum": 3}]})")
        .Expect({"\"x\"", "3", "null"}, {"2"});
    Judged(R"({"oneOf": [{"minimum": 1}, {"maximum": 3}]})").Expect({"0", "4"}, {"2", "\"both\""});
    Judged(R"({"not": {"type": "null"}})").Expect({"1"}, {"null"});
    Judged(
        R"({"oneOf": [{"required": ["a"]}, {"properties": {"b": {"anyOf": [{"enum": [1]}, {"enum": [2]}]}},
                          "required": ["b"]}]})")
        .Expect({"{\"a\": 1}", "{\"b\": 2}", "{\"a\": 1, \"b\": 3}"},
                {"{}", "{\"b\": 3}", "{\"a\": 1, \"b\": 1}"});
    Judged(
        R"({"items": {"oneOf": [{"type": "integer"}, {"items": {"not": {"enum": ["x"]}}, "type": "array"}]}})")
        .Expect({"[1, [2, \"y\"], 3]"}, {"[1, [\"x\"]]", "[\"1\"]"});
}

TEST(Schema, OneDecoderJudgesAfterEveryReject)
{
    Judged judged(
        R"({"anyOf": [{"items": {"pattern": "^a+$"}, "type": "array"}, {"required": ["k"], "type": "object"}]})");
    for (int i = 0; i < 500; i++) {
        EXPECT_FALSE(judged.Takes("[\"a\", \"ab\"]"));
        EXPECT_TRUE(judged.Takes("[\"a\", \"aaa\"]"));
        EXPECT_FALSE(judged.Takes("{\"x\": [[[{\"k\": 1}]]]}"));
        EXPECT_TRUE(judged.Takes("{\"x\": [[[]]], \"k\": {}}"));
    }
}

TEST(Schema, OneThatWasNeverCheckedLetsNothingPass)
{
    auto mapping = std::make_shared<Mapping>(*MappingBuilder().Rest().Build());
    mapping->schema = R"({"$ref": "#"})";
    EXPECT_EQ(Decoded(mapping, "{}").Outcome(),
              "schema: the validator gave up: the schema cannot be "
              "used: the reference leads back to itself");
}

} // namespace
} // namespace pulse::decode
