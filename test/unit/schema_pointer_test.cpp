// JSON pointers into a schema: each way of writing a reference leads to one pointer, or is refused
// where it stands. src/decode/schema_pointer.hpp.
#include "decode/schema_pointer.hpp"

#include <gtest/gtest.h>

#include "decode/schema_check.hpp"

namespace pulse::decode {

namespace {

// "pointer = text" of the string it leads to, or "pointer: message" of the fault.
std::string
Follow(std::string_view reference)
{
    SchemaDom document;
    EXPECT_TRUE(ParseSchemaJson(R"({"a/b": {"~": ["zero", {"": "one"}]}, "é %": "two", "0": "three",
                                    "": {"": "four"}})",
                                10, &document));
    try {
        Referred found = FollowReference(document, reference, "/here");
        return found.pointer + " = " + (found.value->IsString() ? found.value->GetString() : "...");
    } catch (const SchemaFault &fault) {
        return fault.pointer + ": " + fault.message;
    }
}

} // namespace

TEST(SchemaPointerTest, FollowsReferences)
{
    EXPECT_EQ(Follow("#"), " = ...");
    EXPECT_EQ(Follow("#/a~1b"), "/a~1b = ...");
    EXPECT_EQ(Follow("#/a~1b/~0/0"), "/a~1b/~0/0 = zero");
    EXPECT_EQ(Follow("#/a~1b/~0/1/"), "/a~1b/~0/1/ = one");
    EXPECT_EQ(Follow("#/0"), "/0 = three");
    EXPECT_EQ(Follow("#/"), "/ = ...");
    EXPECT_EQ(Follow("#//"), "// = four");
}

TEST(SchemaPointerTest, WritesOnePointerForEachWayOfWritingIt)
{
    EXPECT_EQ(Follow("#/a~1b/~0/%30"), "/a~1b/~0/0 = zero");
    EXPECT_EQ(Follow("#/%61%7E1b/%7e0/0"), "/a~1b/~0/0 = zero");
    EXPECT_EQ(Follow("#/a~1b%2F~0/0"), "/a~1b/~0/0 = zero");
    EXPECT_EQ(Follow("#/%c3%a9%20%25"), "/é % = two");
    EXPECT_EQ(Follow("#/é %25"), "/é % = two");
}

TEST(SchemaPointerTest, RefusesWhatIsNoReferenceWhereItStands)
{
    for (const char *reference : {"", "a", "#a", "x#/0", "http://x/y#/0", "/0"})
        EXPECT_EQ(Follow(reference), "/here: the reference is no JSON pointer into this schema");
    for (const char *reference : {"#/%", "#/%4", "#/%4g", "#/%zz", "#/0%"})
        EXPECT_EQ(Follow(reference), "/here: \"%\" must be followed by two hexadecimal digits");
    for (const char *reference : {"#/~", "#/~2", "#/a~1b/~"})
        EXPECT_EQ(Follow(reference), "/here: in a JSON pointer \"~\" must be followed by 0 or 1");
}

TEST(SchemaPointerTest, RefusesReferencesThatLeadNowhere)
{
    const std::string nowhere = "/here: the reference leads nowhere: there is no ";
    EXPECT_EQ(Follow("#/b"), nowhere + "\"b\"");
    EXPECT_EQ(Follow("#/0/0"), nowhere + "\"0\"") << "in a string";
    for (const char *index : {"2", "-1", "01", "+1", "1x", "", "99999999999999999999"})
        EXPECT_EQ(Follow("#/a~1b/~0/" + std::string(index)), nowhere + "\"" + index + "\"");
    EXPECT_EQ(Follow("#/" + std::string(100, 'x')), nowhere + "\"" + std::string(64, 'x') + "\"");
}

TEST(SchemaPointerTest, EscapesWhatItJoins)
{
    EXPECT_EQ(Join("", ""), "/");
    EXPECT_EQ(Join("/a", "b/c~d"), "/a/b~1c~0d");
    EXPECT_EQ(Join("/a", 12), "/a/12");
}

} // namespace pulse::decode
