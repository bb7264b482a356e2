// Unix time <-> TimestampTz. src/store/time.hpp.
#include "store/time.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace pulse::store {

TEST(StoreTimeTest, Converts)
{
    EXPECT_EQ(FromUnixUs(946684800000000), 0); // 2000-01-01
    EXPECT_EQ(ToUnixUs(0), 946684800000000);
    EXPECT_EQ(FromUnixUs(0), -946684800000000);
    EXPECT_EQ(ToUnixUs(FromUnixUs(1795178096789012)), 1795178096789012);
    EXPECT_EQ(FromUnixMs(946684800001), 1000);
}

// What a producer wrote as its timestamp must never overflow into another time, nor into a value
// that PostgreSQL can't show.
TEST(StoreTimeTest, RefusesTimesThatCantBeStored)
{
    for (int64_t unix_ms :
         {int64_t{-1}, kMinStorableMs - 1, kMaxStorableMs + 1, std::numeric_limits<int64_t>::min(),
          std::numeric_limits<int64_t>::max()}) {
        EXPECT_FALSE(IsStorableMs(unix_ms)) << unix_ms;
        EXPECT_EQ(FromUnixMs(unix_ms), 0) << unix_ms;
    }
    for (int64_t unix_ms : {int64_t{0}, int64_t{-2}, kMinStorableMs, kMaxStorableMs}) {
        EXPECT_TRUE(IsStorableMs(unix_ms)) << unix_ms;
        EXPECT_EQ(ToUnixUs(FromUnixMs(unix_ms)), unix_ms * 1000) << unix_ms;
    }
}

} // namespace pulse::store
