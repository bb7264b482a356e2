#include "store/set_aside.hpp"

#include "pg/spi.hpp"

namespace pulse::store {

namespace {

pg::Statement load_set_aside = {
    "SELECT s.topic, s.partition, s.at_offset, s.error_code, s.message"
    " FROM pulse._set_aside s JOIN pulse.offsets o USING (pipeline, topic, topic_epoch, partition)"
    " WHERE s.pipeline = $1 AND s.at_offset >= o.next_offset ORDER BY s.at_offset",
    1,
    {TEXTOID},
    nullptr};

pg::Statement set_aside = {
    "INSERT INTO pulse._set_aside (pipeline, topic, topic_epoch, partition, at_offset, error_code,"
    " message) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    7,
    {TEXTOID, TEXTOID, INT4OID, INT4OID, INT8OID, TEXTOID, TEXTOID},
    nullptr};

} // namespace

int
LoadSetAside(const char *pipeline, SetAsideRow *rows, int capacity)
{
    int found = 0;
    pg::InSpi([&] {
        Datum arguments[1] = {CStringGetTextDatum(pipeline)};
        found = static_cast<int>(pg::Execute(&load_set_aside, arguments));
        for (int i = 0; i < Min(found, capacity); i++) {
            pg::CopyText(rows[i].topic, sizeof(rows[i].topic), pg::GetText(i, 1));
            rows[i].partition = pg::GetInt32(i, 2);
            rows[i].kafka_offset = pg::GetInt64(i, 3);
            rows[i].code = strcmp(pg::GetText(i, 4), "skipped") == 0
                               ? decode::RejectCode::kSkipped
                               : decode::RejectCode::kQuarantined;
            pg::CopyText(rows[i].message, sizeof(rows[i].message), pg::GetText(i, 5));
        }
    });
    return found;
}

bool
SetAside(const char *pipeline, const OwnedPartition &partition, int64_t kafka_offset,
         decode::RejectCode code, const char *message)
{
    bool is_new = false;
    pg::InSpi([&] {
        Datum arguments[7] = {CStringGetTextDatum(pipeline),
                              CStringGetTextDatum(partition.topic),
                              Int32GetDatum(partition.topic_epoch),
                              Int32GetDatum(partition.partition),
                              Int64GetDatum(kafka_offset),
                              CStringGetTextDatum(decode::InfoOf(code).name.data()),
                              CStringGetTextDatum(message)};
        is_new = pg::Execute(&set_aside, arguments) == 1;
    });
    return is_new;
}

} // namespace pulse::store
