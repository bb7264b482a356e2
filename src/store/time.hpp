// Unix time <-> PostgreSQL's TimestampTz (microseconds since 2000-01-01 UTC). Regime: either.
#pragma once

#include <cstdint>

namespace pulse::store {

constexpr int64_t kEpochDays = 10957; // 1970-01-01 to 2000-01-01
constexpr int64_t kEpochUs = kEpochDays * 86400 * 1000000;

constexpr int64_t
FromUnixUs(int64_t unix_us)
{
    return unix_us - kEpochUs;
}
constexpr int64_t
ToUnixUs(int64_t timestamp)
{
    return timestamp + kEpochUs;
}

// A record's timestamp is the producer's to choose (K13): only years 1 to 9999 are stored.
constexpr int64_t kMinStorableMs = -62135596800000;
constexpr int64_t kMaxStorableMs = 253402300799999;
constexpr bool
IsStorableMs(int64_t unix_ms)
{
    return unix_ms != -1 && unix_ms >= kMinStorableMs && unix_ms <= kMaxStorableMs;
}
constexpr int64_t
FromUnixMs(int64_t unix_ms)
{
    return IsStorableMs(unix_ms) ? FromUnixUs(unix_ms * 1000) : 0;
}

} // namespace pulse::store
