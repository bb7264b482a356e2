#include "store/offsets.hpp"

#include "pg/spi.hpp"
#include "store/time.hpp"

namespace pulse::store {

namespace {

pg::Statement select_share = {"SELECT r.topic, r.partition FROM"
                              " (SELECT topic, partition, pg_catalog.row_number() OVER (ORDER BY "
                              "topic, partition) - 1 AS rank"
                              "  FROM pulse.offsets WHERE pipeline = $1) r"
                              " WHERE r.rank % $2 = $3 ORDER BY r.topic, r.partition",
                              3,
                              {TEXTOID, INT8OID, INT8OID},
                              nullptr};

pg::Statement take_one = {
    "UPDATE pulse.offsets SET fence = fence + 1 WHERE pipeline = $1 AND "
    "topic = $2 AND partition = $3"
    " RETURNING next_offset, highest_offset, fence, topic_epoch, fp_offset, fp_timestamp, fp_crc,"
    " COALESCE(rejects_accepted_to, 0)",
    3,
    {TEXTOID, TEXTOID, INT4OID},
    nullptr};

pg::Statement move_offset = {
    "UPDATE pulse.offsets SET next_offset = $4, highest_offset = GREATEST(highest_offset, $4),"
    " updated_at = pg_catalog.clock_timestamp()"
    " WHERE pipeline = $1 AND topic = $2 AND partition = $3 AND next_offset = $5 AND fence = $6",
    6,
    {TEXTOID, TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID},
    nullptr};

pg::Statement correct_offset = {
    "UPDATE pulse.offsets SET next_offset = $4, highest_offset = GREATEST($5, $4)"
    " WHERE pipeline = $1 AND topic = $2 AND partition = $3",
    5,
    {TEXTOID, TEXTOID, INT4OID, INT8OID, INT8OID},
    nullptr};

pg::Statement add_counts = {
    "UPDATE pulse.offsets SET records = records + $4, rows = rows + $5, duplicates = duplicates + "
    "$6,"
    " rejects = rejects + $7, filtered = filtered + $8,"
    " last_kafka_timestamp = COALESCE($9, last_kafka_timestamp),"
    " fp_offset = $10, fp_timestamp = $11, fp_crc = $12"
    " WHERE pipeline = $1 AND topic = $2 AND partition = $3",
    12,
    {TEXTOID, TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID,
     INT8OID, INT8OID, INT8OID},
    nullptr};

pg::Statement log_batch = {"INSERT INTO pulse.batch_log (started_at, finished_at, pipeline, "
                           "worker, batches, records, rows,"
                           " duplicates, rejects, filtered, bytes, busy_ms, end_reason) VALUES "
                           "($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13)",
                           13,
                           {TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, INT4OID, INT4OID, INT8OID,
                            INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, FLOAT8OID, TEXTOID},
                           nullptr};

} // namespace

Fingerprint
GetFingerprint(uint64_t row, int column)
{
    bool is_null = false;
    Fingerprint result;
    int64_t *const fields[] = {&result.kafka_offset, &result.timestamp_ms, &result.crc};
    for (int64_t *field : fields) {
        Datum value = pg::GetDatum(row, column++, &is_null);
        if (!is_null)
            *field = DatumGetInt64(value);
    }
    return result;
}

int
TakePartitions(const char *pipeline, int index, int count, OwnedPartition *partitions, int capacity)
{
    int taken = 0;
    pg::InSpi([&] {
        Datum arguments[3] = {CStringGetTextDatum(pipeline), Int64GetDatum(count),
                              Int64GetDatum(index)};
        uint64 found = pg::Execute(&select_share, arguments);
        taken = static_cast<int>(Min(found, static_cast<uint64>(capacity)));
        for (int i = 0; i < taken; i++) {
            pg::CopyText(partitions[i].topic, sizeof(partitions[i].topic), pg::GetText(i, 1));
            partitions[i].partition = pg::GetInt32(i, 2);
        }
        for (int i = 0; i < taken; i++) {
            Datum key[3] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(partitions[i].topic),
                            Int32GetDatum(partitions[i].partition)};
            if (pg::Execute(&take_one, key) != 1)
                ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
                                errmsg("partition %d of topic \"%s\" went away",
                                       partitions[i].partition, partitions[i].topic)));
            partitions[i].next_offset = pg::GetInt64(0, 1);
            partitions[i].highest_offset = pg::GetInt64(0, 2);
            partitions[i].fence = pg::GetInt64(0, 3);
            partitions[i].topic_epoch = pg::GetInt32(0, 4);
            partitions[i].last = GetFingerprint(0, 5);
            partitions[i].rejects_accepted_to = pg::GetInt64(0, 8);
        }
    });
    return taken;
}

bool
MoveOffset(const char *pipeline, const OwnedPartition &partition, int64_t new_offset)
{
    Datum arguments[6] = {
        CStringGetTextDatum(pipeline),        CStringGetTextDatum(partition.topic),
        Int32GetDatum(partition.partition),   Int64GetDatum(new_offset),
        Int64GetDatum(partition.next_offset), Int64GetDatum(partition.fence)};
    return pg::Execute(&move_offset, arguments) == 1;
}

void
CorrectOffset(const char *pipeline, const OwnedPartition &partition, int64_t new_offset)
{
    Datum arguments[5] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(partition.topic),
                          Int32GetDatum(partition.partition), Int64GetDatum(new_offset),
                          Int64GetDatum(partition.highest_offset)};
    (void)pg::Execute(&correct_offset, arguments);
}

void
AddCounts(const char *pipeline, const OwnedPartition &partition, const PartitionCounts &counts,
          const Fingerprint &last)
{
    Datum arguments[12] = {CStringGetTextDatum(pipeline),
                           CStringGetTextDatum(partition.topic),
                           Int32GetDatum(partition.partition),
                           Int64GetDatum(counts.records),
                           Int64GetDatum(counts.rows),
                           Int64GetDatum(counts.duplicates),
                           Int64GetDatum(counts.rejects),
                           Int64GetDatum(counts.filtered),
                           TimestampTzGetDatum(FromUnixMs(last.timestamp_ms)),
                           Int64GetDatum(last.kafka_offset),
                           Int64GetDatum(last.timestamp_ms),
                           Int64GetDatum(last.crc)};
    char nulls[] = "            ";
    if (!IsStorableMs(last.timestamp_ms))
        nulls[8] = 'n';
    if (last.kafka_offset < 0)
        nulls[9] = nulls[10] = nulls[11] = 'n';
    (void)pg::Execute(&add_counts, arguments, nulls);
}

void
LogBatch(const char *pipeline, int worker_index, const BatchLogRow &row)
{
    Datum arguments[13] = {TimestampTzGetDatum(row.started_at),
                           TimestampTzGetDatum(row.finished_at),
                           CStringGetTextDatum(pipeline),
                           Int32GetDatum(worker_index),
                           Int32GetDatum(row.batches),
                           Int64GetDatum(row.records),
                           Int64GetDatum(row.rows),
                           Int64GetDatum(row.duplicates),
                           Int64GetDatum(row.rejects),
                           Int64GetDatum(row.filtered),
                           Int64GetDatum(row.bytes),
                           Float8GetDatum(row.busy_ms),
                           CStringGetTextDatum(row.end_reason)};
    (void)pg::Execute(&log_batch, arguments);
}

} // namespace pulse::store
