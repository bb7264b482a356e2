// Keys, payloads and headers as tables keep them -> bytes. Views point into the result of the last
// statement. Regime: PG, inside SPI.
#pragma once

#include <cstdint>
#include <string_view>

namespace pulse::store {

struct StoredHeader {
    std::string_view key;
    std::string_view value; // null data() = null
};

// A jsonb column of headers (HeadersDatum() in row.hpp) back to bytes: a subquery with the columns
// keys and values, to be read with GetHeaders().
#define PULSE_HEADER_BYTES(part)                                                                   \
    "pg_catalog.array_agg(CASE WHEN h.pair->>'" part "_hex' IS NOT NULL"                           \
    " THEN pg_catalog.decode(h.pair->>'" part "_hex', 'hex')"                                      \
    " ELSE pg_catalog.convert_to(h.pair->>'" part "', 'UTF8') END ORDER BY h.place)"
#define PULSE_HEADERS(column)                                                                      \
    "(SELECT " PULSE_HEADER_BYTES("key") " AS keys, " PULSE_HEADER_BYTES(                          \
        "value") " AS values"                                                                      \
                 "   FROM pg_catalog.jsonb_array_elements(CASE pg_catalog.jsonb_typeof(" column    \
                 ")"                                                                               \
                 "        WHEN 'array' THEN " column " END) WITH ORDINALITY AS h(pair, place))"

#define PULSE_LETTER_HEADERS PULSE_HEADERS("d.kafka_headers")
#define PULSE_OUTBOX_HEADERS PULSE_HEADERS("o.headers")

// Column from 1; null data() = NULL.
std::string_view GetBytes(uint64_t row, int column);

// Columns column (keys) and column + 1 (values). Leaves room for spare further ones behind them;
// palloc'd.
StoredHeader *GetHeaders(uint64_t row, int column, int spare, int *count);

// A bigint[].
uintptr_t IdArray(const int64_t *ids, int count);

} // namespace pulse::store
