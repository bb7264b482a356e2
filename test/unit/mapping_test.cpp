// src/decode/mapping.cpp and path_tree.cpp: JSON pointers and the tree made of them.
#include "decode/mapping.hpp"

#include <gtest/gtest.h>

#include "decode/key_index.hpp"
#include "decode/path_tree.hpp"

namespace pulse::decode {
namespace {

using Tokens = std::vector<std::string>;

TEST(ParsePointer, SplitsAndUnescapes)
{
    EXPECT_EQ(ParsePointer("/a").value(), Tokens({"a"}));
    EXPECT_EQ(ParsePointer("/a/b~1c").value(), Tokens({"a", "b/c"}));
    EXPECT_EQ(ParsePointer("/~01/~10/~0").value(), Tokens({"~1", "/0", "~"}));
    EXPECT_EQ(ParsePointer("/").value(), Tokens({""}));
    EXPECT_EQ(ParsePointer("/a//b/").value(), Tokens({"a", "", "b", ""}));
    EXPECT_EQ(ParsePointer("/ \"\xc3\xa4").value(), Tokens({" \"\xc3\xa4"}));
}

TEST(ParsePointer, RefusesWhatIsNoPointer)
{
    for (const char *pointer : {"", "a", "a/b", "#/a"}) {
        ASSERT_FALSE(ParsePointer(pointer).ok()) << pointer;
        EXPECT_EQ(ParsePointer(pointer).message(), "a JSON pointer must begin with \"/\"");
    }
    for (const char *pointer : {"/~", "/a~", "/~2", "/a~/b", "/~~0"}) {
        ASSERT_FALSE(ParsePointer(pointer).ok()) << pointer;
        EXPECT_EQ(ParsePointer(pointer).message(),
                  "in a JSON pointer \"~\" must be followed by 0 or 1");
    }
}

TEST(PathTree, FindsEveryNameUnderItsParentOnly)
{
    constexpr uint64_t kSeed = 42;
    Mapping mapping;
    for (int i = 0; i < 200; i++) {
        ColumnSpec column;
        column.name = "c" + std::to_string(i);
        if (i % 2 == 0)
            column.path = {"outer", "f" + std::to_string(i)};
        mapping.columns.push_back(column);
    }
    mapping.rest_column = 7;
    PathTree tree(mapping, kSeed);
    auto find = [&](int32_t parent, const std::string &name) {
        return tree.Find(parent, name, HashName(name, kSeed));
    };
    EXPECT_EQ(tree.size(), 202u); // the root, "outer" and the columns
    int32_t outer = find(PathTree::kRoot, "outer");
    ASSERT_NE(outer, PathTree::kNone);
    EXPECT_FALSE(tree.node(outer).is_column);
    for (int i = 0; i < 200; i++) {
        bool is_nested = i % 2 == 0;
        std::string name = (is_nested ? "f" : "c") + std::to_string(i);
        int32_t node = find(is_nested ? outer : PathTree::kRoot, name);
        EXPECT_EQ(node, tree.column_node(static_cast<size_t>(i)));
        EXPECT_EQ(find(is_nested ? PathTree::kRoot : outer, name), PathTree::kNone);
        EXPECT_EQ(tree.node(node).is_rest, i == 7);
        EXPECT_EQ(tree.node(node).is_column, i != 7);
    }
    EXPECT_EQ(find(PathTree::kRoot, ""), PathTree::kNone);
}

TEST(PathTree, OneNameUnderManyParents)
{
    constexpr uint64_t kSeed = 42;
    Mapping mapping;
    for (int i = 0; i < 300; i++) {
        ColumnSpec column;
        column.name = "c" + std::to_string(i);
        column.path = {"p" + std::to_string(i), i % 2 == 0 ? "t" : "u"};
        mapping.columns.push_back(column);
    }
    PathTree tree(mapping, kSeed);
    EXPECT_EQ(tree.size(), 601u);
    uint32_t hash = HashName("t", kSeed);
    EXPECT_EQ(tree.Find(PathTree::kRoot, "t", hash), PathTree::kNone);
    for (size_t i = 0; i < 300; i++) {
        int32_t leaf = tree.column_node(i);
        int32_t found = tree.Find(tree.node(leaf).parent, "t", hash);
        EXPECT_EQ(found, i % 2 == 0 ? leaf : PathTree::kNone) << i;
    }
}

TEST(PathTree, ElementsOfArraysAreDecimalTokens)
{
    Mapping mapping;
    for (const char *token : {"0", "10", "01", "-", "1x", "x"}) {
        ColumnSpec column;
        column.name = token;
        column.path = {"list", token};
        mapping.columns.push_back(column);
    }
    PathTree tree(mapping, 7);
    int32_t list = tree.node(tree.column_node(0)).parent;
    EXPECT_EQ(tree.FindElement(list, 0), tree.column_node(0));
    EXPECT_EQ(tree.FindElement(list, 10), tree.column_node(1));
    EXPECT_EQ(tree.FindElement(list, 1), PathTree::kNone);
    EXPECT_EQ(tree.FindElement(list, 4294967295U), PathTree::kNone);
    EXPECT_FALSE(tree.node(PathTree::kRoot).has_elements);
    EXPECT_EQ(tree.FindElement(PathTree::kRoot, 0), PathTree::kNone);
}

TEST(PathTree, NoColumnsIsATreeToo)
{
    PathTree tree(Mapping(), 1);
    EXPECT_EQ(tree.size(), 1u);
    EXPECT_EQ(tree.Find(PathTree::kRoot, "a", HashName("a", 1)), PathTree::kNone);
}

TEST(PathTree, ColumnsMayShareAPath)
{
    Mapping mapping;
    for (const char *name : {"a", "b"}) {
        ColumnSpec column;
        column.name = name;
        column.path = {"x", "y"};
        mapping.columns.push_back(column);
    }
    PathTree tree(mapping, 1);
    EXPECT_EQ(tree.column_node(0), tree.column_node(1));
}

} // namespace
} // namespace pulse::decode
