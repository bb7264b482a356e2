// Which JSON Schemas may be set: a pointer and a reason for everything that RapidJSON's validator
// would ignore, judge wrongly or die of. What comes next is never a crash: random and damaged
// schemas at the end.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <string>

#include "decode/schema_check.hpp"

namespace pulse::decode {
namespace {

// "pointer: message", or "ok".
std::string
Check(const std::string &schema)
{
    auto fault = CheckSchema(schema);
    return fault ? fault->pointer + ": " + fault->message : "ok";
}

#define EXPECT_REFUSED(schema, expected)                                                           \
    EXPECT_TRUE(Check(schema).starts_with(expected)) << "it is " << Check(schema)

TEST(SchemaCheck, TakesDraftFour)
{
    EXPECT_EQ(Check("{}"), "ok");
    EXPECT_EQ(Check(R"({"$schema": "http://json-schema.org/draft-04/schema#", "id": "http://x/y",
        "title": "t", "description": "d", "default": {"$ref": 5}, "format": "email",
        "type": ["object", "null"], "properties": {"a": {"enum": [1, "x", null, true]},
        "b": {"minimum": 0, "exclusiveMinimum": true, "maximum": 1e3, "multipleOf": 2},
        "$ref": {"type": "string"}, "not": {}, "patternProperties": {}},
        "required": ["a", "c"], "minProperties": 1, "maxProperties": 9,
        "dependencies": {"a": ["b"], "c": {"minProperties": 2}},
        "patternProperties": {"^x-": {"minLength": 1, "maxLength": 2, "pattern": "a"}},
        "allOf": [{}], "anyOf": [{}, {}], "oneOf": [{}], "not": {"type": "string"}})"),
              "ok");
    EXPECT_EQ(Check(R"({"items": [{}, {}], "additionalItems": {"type": "null"}, "minItems": 1,
                        "maxItems": 3, "uniqueItems": false})"),
              "ok");
    EXPECT_EQ(Check(R"({"additionalItems": false})"), "ok");
}

TEST(SchemaCheck, RefusesWhatIsNoSchema)
{
    for (const char *schema : {"", "{", "1,2", "[]", "7", "null", "\"x\"", "{\"a\": 1e999}"})
        EXPECT_REFUSED(schema, ": ");
    EXPECT_REFUSED(R"({"properties": {"a": 5}})", "/properties/a: expected a schema");
    EXPECT_REFUSED(R"({"properties": {"a": true}})", "/properties/a: expected a schema");
    EXPECT_REFUSED(R"({"properties": []})", "/properties: expected an object of schemas");
    EXPECT_REFUSED(R"({"anyOf": []})", "/anyOf: ");
    EXPECT_REFUSED(R"({"allOf": {}})", "/allOf: ");
    EXPECT_REFUSED(R"({"not": []})", "/not: ");
    EXPECT_REFUSED(R"({"items": true})", "/items: ");
    EXPECT_REFUSED(R"({"items": [{}, 1]})", "/items/1: ");
    EXPECT_REFUSED(R"({"items": []})", "/items: ");
    EXPECT_REFUSED(R"({"additionalProperties": 1})", "/additionalProperties: ");
    EXPECT_REFUSED(R"({"definitions": {"a/b~": 1}})", "/definitions/a~1b~0: ");
    EXPECT_REFUSED(R"({"title": 1})", "/title: expected a string, found a number");
}

TEST(SchemaCheck, RefusesOtherKeywords)
{
    for (const char *keyword : {"const", "if", "contains", "propertyNames", "$defs", "examples",
                                "dependentRequired", "tyep", "Required", "minlength", ""})
        EXPECT_REFUSED("{\"allOf\": [{\"" + std::string(keyword) + "\": {}}]}",
                       "/allOf/0/" + std::string(keyword) + ": ");
    EXPECT_REFUSED(R"({"$schema": "http://json-schema.org/draft-07/schema#"})",
                   "/$schema: another");
}

