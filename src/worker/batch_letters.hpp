// The dead letters of a batch, in its transaction. Regime: C++ with doors.
#pragma once

#include "store/dead_letters.hpp"
#include "worker/batch_state.hpp"

namespace pulse::worker {

// Records read again are rejected now, and whether they are rows already is not known yet.
struct Unsure {};

// Why a record that was rejected is a letter; views of the state.
store::LetterReason ReasonOf(const BatchState &state, uint32_t record);

// Writes a letter for every rejected record; known_letters are those that needed none. Throws
// Unsure.
void WriteLetters(BatchState *state);

} // namespace pulse::worker
