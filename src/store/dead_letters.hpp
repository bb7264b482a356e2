// raw.dlq: every reject, byte for byte, in the transaction of its neighbours' rows. Regime: PG.
#pragma once

#include <cstdint>

#include "ingest/batch.hpp"
#include "store/offsets.hpp"

namespace pulse::store {

// Why a record is a letter: the decoder's reject, or what PostgreSQL said of the row.
struct LetterReason {
    const char *error_class;
    const char *error_code;
    const char *sqlstate; // null unless PostgreSQL refused the row
    const char *stage;    // decode or insert; null = an operator
    std::string_view message;
    std::string_view path; // null = none
};

// Writes one letter. False when this record is a letter already (it was read again).
bool WriteLetter(const char *pipeline, const OwnedPartition &partition,
                 const ingest::Record &record, const LetterReason &reason);

// Takes letters back that were written a moment ago: their records are rows already. Calls
// found(offset) for each.
void WithdrawLetters(const char *pipeline, const OwnedPartition &partition, const int64_t *offsets,
                     int count, void (*found)(int64_t offset, void *argument), void *argument);

// Records that were letters and are rows now: marks the letters replayed. Returns how many were.
int ResolveLetters(const char *pipeline, const OwnedPartition &partition, const int64_t *offsets,
                   int count);

} // namespace pulse::store