TEST(SchemaCheck, RefusesValuesOfTheWrongType)
{
    EXPECT_REFUSED(R"({"type": "text"})", "/type: no type");
    EXPECT_REFUSED(R"({"type": []})", "/type: ");
    EXPECT_REFUSED(R"({"type": ["null", 1]})", "/type/1: ");
    EXPECT_REFUSED(R"({"type": ["null", "null"]})", "/type/1: it is there twice");
    EXPECT_REFUSED(R"({"enum": []})", "/enum: ");
    EXPECT_REFUSED(R"({"enum": 1})", "/enum: ");
    EXPECT_REFUSED(R"({"required": []})", "/required: ");
    EXPECT_REFUSED(R"({"required": true})", "/required: ");
    EXPECT_REFUSED(R"({"required": ["a", 1]})", "/required/1: ");
    EXPECT_REFUSED(R"({"required": ["a", "a"]})", "/required/1: ");
    EXPECT_REFUSED(R"({"dependencies": {"a": []}})", "/dependencies/a: ");
    EXPECT_REFUSED(R"({"dependencies": {"a": 1}})", "/dependencies/a: ");
    for (const char *value : {"-1", "1.5", "2.0", "\"1\"", "4294967296", "null"})
        for (const char *name :
             {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
            EXPECT_REFUSED("{\"" + std::string(name) + "\": " + value + "}",
                           "/" + std::string(name) + ": ");
    EXPECT_REFUSED(R"({"minimum": "0"})", "/minimum: ");
    EXPECT_REFUSED(R"({"exclusiveMinimum": 3})", "/exclusiveMinimum: ");
    EXPECT_REFUSED(R"({"exclusiveMaximum": true})", "/exclusiveMaximum: there is no maximum");
    EXPECT_REFUSED(R"({"multipleOf": 0})", "/multipleOf: ");
    EXPECT_REFUSED(R"({"pattern": 1})", "/pattern: ");
}

TEST(SchemaCheck, RefusesWhatRapidJsonJudgesWrongly)
{
    EXPECT_REFUSED(R"({"enum": [1, {"a": "b"}]})", "/enum/1: objects and arrays");
    EXPECT_REFUSED(R"({"uniqueItems": true})", "/uniqueItems: ");
    EXPECT_REFUSED(R"({"multipleOf": 0.01})", "/multipleOf: ");
    EXPECT_REFUSED(R"({"patternProperties": {"^x": {}}, "additionalProperties": false})",
                   "/patternProperties: ");
    EXPECT_REFUSED(R"({"patternProperties": {"^x": {}}, "additionalProperties": {}})",
                   "/patternProperties: ");
    EXPECT_REFUSED(R"({"required": ["a"], "additionalProperties": false})", "/required/0: \"a\"");
    EXPECT_REFUSED(R"({"properties": {"a": {}}, "dependencies": {"a": ["b"]},
                       "additionalProperties": {"type": "string"}})",
                   "/dependencies/a/0: \"b\"");
    EXPECT_REFUSED(R"({"patternProperties": {"(": {}}})", "/patternProperties/(: ");
    EXPECT_REFUSED(R"({"pattern": "(a*)*"})", "/pattern: ");
}

TEST(SchemaCheck, FollowsReferencesWithinTheSchemaOnly)
{
    EXPECT_EQ(Check(R"({"properties": {"a": {"$ref": "#/definitions/p"}},
                        "definitions": {"p": {"$ref": "#/definitions/q~1%72"}, "q/r": {}}})"),
              "ok");
    EXPECT_EQ(Check(R"({"allOf": [{"type": "null"}, {"$ref": "#/allOf/0"}]})"), "ok");
    for (const char *reference : {"other.json", "http://x/y#/a", "#name", "", "x#/definitions/p"})
        EXPECT_REFUSED("{\"not\": {\"$ref\": \"" + std::string(reference) + "\"}}",
                       "/not/$ref: the reference is no JSON pointer");
    EXPECT_REFUSED(R"({"$ref": 5})", "/$ref: expected a string");
    EXPECT_REFUSED(R"({"not": {"$ref": "#/definitions/x"}})",
                   "/not/$ref: the reference leads nowhere");
    EXPECT_REFUSED(R"({"allOf": [{}, {"$ref": "#/allOf/01"}]})", "/allOf/1/$ref: ");
    EXPECT_REFUSED(R"({"not": {"$ref": "#/~2"}})", "/not/$ref: ");
    EXPECT_REFUSED(R"({"not": {"$ref": "#/%zz"}})", "/not/$ref: ");
    EXPECT_REFUSED(R"({"not": {"$ref": "#/title"}, "title": "t"})", "/title: expected a schema");
    EXPECT_REFUSED(R"({"id": "x", "items": {"id": "y", "$ref": "#/definitions/p"},
                       "properties": {"a": {"id": "z"}}, "definitions": {"p": {}}})",
                   "/properties/a/id: ");
}

TEST(SchemaCheck, RefusesReferencesThatLeadBack)
{
    EXPECT_REFUSED(R"({"$ref": "#"})", "/$ref: the reference leads back");
    EXPECT_REFUSED(R"({"properties": {"a": {"$ref": "#"}}})", "/properties/a/$ref: ");
    EXPECT_REFUSED(R"({"properties": {"a": {"items": {"$ref": "#/properties/a"}}}})",
                   "/properties/a/items/$ref: ");
    EXPECT_REFUSED(R"({"definitions": {"a": {"$ref": "#/definitions/b"},
                                       "b": {"not": {"$ref": "#/definitions/%61"}}}})",
                   "/definitions/b/not/$ref: ");
}

TEST(SchemaCheck, BoundsSizeDepthAndWork)
{
    std::string deep;
    for (int i = 0; i < 64; i++)
        deep += "{\"not\": ";
    EXPECT_TRUE(Check(deep + "{}" + std::string(64, '}')).find("64 levels") != std::string::npos);
    std::string very_deep;
    for (int i = 0; i < 100000; i++)
        very_deep += "{\"not\":";
    EXPECT_REFUSED(very_deep, ": ");
    EXPECT_REFUSED("{\"title\": \"" + std::string(kMaxSchemaBytes, 'x') + "\"}",
                   ": the schema is longer");

    // 2^40 subschemas, in a few lines.
    std::string doubled = R"({"definitions": {"d0": {})";
    for (int i = 1; i <= 40; i++)
        doubled += ",\"d" + std::to_string(i) + "\": {\"allOf\": [{\"$ref\": \"#/definitions/d" +
                   std::to_string(i - 1) + "\"}, {\"$ref\": \"#/definitions/d" +
                   std::to_string(i - 1) + "\"}]}";
    EXPECT_TRUE(Check(doubled + "}}").find("more than 1000 subschemas") != std::string::npos);
    std::string wide = "{\"properties\": {\"p\": {}";
    for (int i = 0; i < 990; i++)
        wide += ", \"p" + std::to_string(i) + "\": {}";
    EXPECT_EQ(Check(wide + "}}"), "ok");
}

TEST(SchemaCheck, NothingOfItCrashes)
{
    const std::string whole =
        R"({"type":["object","null"],"properties":{"a":{"$ref":"#/definitions/p"},"b":{"items":[{},)"
        R"({"pattern":"^(a|b{2,3})[^\\d]*$"}],"additionalItems":false}},"required":["a"],)"
        R"("dependencies":{"a":["b"],"b":{"minimum":1.5e3,"exclusiveMinimum":true}},)"
        R"("patternProperties":{"^x":{"enum":[1,"x",null]}},"anyOf":[{"not":{}},{"maxLength":3}],)"
        R"("definitions":{"p":{"multipleOf":3,"oneOf":[{"type":"integer"}]}}})";
    ASSERT_EQ(Check(whole), "ok");
    const char *given = std::getenv("PULSE_TEST_SEED");
    unsigned seed = given != nullptr ? static_cast<unsigned>(std::atol(given)) : 5;
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const std::string bytes = "{}[]\":,$ref#/0123456789.eE-+ntfabx()*?\\|^~%";
    const std::string words[] = {"\"$ref\":\"#\"",
                                 "\"$ref\":\"#/properties/a\"",
                                 "{}",
                                 "[]",
                                 "null",
                                 "1e308",
                                 "-9223372036854775808",
                                 "18446744073709551616",
                                 "\"patternProperties\":{\"(\":{}}",
                                 "\"not\":{}",
                                 "\"enum\":[{}]"};
    for (int i = 0; i < 30000; i++) {
        std::string schema = whole;
        for (int change = 1 + static_cast<int>(random() % 4); change > 0; change--) {
            size_t at = random() % schema.size();
            switch (random() % 4) {
            case 0:
                schema[at] = bytes[random() % bytes.size()];
                break;
            case 1:
                schema.erase(at, 1 + random() % 12);
                break;
            case 2:
                schema.insert(at, words[random() % std::size(words)]);
                break;
            default:
                schema.insert(at, schema.substr(random() % schema.size(), random() % 40));
            }
            if (schema.empty())
                schema = "{";
        }
        (void)Check(schema);
    }
}

} // namespace
} // namespace pulse::decode
