// src/decode/key_index.cpp: duplicates in small and large objects, nested ones, and hash floods.
#include "decode/key_index.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace pulse::decode {
namespace {

constexpr uint64_t kSeed = 0x1234567890ABCDEF;

bool
Add(KeyIndex *index, KeyIndex::Object *object, std::string_view name)
{
    return index->Add(object, name, HashName(name, kSeed));
}

TEST(KeyIndex, FindsADuplicateAtEveryPositionAroundTheSwitchToTheTable)
{
    for (uint32_t count = 1; count <= 3 * KeyIndex::kLinearKeys; count++) {
        std::vector<std::string> names;
        for (uint32_t i = 0; i < count; i++)
            names.push_back("name" + std::to_string(i));
        KeyIndex index;
        KeyIndex::Object object = index.Open();
        for (const std::string &name : names)
            ASSERT_TRUE(Add(&index, &object, name));
        for (const std::string &name : names) {
            ASSERT_FALSE(Add(&index, &object, name)) << count << " " << name;
            ASSERT_TRUE(index.Contains(object, name, HashName(name, kSeed)));
        }
        ASSERT_FALSE(index.Contains(object, "other", HashName("other", kSeed)));
        ASSERT_EQ(object.count, count);
        ASSERT_EQ(index.name(object.last), names.back());
    }
}

TEST(KeyIndex, ObjectsDoNotSeeEachOther)
{
    std::vector<std::string> names;
    for (int i = 0; i < 40; i++)
        names.push_back(std::to_string(i));
    KeyIndex index;
    std::vector<KeyIndex::Object> objects;
    for (int i = 0; i < 50; i++)
        objects.push_back(index.Open());
    for (const std::string &name : names) // interleaved, as objects around objects are
        for (KeyIndex::Object &object : objects)
            ASSERT_TRUE(Add(&index, &object, name));
    for (const std::string &name : names)
        for (KeyIndex::Object &object : objects)
            ASSERT_FALSE(Add(&index, &object, name));
}

// Equal hashes make the objects' runs in the table touch, so a look-up meets names of others.
TEST(KeyIndex, ObjectsDoNotSeeEachOtherWhereTheirRunsTouch)
{
    std::vector<std::string> names;
    for (int i = 0; i < 40; i++)
        names.push_back(std::to_string(i));
    KeyIndex index;
    std::vector<KeyIndex::Object> objects;
    for (int i = 0; i < 50; i++)
        objects.push_back(index.Open());
    for (KeyIndex::Object &object : objects)
        for (const std::string &name : names)
            ASSERT_TRUE(index.Add(&object, name, 7));
    for (const KeyIndex::Object &object : objects)
        ASSERT_FALSE(index.Contains(object, "other", 7));
}

TEST(KeyIndex, EmptyNameIsAName)
{
    KeyIndex index;
    KeyIndex::Object object = index.Open();
    EXPECT_TRUE(Add(&index, &object, ""));
    EXPECT_FALSE(Add(&index, &object, ""));
}

TEST(KeyIndex, ForgetsOnReset)
{
    KeyIndex index;
    for (int round = 0; round < 5; round++) {
        std::vector<std::string> names;
        for (int i = 0; i < (round == 1 ? 5000 : 30); i++)
            names.push_back(std::to_string(i));
        index.Reset();
        KeyIndex::Object object = index.Open();
        for (const std::string &name : names)
            ASSERT_TRUE(Add(&index, &object, name));
    }
}

TEST(KeyIndex, EqualHashesAreNotEqualNames)
{
    KeyIndex index;
    KeyIndex::Object object = index.Open();
    std::vector<std::string> names;
    for (int i = 0; i < 100; i++)
        names.push_back("n" + std::to_string(i));
    for (const std::string &name : names)
        EXPECT_TRUE(index.Add(&object, name, 7));
    for (const std::string &name : names)
        EXPECT_FALSE(index.Add(&object, name, 7));
}

TEST(HashName, EveryByteOfEveryLengthCounts)
{
    for (size_t length = 1; length <= 40; length++) {
        std::set<uint32_t> hashes;
        std::string name(length, 'a');
        hashes.insert(HashName(name, kSeed));
        for (size_t at = 0; at < length; at++) {
            name[at] = 'b';
            hashes.insert(HashName(name, kSeed));
            name[at] = 'a';
        }
        EXPECT_EQ(hashes.size(), length + 1) << length;
    }
}

TEST(HashName, SpreadsAndDependsOnTheSeed)
{
    std::set<uint32_t> hashes;
    for (int i = 0; i < 20000; i++)
        hashes.insert(HashName("user_" + std::to_string(i), kSeed));
    EXPECT_GE(hashes.size(), 19990u);
    EXPECT_NE(HashName("event_type", 1), HashName("event_type", 2));
    EXPECT_NE(HashName("", 1), HashName("", 2));
}

} // namespace
} // namespace pulse::decode
