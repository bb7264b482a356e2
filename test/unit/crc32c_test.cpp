// src/base/crc32c.hpp: the checksum by its published check values, and what makes two records the
// same.
#include "base/crc32c.hpp"

#include <gtest/gtest.h>

namespace pulse {

TEST(Crc32c, HasThePublishedCheckValues)
{
    EXPECT_EQ(Crc32c(0, "123456789"), 0xE3069283U);
    EXPECT_EQ(Crc32c(0, std::string(32, '\0')), 0x8A9136AAU); // RFC 3720, B.4
    EXPECT_EQ(Crc32c(0, std::string(32, '\xff')), 0x62A8AB43U);
    EXPECT_EQ(Crc32c(Crc32c(0, "1234"), "56789"), Crc32c(0, "123456789"));
    EXPECT_EQ(Crc32c(0, ""), 0U);
}

TEST(Fingerprint, TellsKeyFromValueAndNullFromEmpty)
{
    EXPECT_NE(RecordCrc("ab", "c"), RecordCrc("a", "bc"));
    EXPECT_NE(RecordCrc({}, "x"), RecordCrc("", "x"));
    EXPECT_NE(RecordCrc("x", {}), RecordCrc("x", ""));
    EXPECT_EQ(RecordCrc("x", "y"), RecordCrc("x", "y"));
}

TEST(Fingerprint, ComparesWhatIsKnown)
{
    Fingerprint whole = FingerprintOf(5, 1000, "k", "v");
    EXPECT_TRUE(IsSameRecord(whole, FingerprintOf(5, 1000, "k", "v")));
    EXPECT_FALSE(IsSameRecord(whole, FingerprintOf(6, 1000, "k", "v")));
    EXPECT_FALSE(IsSameRecord(whole, FingerprintOf(5, 1001, "k", "v")));
    EXPECT_FALSE(IsSameRecord(whole, FingerprintOf(5, 1000, "k", "w")));
    Fingerprint only_time = {5, 1000, -1};
    EXPECT_TRUE(IsSameRecord(whole, only_time));
    only_time.timestamp_ms = 1001;
    EXPECT_FALSE(IsSameRecord(whole, only_time));
    EXPECT_TRUE(IsSameRecord(whole, {5}));
}

} // namespace pulse
