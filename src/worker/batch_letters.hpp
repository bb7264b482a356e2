// The dead letters of a batch, in its transaction. Regime: C++ with doors.
#pragma once

#include "worker/batch_state.hpp"

namespace pulse::worker {

// Writes a letter for every rejected record; known_letters are those that needed none.
void WriteLetters(BatchState *state);

} // namespace pulse::worker
