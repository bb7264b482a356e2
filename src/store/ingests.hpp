// pulse.ingests: the ledger of rows and letters that came by pulse.ingest(). Regime: PG, inside a
// transaction.
#pragma once

#include <cstdint>

#include "store/offsets.hpp"

namespace pulse::store {

// Adds to the row of this writer (RegisterSessionWriter()), which nobody else touches while its
// transaction is open.
void AddIngested(const char *pipeline, int writer, const PartitionCounts &counts);

// Retention has dropped so many rows that are of no topic. Needs SPI.
void AddExpiredIngested(const char *pipeline, int64_t rows);

} // namespace pulse::store
