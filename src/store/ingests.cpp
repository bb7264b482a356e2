#include "store/ingests.hpp"

#include "pg/spi.hpp"

namespace pulse::store {

namespace {

pg::Statement add_ingested = {
    "INSERT INTO pulse.ingests AS i (pipeline, writer, rows, duplicates, rejects, filtered)"
    " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (pipeline, writer) DO UPDATE"
    " SET rows = i.rows + EXCLUDED.rows, duplicates = i.duplicates + EXCLUDED.duplicates,"
    " rejects = i.rejects + EXCLUDED.rejects, filtered = i.filtered + EXCLUDED.filtered,"
    " updated_at = pg_catalog.clock_timestamp()",
    6,
    {TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID, INT8OID},
    nullptr};

pg::Statement add_expired = {
    "INSERT INTO pulse.ingests AS i (pipeline, writer, expired_rows) VALUES ($1, -1, $2)"
    " ON CONFLICT (pipeline, writer) DO UPDATE"
    " SET expired_rows = i.expired_rows + EXCLUDED.expired_rows",
    2,
    {TEXTOID, INT8OID},
    nullptr};

} // namespace

void
AddIngested(const char *pipeline, int writer, const PartitionCounts &counts)
{
    if (counts.records == 0)
        return;
    pg::InSpi([&] {
        Datum arguments[6] = {CStringGetTextDatum(pipeline), Int32GetDatum(writer),
                              Int64GetDatum(counts.rows),    Int64GetDatum(counts.duplicates),
                              Int64GetDatum(counts.rejects), Int64GetDatum(counts.filtered)};
        (void)pg::Execute(&add_ingested, arguments);
    });
}

void
AddExpiredIngested(const char *pipeline, int64_t rows)
{
    Datum arguments[2] = {CStringGetTextDatum(pipeline), Int64GetDatum(rows)};
    (void)pg::Execute(&add_expired, arguments);
}

} // namespace pulse::store
