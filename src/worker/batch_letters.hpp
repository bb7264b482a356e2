// The dead letters of a batch, in its transaction. Regime: C++ with doors.
#pragma once

#include "worker/batch_state.hpp"

namespace pulse::worker {

// Records read again are rejected now, and whether they are rows already is not known yet.
struct Unsure {};

// Writes a letter for every rejected record; known_letters are those that needed none. Throws
// Unsure.
void WriteLetters(BatchState *state);

} // namespace pulse::worker
