// PULSE_FAULT("point"): a place where a test may inject an error, a kill or a stop. Expands to
// nothing unless built with PULSE_TESTING=1. The setting pulse.fault arms points:
// "point:action[:count]", comma separated; actions: error, fatal, kill, stop; count = which pass
// fires (default the first). src/pg/fault.cpp implements it. Regime: door.
#pragma once

//
// PULSE_CRASH("point", value): a place that stands for a bug that some payload triggers. A test
// build aborts there when the value holds "crash-at-point". For any thread.
#ifdef PULSE_TESTING
#include <cstdlib>
#include <string_view>

namespace pulse {
void HitFault(const char *point);
inline void
CrashAt(std::string_view marker, std::string_view value)
{
    if (value.find(marker) != std::string_view::npos)
        std::abort();
}
} // namespace pulse
#define PULSE_FAULT(point) ::pulse::HitFault(point)
#define PULSE_CRASH(point, value) ::pulse::CrashAt("crash-at-" point, value)
#else
#define PULSE_FAULT(point) static_cast<void>(0)
#define PULSE_CRASH(point, value) static_cast<void>(0)
#endif
