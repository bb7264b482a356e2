// A record on its way from a table to Kafka: a dead letter (letter_forwards.hpp) or one that
// pulse.produce() left (outbox.hpp). Regime: PG.
#pragma once

#include <cstdint>
#include <string_view>

#include "store/stored_bytes.hpp"

namespace pulse::pg {
struct Statement;
}

namespace pulse::store {

// Views are valid during the visit.
struct OutgoingRow {
    int64_t id;
    std::string_view key;   // null data() = null
    std::string_view value; // likewise
    int64_t timestamp_ms;   // 0 = when it is sent
    const StoredHeader *headers;
    int header_count;
};

// False ends the visits.
using VisitOutgoing = bool (*)(const OutgoingRow &row, void *argument);

struct TakeLimits {
    int rows;
    int64_t bytes; // of key, value and headers; one row is taken whatever its size
};

// SQL: what a row of these columns, and value, takes in memory.
#define PULSE_OUTGOING_BYTES(key, headers)                                                         \
    "COALESCE(pg_catalog.octet_length(value), 0) + COALESCE(pg_catalog.octet_length(" key "), 0)"  \
    " + COALESCE(pg_catalog.octet_length(" headers "::pg_catalog.text), 0)"

// The sender must not tell Kafka of what a crash would take back (synchronous_commit = off):
// flushes the WAL up to what is visible now.
void FlushVisible();

// One round: ids and sizes of what waits (select: text, bigint[] except, bigint limit), as many as
// the limits allow, then what they hold (load: bigint[]). Returns how many were visited.
int TakeRows(pg::Statement *select, pg::Statement *load, const char *name, const int64_t *except,
             int except_count, const TakeLimits &limits, OutgoingRow (*get)(uint64_t row),
             VisitOutgoing visit, void *argument);

// raw.dlq exists and belongs to whom the extension belongs: nothing of a stranger's is ever read.
bool HaveLetters();

// True when something waits that could be sent now. Waits for no lock longer than 0.1 s.
bool HasOutgoing();

} // namespace pulse::store
