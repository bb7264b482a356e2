// PULSE_FAULT("point"): a place where a test may inject an error, a kill or a stop. Expands to
// nothing unless built with PULSE_TESTING=1. The setting pulse.fault arms points:
// "point:action[:count]", comma separated; actions: error, fatal, kill, stop; count = which pass
// fires (default the first). src/pg/fault.cpp implements it. Regime: door.
#pragma once

#ifdef PULSE_TESTING
namespace pulse {
void HitFault(const char *point);
}
#define PULSE_FAULT(point) ::pulse::HitFault(point)
#else
#define PULSE_FAULT(point) static_cast<void>(0)
#endif
