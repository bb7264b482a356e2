#include "store/dead_letters.hpp"

#include "store/data_tables.hpp"
#include "store/row.hpp"
#include "pg/spi.hpp"
#include "store/time.hpp"
#include "store/writer.hpp"

namespace pulse::store {

namespace {

pg::Statement insert_letter = {
    "INSERT INTO raw.dlq (pipeline, kafka_topic, topic_epoch, kafka_partition, kafka_offset,"
    " kafka_timestamp, kafka_key, value, kafka_headers, error_class, error_code, error_message,"
    " error_path, stage, sqlstate)"
    " VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15)"
    " ON CONFLICT (pipeline, kafka_topic, topic_epoch, kafka_partition, kafka_offset) DO NOTHING",
    15,
    {TEXTOID, TEXTOID, INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID, BYTEAOID, BYTEAOID, JSONBOID,
     TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID},
    nullptr};

pg::Statement resolve_letters = {
    "UPDATE raw.dlq SET status = 'replayed', resolved_at = pg_catalog.clock_timestamp()"
    " WHERE pipeline = $1 AND kafka_topic = $2 AND topic_epoch = $3 AND kafka_partition = $4"
    " AND kafka_offset = ANY ($5) AND status <> 'replayed'",
    5,
    {TEXTOID, TEXTOID, INT4OID, INT4OID, INT8ARRAYOID},
    nullptr};

pg::Statement withdraw_letters = {
    "DELETE FROM raw.dlq WHERE pipeline = $1 AND kafka_topic = $2 AND topic_epoch = $3"
    " AND kafka_partition = $4 AND kafka_offset = ANY ($5) RETURNING kafka_offset::int8",
    5,
    {TEXTOID, TEXTOID, INT4OID, INT4OID, INT8ARRAYOID},
    nullptr};

Datum
OffsetArray(const int64_t *offsets, int count)
{
    Datum *values = static_cast<Datum *>(palloc(sizeof(Datum) * count));
    for (int i = 0; i < count; i++)
        values[i] = Int64GetDatum(offsets[i]);
    return PointerGetDatum(construct_array(values, count, INT8OID, 8, true, TYPALIGN_DOUBLE));
}

Datum
BytesDatum(std::string_view bytes)
{
    bytea *value = static_cast<bytea *>(palloc(bytes.size() + VARHDRSZ));
    SET_VARSIZE(value, bytes.size() + VARHDRSZ);
    if (!bytes.empty())
        memcpy(VARDATA(value), bytes.data(), bytes.size());
    return PointerGetDatum(value);
}

} // namespace

bool
WriteLetter(const char *pipeline, const OwnedPartition &partition, const ingest::Record &record,
            const LetterReason &reason)
{
    char nulls[16] = "               ";
    auto set_null = [&nulls](int argument, bool is_null) {
        if (is_null)
            nulls[argument - 1] = 'n';
    };
    const bool has_record = partition.topic[0] != '\0'; // else it came by ingest()
    set_null(2, !has_record);
    set_null(4, !has_record);
    set_null(5, !has_record);
    set_null(6, !IsStorableMs(record.timestamp_ms));
    set_null(7, record.key.data() == nullptr);
    set_null(8, record.value.data() == nullptr);
    set_null(9, record.headers.data() == nullptr);
    set_null(13, reason.path.data() == nullptr);
    set_null(14, reason.stage == nullptr);
    set_null(15, reason.sqlstate == nullptr);
    Datum arguments[15] = {CStringGetTextDatum(pipeline),
                           CStringGetTextDatum(partition.topic),
                           Int32GetDatum(partition.topic_epoch),
                           Int32GetDatum(partition.partition),
                           Int64GetDatum(record.kafka_offset),
                           TimestampTzGetDatum(FromUnixMs(record.timestamp_ms)),
                           BytesDatum(record.key),
                           BytesDatum(record.value),
                           HeadersDatum(record.headers),
                           CStringGetTextDatum(reason.error_class),
                           CStringGetTextDatum(reason.error_code),
                           BytesDatum(reason.message), // text and bytea are laid out alike
                           BytesDatum(reason.path),
                           CStringGetTextDatum(reason.stage == nullptr ? "" : reason.stage),
                           CStringGetTextDatum(reason.sqlstate == nullptr ? "" : reason.sqlstate)};
    bool is_new = false;
    AsOwnerOfLetters([&] { is_new = pg::Execute(&insert_letter, arguments, nulls) == 1; });
    return is_new;
}

void
WithdrawLetters(const char *pipeline, const OwnedPartition &partition, const int64_t *offsets,
                int count, void (*found)(int64_t offset, void *argument), void *argument)
{
    Datum arguments[5] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(partition.topic),
                          Int32GetDatum(partition.topic_epoch), Int32GetDatum(partition.partition),
                          OffsetArray(offsets, count)};
    uint64 withdrawn = 0;
    AsOwnerOfLetters([&] { withdrawn = pg::Execute(&withdraw_letters, arguments); });
    for (uint64 row = 0; row < withdrawn; row++)
        found(pg::GetInt64(row, 1), argument);
}

int
ResolveLetters(const char *pipeline, const OwnedPartition &partition, const int64_t *offsets,
               int count)
{
    if (count == 0)
        return 0;
    Datum arguments[5] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(partition.topic),
                          Int32GetDatum(partition.topic_epoch), Int32GetDatum(partition.partition),
                          OffsetArray(offsets, count)};
    uint64 resolved = 0;
    AsOwnerOfLetters([&] { resolved = pg::Execute(&resolve_letters, arguments); });
    return static_cast<int>(resolved);
}

} // namespace pulse::store
