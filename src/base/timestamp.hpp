// Times as events spell them -> numbers. RFC 3339 to the letter, with an optional space for the T;
// no locale, no time zone database, no mktime. The calendar is the proleptic Gregorian one and
// every result lies in the years 0001 to 9999 UTC, so that arithmetic on it can't overflow and
// every PostgreSQL output style can show it. Regime: C++. Errors: an empty optional.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pulse {

constexpr int64_t kMicrosPerSecond = 1000000;
constexpr int64_t kMicrosPerDay = 86400 * kMicrosPerSecond;
constexpr int64_t kMinTimestampUs = -62135596800 * kMicrosPerSecond;     // 0001-01-01T00:00:00Z
constexpr int64_t kMaxTimestampUs = 253402300800 * kMicrosPerSecond - 1; // end of 9999-12-31

// "2026-11-20T12:34:56.789Z" -> microseconds since 1970-01-01 UTC. The offset is required (Z, z or
// ±hh:mm); T, t or a space separates; a fraction has one to nine digits, those past the sixth are
// cut off; second 60 is refused, for PostgreSQL would turn it into the next minute.
std::optional<int64_t> ParseRfc3339(std::string_view text);

// "2026-11-20" -> days since 1970-01-01.
std::optional<int32_t> ParseFullDate(std::string_view text);

// The other way round: "2026-11-20T12:34:56.789000Z", "2026-11-20". For values that the functions
// above return.
std::string FormatRfc3339(int64_t timestamp_us);
std::string FormatFullDate(int32_t days);

// To that many digits of a second (0 to 6) as PostgreSQL rounds to timestamp(p): halves go away
// from 2000-01-01. The result may lie a second outside those years.
int64_t RoundTime(int64_t timestamp_us, int digits);

// Milliseconds since 1970-01-01 UTC -> microseconds.
std::optional<int64_t> MicrosFromEpochMs(int64_t epoch_ms);

} // namespace pulse
