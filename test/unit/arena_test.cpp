// The bump allocator of a batch. src/base/arena.hpp.
#include "base/arena.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "base/types.hpp"

namespace pulse {

TEST(ArenaTest, KeepsEverythingApartAndAligned)
{
    std::mt19937 random(5);
    Arena arena;
    std::vector<std::pair<std::string, std::string_view>> copies;
    size_t total = 0;
    for (int i = 0; i < 3000; i++) {
        size_t bytes = random() % 10 == 0 ? random() % (2 * Arena::kChunkBytes) : random() % 100;
        std::string text(bytes, static_cast<char>('a' + random() % 26));
        total += bytes;
        copies.emplace_back(text, arena.Copy(text));
        Cell *cells = arena.AllocateArray<Cell>(random() % 5);
        ASSERT_EQ(reinterpret_cast<uintptr_t>(cells) % alignof(Cell), 0u);
        if (total > 50 * Arena::kChunkBytes)
            break;
    }
    for (const auto &[text, copy] : copies)
        ASSERT_EQ(text, copy);
    EXPECT_GE(arena.used_bytes(), total);
    EXPECT_GE(arena.reserved_bytes(), arena.used_bytes());
}

TEST(ArenaTest, TellsNullFromEmpty)
{
    Arena arena;
    EXPECT_EQ(arena.Copy({}).data(), nullptr);
    std::string_view empty = arena.Copy(std::string_view("", 0));
    EXPECT_NE(empty.data(), nullptr);
    EXPECT_EQ(empty.size(), 0u);
}

TEST(ArenaTest, ReservesNothingBeforeItIsAsked)
{
    Arena arena;
    EXPECT_EQ(arena.reserved_bytes(), 0u);
    (void)arena.Copy({});
    EXPECT_EQ(arena.reserved_bytes(), 0u);
    (void)arena.Copy("x");
    EXPECT_EQ(arena.reserved_bytes(), Arena::kChunkBytes);
}

TEST(ArenaTest, CopiesOutliveTheOriginal)
{
    Arena arena;
    std::string text = "payload";
    std::string_view copy = arena.Copy(text);
    text = "OVERWRITTEN";
    EXPECT_EQ(copy, "payload");
}

} // namespace pulse
