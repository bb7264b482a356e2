// src/decode/decoder.cpp and scanner.cpp: whole events, paths, the rest column, and which error
// wins.
#include "decode_fixture.hpp"

namespace pulse::decode {
namespace {

constexpr char kEvent[] =
    "{\"event_id\":\"e1\",\"event_type\":\"page_view\",\"user_id\":\"u1\","
    "\"event_timestamp\":\"2026-11-20T12:34:56.789Z\",\"funnel_step_index\":0,"
    "\"page_url\":\"https:\\/\\/shop.example\",\"referrer\":\"\",\"device\":\"mobile\","
    "\"properties\":{\"price\":1.5}}";

std::string
OutcomeOf(const MappingBuilder &builder, std::string_view value)
{
    return Decoded(builder.Build(), value).Outcome();
}

TEST(Decoder, ReadsTheEvent)
{
    Decoded decoded(EventsMapping().Build(), kEvent);
    ASSERT_EQ(decoded.Outcome(), "event");
    EXPECT_EQ(decoded.Show(0), "text e1");
    EXPECT_EQ(decoded.Show(1), "text page_view");
    EXPECT_EQ(decoded.Show(2), "text u1");
    EXPECT_EQ(decoded.Show(3), "timestamp 1795178096789000");
    EXPECT_EQ(decoded.Show(4), "integer 0");
    EXPECT_EQ(decoded.Show(5), "text https://shop.example");
    EXPECT_EQ(decoded.Show(6), "text ");
    EXPECT_EQ(decoded.Show(7), "text mobile");
    EXPECT_EQ(decoded.Show(8), "json {\"price\":1.5}");
    EXPECT_TRUE(decoded.IsInValue(decoded.cell(8).view()));
}

TEST(Decoder, OneDecoderReadsManyRecordsOfAllKinds)
{
    Decoder decoder(EventsMapping().Build());
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(Decoded(decoder, kEvent).Show(8), "json {\"price\":1.5}");
        EXPECT_EQ(Decoded(decoder, "{\"event_type\":{\"a\":[{\"b\":").Code(), "syntax");
        EXPECT_EQ(Decoded(decoder, "{\"a\":1,\"a\":2}").Code(), "dup_key");
        EXPECT_EQ(Decoded(decoder, "{}").Code(), "missing_field");
        Decoded small(decoder,
                      "{\"event_type\":1,\"user_id\":2,\"event_timestamp\":1795178096000}");
        EXPECT_EQ(small.Outcome(), "event");
        EXPECT_EQ(small.Show(0), "missing"); // nothing is left of the records before
        EXPECT_EQ(small.Show(8), "json {}");
    }
}

TEST(Decoder, SteadyStateAllocatesNothingInTheArenaForPlainEvents)
{
    Decoder decoder(EventsMapping().Build());
    std::string event = kEvent;
    event.replace(event.find("\\/\\/"), 4, "//");
    EXPECT_EQ(Decoded(decoder, event).arena().used_bytes(), 0u);
}

TEST(Decoder, EmptyMappingTakesAnyObject)
{
    EXPECT_EQ(OutcomeOf(MappingBuilder(), "{}"), "event");
    EXPECT_EQ(OutcomeOf(MappingBuilder(), "{\"a\":{\"b\":[1,{}]}}"), "event");
    EXPECT_EQ(OutcomeOf(MappingBuilder().Unknown(UnknownFields::kReject), "{\"a\":1}"),
              "unknown_field /a: no column takes the field \"a\"");
}

TEST(Decoder, EmptyPathIsTheColumnsName)
{
    MappingBuilder builder;
    builder.Add("c", ColumnType::kInt4).last().path.clear();
    EXPECT_EQ(Decoded(builder.Build(), "{\"c\":5}").Show(0), "integer 5");
    EXPECT_EQ(OutcomeOf(builder, "{\"c\":\"\"}"), "type /c: expected integer, found string \"\"");
}

TEST(Decoder, MissingAndNullOfRequiredFields)
{
    MappingBuilder builder;
    builder.Add("a", ColumnType::kText).Add("b", ColumnType::kText).Required();
    EXPECT_EQ(OutcomeOf(builder, "{\"a\":1}"), "missing_field /b: required field is missing");
    EXPECT_EQ(OutcomeOf(builder, "{\"b\":null}"), "missing_field /b: required field is null");
    Decoded decoded(builder.Build(), "{\"b\":1,\"a\":null}");
    EXPECT_EQ(decoded.Show(0), "null");
    EXPECT_EQ(decoded.cell(0).view().data(), nullptr);
}

TEST(Decoder, PathsReachIntoObjectsOnly)
{
    auto mapping = MappingBuilder()
                       .Add("url", ColumnType::kText, {"context", "page", "url"})
                       .Add("page", ColumnType::kJson, {"context", "page"})
                       .Add("same_url", ColumnType::kText, {"context", "page", "url"})
                       .Build();
    Decoded found(mapping, "{\"url\":\"top\",\"page\":{\"url\":\"no\"},"
                           "\"context\":{\"url\":\"no\",\"page\":{\"x\":[{\"url\":\"no\"}],"
                           "\"url\":\"yes\",\"page\":{\"url\":\"no\"}},\"z\":{\"page\":1}}}");
    ASSERT_EQ(found.Outcome(), "event");
    EXPECT_EQ(found.Show(0), "text yes");
    EXPECT_EQ(found.Show(1), "json {\"x\":[{\"url\":\"no\"}],\"url\":\"yes\",\"page\":{\"url\":"
                             "\"no\"}}");
    EXPECT_EQ(found.Show(2), "text yes");
    for (const char *value :
         {"{}", "{\"context\":null}", "{\"context\":\"page\"}", "{\"context\":[]}",
          "{\"context\":[{\"page\":{\"url\":1}}]}",
          "{\"context\":{\"page\":[\"url\",{\"url\":1}]}}", "{\"context\":{\"page\":1}}",
          "{\"context\":{\"page\":{}}}", "{\"a\":{\"context\":{}}}"})
        EXPECT_EQ(Decoded(mapping, value).Show(0), "missing") << value;
}

TEST(Decoder, OneNameAtManyDepths)
{
    auto mapping = MappingBuilder()
                       .Add("t", ColumnType::kText)
                       .Add("at", ColumnType::kText, {"a", "t"})
                       .Add("bat", ColumnType::kText, {"b", "a", "t"})
                       .Build();
    Decoded decoded(mapping, "{\"b\":{\"t\":0,\"a\":{\"t\":3}},\"a\":{\"t\":2},\"t\":1}");
    ASSERT_EQ(decoded.Outcome(), "event");
    EXPECT_EQ(decoded.Show(0), "text 1");
    EXPECT_EQ(decoded.Show(1), "text 2");
    EXPECT_EQ(decoded.Show(2), "text 3");
    Decoded other(mapping, "{\"b\":{\"t\":0},\"a\":{\"a\":{\"t\":2}}}");
    for (size_t i = 0; i < 3; i++)
        EXPECT_EQ(other.Show(i), "missing");
}

TEST(Decoder, NamesAreComparedUnescaped)
{
    auto mapping = MappingBuilder()
                       .Add("a", ColumnType::kText)
                       .Add("ä/~\"", ColumnType::kText)
                       .Add("empty", ColumnType::kText, {""})
                       .Build();
    Decoded decoded(mapping, "{\"\\u0061\":1,\"\\u00e4\\/~\\\"\":2,\"\":3}");
    ASSERT_EQ(decoded.Outcome(), "event");
    EXPECT_EQ(decoded.Show(0), "text 1");
    EXPECT_EQ(decoded.Show(1), "text 2");
    EXPECT_EQ(decoded.Show(2), "text 3");
}

TEST(Decoder, PointersOfErrorsAreEscaped)
{
    MappingBuilder builder;
    builder.Add("c", ColumnType::kInt4, {"a/b", "~"});
    EXPECT_EQ(OutcomeOf(builder, "{\"a/b\":{\"~\":true}}"),
              "type /a~1b/~0: expected integer, found true");
}

// The rest column.

std::string
Rest(std::string_view value, UnknownFields policy = UnknownFields::kKeep)
{
    MappingBuilder builder;
    builder.Add("a", ColumnType::kText).Add("n", ColumnType::kText, {"ctx", "n"});
    builder.Rest().Unknown(policy);
    Decoded decoded(builder.Build(), value);
    return decoded.is_event() ? decoded.Show(2) : decoded.Outcome();
}

TEST(RestColumn, IsAlwaysAnObject)
{
    EXPECT_EQ(Rest("{}"), "json {}");
    EXPECT_EQ(Rest("{\"a\":1}"), "json {}");
    EXPECT_EQ(Rest("{\"properties\":null}"), "json {}");
    EXPECT_EQ(Rest("{\"properties\":{}}"), "json {}");
    EXPECT_EQ(Rest("{\"properties\": { \n } }"), "json { \n }");
    EXPECT_EQ(Rest("{\"properties\":{ },\"x\":1}"), "json {\"x\":1}");
    EXPECT_EQ(Rest("{\"properties\":null,\"x\":1}"), "json {\"x\":1}");
}

TEST(RestColumn, TakesItsOwnMembersThenTheUnmappedFieldsAsWritten)
{
    EXPECT_EQ(Rest("{\"x\":1.50,\"a\":0,\"properties\":{\"p\":1,\"q\":[ 2 ]},"
                   "\"y\" : \"\\u00e4\\/\" ,\"z\":{ \"a\":1e5 },\"t\":true,\"u\":null}"),
              "json {\"p\":1,\"q\":[ 2 ],\"x\":1.50,\"y\" : \"\\u00e4\\/\",\"z\":{ \"a\":1e5 },"
              "\"t\":true,\"u\":null}");
    EXPECT_EQ(Rest("{\"x\":[{\"x\":1}]}"), "json {\"x\":[{\"x\":1}]}");
}

TEST(RestColumn, PartlyUsedFieldsGoThereWhole)
{
    EXPECT_EQ(Rest("{\"ctx\":{\"n\":1,\"m\":2},\"a\":1}"), "json {\"ctx\":{\"n\":1,\"m\":2}}");
    EXPECT_EQ(Rest("{\"ctx\":5}"), "json {\"ctx\":5}");
}

TEST(RestColumn, PathsIntoPropertiesLeaveThemThere)
{
    MappingBuilder builder;
    builder.Add("price", ColumnType::kNumeric, {"properties", "price"}).Rest();
    Decoded decoded(builder.Build(), "{\"properties\":{\"price\":1.50,\"b\":2},\"c\":3}");
    ASSERT_EQ(decoded.Outcome(), "event");
    EXPECT_EQ(decoded.Show(0), "text 1.50");
    EXPECT_EQ(decoded.Show(1), "json {\"price\":1.50,\"b\":2,\"c\":3}");
}

TEST(RestColumn, CollisionIsADuplicateName)
{
    EXPECT_EQ(Rest("{\"x\":1,\"properties\":{\"y\":1,\"x\":2}}"),
              "dup_key /x: member name \"x\" occurs in properties as well");
    EXPECT_EQ(Rest("{\"properties\":{\"x\":2},\"\\u0078\":1}"),
              "dup_key /x: member name \"x\" occurs in properties as well");
    EXPECT_EQ(Rest("{\"properties\":{\"\\u0078\":2},\"x\":1}"),
              "dup_key /x: member name \"x\" occurs in properties as well");
    EXPECT_EQ(Rest("{\"properties\":{\"ctx\":2},\"ctx\":{}}"),
              "dup_key /ctx: member name \"ctx\" occurs in properties as well");
    // Fields of columns don't go there, so they can't collide.
    EXPECT_EQ(Rest("{\"a\":1,\"properties\":{\"a\":2}}"), "json {\"a\":2}");
    EXPECT_EQ(Rest("{\"x\":1,\"properties\":{\"y\":{\"x\":2}}}"), "json {\"y\":{\"x\":2},\"x\":1}");
    EXPECT_EQ(Rest("{\"x\":1,\"properties\":{\"x\":2}}", UnknownFields::kDrop), "json {\"x\":2}");
}

TEST(RestColumn, CollisionAmongManyNames)
{
    std::string members, fields;
    for (int i = 0; i < 100; i++) {
        members += (i == 0 ? "\"m" : ",\"m") + std::to_string(i) + "\":0";
        fields += ",\"f" + std::to_string(i) + "\":0";
    }
    EXPECT_EQ(Rest("{\"properties\":{" + members + "}" + fields + "}"),
              "json {" + members + fields + "}");
    EXPECT_EQ(Rest("{\"properties\":{" + members + "}" + fields + ",\"m57\":0}"),
              "dup_key /m57: member name \"m57\" occurs in properties as well");
}

TEST(RestColumn, MustBeAnObjectOrNull)
{
    EXPECT_EQ(Rest("{\"properties\":[]}"), "type /properties: expected object, found array []");
    EXPECT_EQ(Rest("{\"properties\":\"{}\"}"),
              "type /properties: expected object, found string \"{}\"");
}

TEST(RestColumn, UnknownFieldsByPolicy)
{
    constexpr char kValue[] = "{\"a\":1,\"x\":1,\"ctx\":{\"n\":1},\"properties\":{\"p\":1}}";
    EXPECT_EQ(Rest(kValue, UnknownFields::kKeep), "json {\"p\":1,\"x\":1,\"ctx\":{\"n\":1}}");
    EXPECT_EQ(Rest(kValue, UnknownFields::kDrop), "json {\"p\":1}");
    EXPECT_EQ(Rest(kValue, UnknownFields::kReject),
              "unknown_field /x: no column takes the field \"x\"");
    EXPECT_EQ(Rest("{\"x\":1,\"properties\":{\"x\":1}}", UnknownFields::kReject),
              "unknown_field /x: no column takes the field \"x\"");
    EXPECT_EQ(Rest("{\"a\":1,\"ctx\":{\"n\":1},\"properties\":{\"p\":1}}", UnknownFields::kReject),
              "json {\"p\":1,\"ctx\":{\"n\":1}}");
}

TEST(RestColumn, WithoutOneUnknownFieldsAreDropped)
{
    MappingBuilder builder;
    builder.Add("a", ColumnType::kText);
    Decoded decoded(builder.Build(), "{\"a\":1,\"b\":2,\"properties\":3}");
    EXPECT_EQ(decoded.Outcome(), "event");
    EXPECT_EQ(decoded.Show(0), "text 1");
}

TEST(RestColumn, MayBeReadBySomeColumnToo)
{
    MappingBuilder builder;
    builder.Add("copy", ColumnType::kJson, {"properties"}).Rest();
    Decoded decoded(builder.Build(), "{\"properties\":{\"p\":1},\"x\":2}");
    EXPECT_EQ(decoded.Show(0), "json {\"p\":1}");
    EXPECT_EQ(decoded.Show(1), "json {\"p\":1,\"x\":2}");
}

TEST(RestColumn, MayHaveAnotherPath)
{
    MappingBuilder builder;
    builder.Rest("properties", {"payload", "props"});
    Decoded decoded(builder.Build(), "{\"payload\":{\"props\":{\"p\":1}},\"properties\":2}");
    ASSERT_EQ(decoded.Outcome(), "event");
    EXPECT_EQ(decoded.Show(0), "json {\"p\":1,\"payload\":{\"props\":{\"p\":1}},\"properties\":2}");
    EXPECT_EQ(OutcomeOf(builder, "{\"payload\":{\"props\":1}}"),
              "type /payload/props: expected object, found number 1");
}

TEST(RestColumn, RequiredIsAlwaysMet)
{
    EXPECT_EQ(OutcomeOf(MappingBuilder().Rest().Required(), "{}"), "event");
}

// Which error wins.

TEST(Precedence, DecodeErrorsAnywhereBeatSchemaErrors)
{
    MappingBuilder builder;
    builder.Add("a", ColumnType::kInt4).Add("b", ColumnType::kInt4).Required();
    builder.Rest();
    EXPECT_EQ(Decoded(builder.Build(), "{\"a\":\"x\",\"z\":{\"q\":1,\"q\":2}}").Code(), "dup_key");
    EXPECT_EQ(Decoded(builder.Build(), "{\"a\":\"x\"").Code(), "syntax");
    EXPECT_EQ(Decoded(builder.Build(), "{\"a\":\"x\"}}").Code(), "syntax");
    EXPECT_EQ(Decoded(builder.Build(), "{\"a\":\"x\",\"z\":1e999}").Code(), "number");
    EXPECT_EQ(Decoded(builder.Build(), "{\"a\":\"x\",\"z\":1,\"properties\":{\"z\":1}}").Code(),
              "dup_key");
    EXPECT_EQ(Decoded(builder.Build(), "{\"a\":\"x\"}").Code(), "type");
}

TEST(Precedence, FirstFaultOfTheDocumentWins)
{
    auto code = [](std::string_view value) {
        return Decoded(MappingBuilder().Build(), value).Code();
    };
    EXPECT_EQ(code("{\"a\":1,\"a\":\"\\udc00\""), "dup_key");
    EXPECT_EQ(code("{\"a\":\"\\udc00\",\"a\":1"), "surrogate");
    EXPECT_EQ(code("{\"a\":\"\\u0000\\udc00\"}"), "nul");
    EXPECT_EQ(code("{\"a\":1e999,}"), "number");
    EXPECT_EQ(code("{\"a\":,1e999}"), "syntax");
    EXPECT_EQ(code("[1,2"), "syntax");                       // not not_object
    EXPECT_EQ(code("{\"a\":1,\"a\":\"\xff\"}"), "encoding"); // bytes come before the document
}

TEST(Precedence, ColumnsAreJudgedInTheMappingsOrder)
{
    MappingBuilder builder;
    builder.Add("a", ColumnType::kInt4).Rest().Add("b", ColumnType::kInt4).Required();
    builder.Unknown(UnknownFields::kReject);
    EXPECT_EQ(Decoded(builder.Build(), "{\"x\":1,\"properties\":1,\"a\":true}").Outcome(),
              "type /a: expected integer, found true");
    EXPECT_EQ(Decoded(builder.Build(), "{\"x\":1,\"properties\":1}").Outcome(),
              "type /properties: expected object, found number 1");
    EXPECT_EQ(Decoded(builder.Build(), "{\"x\":1,\"y\":2}").Outcome(),
              "missing_field /b: required field is missing");
    EXPECT_EQ(Decoded(builder.Build(), "{\"x\":1,\"b\":1,\"y\":2}").Outcome(),
              "unknown_field /x: no column takes the field \"x\"");
}

TEST(Decoder, PointersIntoArrays)
{
    auto mapping = MappingBuilder()
                       .Add("first", ColumnType::kInt4, {"items", "0", "price"})
                       .Add("second", ColumnType::kInt4, {"items", "1", "price"})
                       .Add("deep", ColumnType::kText, {"grid", "1", "0"})
                       .Add("far", ColumnType::kText, {"items", "11", "name"})
                       .Rest()
                       .Build();
    Decoded both(mapping,
                 R"({"items":[{"price":1,"x":[7]},{"price":2}],"grid":[["a"],["b","c"]]})");
    ASSERT_EQ(both.Outcome(), "event");
    EXPECT_EQ(both.Show(0), "integer 1");
    EXPECT_EQ(both.Show(1), "integer 2");
    EXPECT_EQ(both.Show(2), "text b");
    EXPECT_EQ(both.Show(3), "missing");

    // An object with members named like indexes is no array, and takes the same pointer.
    Decoded object(mapping, R"({"items":{"1":{"price":5}},"grid":"none"})");
    ASSERT_EQ(object.Outcome(), "event");
    EXPECT_EQ(object.Show(0), "missing");
    EXPECT_EQ(object.Show(1), "integer 5");
    EXPECT_EQ(object.Show(2), "missing");

    std::string many = "{\"items\":[";
    for (int i = 0; i < 12; i++)
        many += "{\"name\":\"n" + std::to_string(i) + "\"},";
    Decoded twelve(mapping, many + "[]]}");
    EXPECT_EQ(twelve.Show(3), "text n11");
    EXPECT_EQ(Decoded(mapping, R"({"items":[1,{"price":"2"}]})").Outcome(),
              "type /items/1/price: expected integer, found string \"2\"");
}

} // namespace
} // namespace pulse::decode
