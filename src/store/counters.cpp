#include "store/counters.hpp"

#include "store/data_tables.hpp"
#include "pg/spi.hpp"
#include "store/time.hpp"

namespace pulse::store {

namespace {

#define PULSE_BUCKET_UPSERT(table)                                                                 \
    "INSERT INTO live." table " AS c (bucket, event_type, pipeline, slot, count)"                  \
    " SELECT u.bucket, u.event_type, $4, $5, u.count"                                              \
    " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) AS "    \
    "u(bucket, event_type, count)"                                                                 \
    " ON CONFLICT (bucket, event_type, pipeline, slot) DO UPDATE SET count = c.count + "           \
    "EXCLUDED.count"

const char *const tables[] = {"_events_minute", "_events_hour", "_events_day", "_user_day"};

pg::Statement upserts[] = {
    {PULSE_BUCKET_UPSERT("_events_minute"),
     5,
     {TIMESTAMPTZARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TEXTOID, INT4OID},
     nullptr},
    {PULSE_BUCKET_UPSERT("_events_hour"),
     5,
     {TIMESTAMPTZARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TEXTOID, INT4OID},
     nullptr},
    {PULSE_BUCKET_UPSERT("_events_day"),
     5,
     {TIMESTAMPTZARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TEXTOID, INT4OID},
     nullptr},
    {"INSERT INTO live._user_day AS c (day, user_id, event_type, pipeline, slot, count)"
     " SELECT (u.bucket AT TIME ZONE 'UTC')::date, u.user_id, u.event_type, $4, $5, u.count"
     " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),"
     " pg_catalog.unnest($6)) AS u(bucket, event_type, count, user_id)"
     " ON CONFLICT (day, user_id, event_type, pipeline, slot) DO UPDATE SET count = c.count + "
     "EXCLUDED.count",
     6,
     {TIMESTAMPTZARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TEXTOID, INT4OID, TEXTARRAYOID},
     nullptr},
};

Datum
TextDatum(std::string_view view)
{
    return PointerGetDatum(cstring_to_text_with_len(view.data(), static_cast<int>(view.size())));
}

Datum
ArrayDatum(Datum *values, int count, Oid type, int16 bytes, bool by_value, char align)
{
    return PointerGetDatum(construct_array(values, count, type, bytes, by_value, align));
}

} // namespace

void
AddToCounters(CounterKind kind, const char *pipeline, int slot, const ingest::CounterDelta *deltas,
              int count)
{
    if (count == 0)
        return;
    Datum *buckets = static_cast<Datum *>(palloc(sizeof(Datum) * count));
    Datum *types = static_cast<Datum *>(palloc(sizeof(Datum) * count));
    Datum *counts = static_cast<Datum *>(palloc(sizeof(Datum) * count));
    Datum *users = static_cast<Datum *>(palloc(sizeof(Datum) * count));
    for (int i = 0; i < count; i++) {
        std::string_view name = deltas[i].event_type;
        size_t separator = kind == CounterKind::kUserDay ? name.find('\0') : std::string_view::npos;
        users[i] = TextDatum(separator == std::string_view::npos ? std::string_view("")
                                                                 : name.substr(0, separator));
        types[i] =
            TextDatum(separator == std::string_view::npos ? name : name.substr(separator + 1));
        buckets[i] = TimestampTzGetDatum(FromUnixUs(deltas[i].bucket_us));
        counts[i] = Int64GetDatum(deltas[i].count);
    }
    Datum arguments[6] = {ArrayDatum(buckets, count, TIMESTAMPTZOID, 8, true, TYPALIGN_DOUBLE),
                          ArrayDatum(types, count, TEXTOID, -1, false, TYPALIGN_INT),
                          ArrayDatum(counts, count, INT8OID, 8, true, TYPALIGN_DOUBLE),
                          CStringGetTextDatum(pipeline),
                          Int32GetDatum(slot),
                          ArrayDatum(users, count, TEXTOID, -1, false, TYPALIGN_INT)};
    const int i = static_cast<int>(kind);
    AsOwnerOf("live", tables[i], [&] { (void)pg::Execute(&upserts[i], arguments); });
}

} // namespace pulse::store
