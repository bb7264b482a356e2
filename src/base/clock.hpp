// What time it is. Regime: C++, pure.
#pragma once

#include <chrono>
#include <cstdint>

namespace pulse {

// Microseconds since 1970-01-01 UTC.
inline int64_t
WallClockUs()
{
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

// Microseconds of a clock that nobody sets; for how long something takes.
inline int64_t
MonotonicUs()
{
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

} // namespace pulse
