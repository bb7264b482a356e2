#include "store/positions.hpp"

#include "pg/spi.hpp"
#include "store/offsets.hpp"
#include "store/target.hpp"
#include "store/time.hpp"

namespace pulse::store {

namespace {

pg::Statement select_partitions = {
    "SELECT topic, partition, next_offset, highest_offset, fp_offset, fp_timestamp, fp_crc"
    " FROM pulse.offsets WHERE pipeline = $1 ORDER BY topic, partition",
    1,
    {TEXTOID},
    nullptr};

pg::Statement select_leftovers = {
    "SELECT topic, partition, highest_offset, highest_offset, fp_offset, fp_timestamp, fp_crc"
    " FROM pulse._leftovers WHERE pipeline = $1 ORDER BY topic, partition",
    1,
    {TEXTOID},
    nullptr};

// In another log of the same name old letters and generated ids keep their epoch, so that none is
// taken for one of the new log. Nothing of that log has been read, wherever reading begins.
// Another pipeline may have its name by now. One that is being dropped is locked: skipped, and
// looked at again by the next probe.
pg::Statement start_partition = {
    "WITH living AS (SELECT FROM pulse.pipelines WHERE name = $1 AND version = $7"
    "  FOR KEY SHARE SKIP LOCKED),"
    " begun AS (DELETE FROM pulse._leftovers WHERE pipeline = $1 AND topic = $2 AND partition = $3"
    "  AND EXISTS (SELECT FROM living) RETURNING *),"
    " started AS (INSERT INTO pulse.offsets (pipeline, topic, partition, next_offset, "
    "highest_offset, topic_epoch, adopted_rows, adopted_letters, fp_offset, fp_timestamp, fp_crc)"
    "  SELECT $1, $2, $3, $4, CASE WHEN $6 THEN $8 ELSE GREATEST(l.highest_offset, $4) END,"
    "   COALESCE(l.topic_epoch + $6::int, 0), COALESCE(l.rows, 0), COALESCE(l.letters, 0),"
    "   CASE WHEN NOT $6 THEN l.fp_offset END, CASE WHEN NOT $6 THEN l.fp_timestamp END,"
    "   CASE WHEN NOT $6 THEN l.fp_crc END"
    "  FROM living LEFT JOIN begun l ON true ON CONFLICT DO NOTHING RETURNING 1)"
    " INSERT INTO pulse.offset_log (pipeline, topic, partition, old_offset, new_offset, reason)"
    " SELECT $1, $2, $3, NULL, $4, $5 FROM started",
    8,
    {TEXTOID, TEXTOID, INT4OID, INT8OID, TEXTOID, BOOLOID, INT8OID, INT8OID},
    nullptr};

// One statement: the log and the gaps are written from what the UPDATE found. Of a log that is gone
// nobody knows how far it went.
pg::Statement move_partition = {
    "WITH old AS (SELECT next_offset, highest_offset, topic_epoch FROM pulse.offsets"
    "  WHERE pipeline = $1 AND topic = $2 AND partition = $3 FOR UPDATE),"
    " moved AS (UPDATE pulse.offsets SET next_offset = $4, fence = fence + 1,"
    "  topic_epoch = topic_epoch + $6::int,"
    "  rejects_accepted_to = CASE WHEN NOT $6 THEN rejects_accepted_to END,"
    "  highest_offset = CASE WHEN $6 THEN $7 ELSE GREATEST(highest_offset, $4) END,"
    "  fp_offset = CASE WHEN NOT $6 THEN fp_offset END,"
    "  fp_timestamp = CASE WHEN NOT $6 THEN fp_timestamp END,"
    "  fp_crc = CASE WHEN NOT $6 THEN fp_crc END, updated_at = pg_catalog.clock_timestamp()"
    "  WHERE pipeline = $1 AND topic = $2 AND partition = $3),"
    " jumped AS (SELECT topic_epoch, GREATEST(next_offset, highest_offset) AS from_offset,"
    "   CASE WHEN NOT $6 THEN $4 END AS to_offset,"
    "   CASE WHEN $6 THEN 'topic recreated' ELSE $9 END AS reason FROM old"
    "  UNION ALL SELECT topic_epoch + 1, $7, $4, $9 FROM old WHERE $6),"
    " gap AS (INSERT INTO pulse.gaps (pipeline, topic, partition, topic_epoch, from_offset, "
    "to_offset, reason, accepted_by)"
    "  SELECT $1, $2, $3, topic_epoch, from_offset, to_offset, reason, $5 FROM jumped"
    "  WHERE to_offset IS NULL OR to_offset > from_offset)"
    " INSERT INTO pulse.offset_log (pipeline, topic, partition, old_offset, new_offset, reason, "
    "changed_by)"
    " SELECT $1, $2, $3, next_offset, $4, $8 || CASE WHEN $6 THEN ', topic recreated' ELSE '' END,"
    "  $5 FROM old",
    9,
    {TEXTOID, TEXTOID, INT4OID, INT8OID, TEXTOID, BOOLOID, INT8OID, TEXTOID, TEXTOID},
    nullptr};

pg::Statement accept_rejects = {
    "WITH accepted AS (UPDATE pulse.offsets SET rejects_accepted_to = $4"
    "  WHERE pipeline = $1 AND topic = $2 AND partition = $3 AND next_offset < $4"
    "  RETURNING next_offset)"
    " INSERT INTO pulse.offset_log (pipeline, topic, partition, old_offset, new_offset, reason, "
    "changed_by)"
    " SELECT $1, $2, $3, next_offset, next_offset, 'rejects accepted up to ' || $4, $5"
    "  FROM accepted",
    5,
    {TEXTOID, TEXTOID, INT4OID, INT8OID, TEXTOID},
    nullptr};

pg::Statement select_unbegun = {
    "SELECT target, owner FROM pulse.pipelines p WHERE name = $1"
    " AND NOT EXISTS (SELECT FROM pulse.offsets o WHERE o.pipeline = p.name)",
    1,
    {TEXTOID},
    nullptr};

int
ReadRows(pg::Statement *statement, const char *pipeline, PartitionRow **rows)
{
    MemoryContext context = CurrentMemoryContext;
    int count = 0;
    pg::InSpi([&] {
        Datum name = CStringGetTextDatum(pipeline);
        count = static_cast<int>(
            Min(pg::Execute(statement, &name), static_cast<uint64>(pg::kMaxPartitions)));
        *rows = static_cast<PartitionRow *>(
            MemoryContextAllocZero(context, sizeof(PartitionRow) * (count + 1)));
        for (int i = 0; i < count; i++) {
            PartitionRow *row = *rows + i;
            pg::CopyText(row->topic, pg::kTopicBytes, pg::GetText(i, 1));
            row->partition = pg::GetInt32(i, 2);
            row->next_offset = pg::GetInt64(i, 3);
            row->highest_offset = pg::GetInt64(i, 4);
            row->last = GetFingerprint(static_cast<uint64>(i), 5);
        }
    });
    return count;
}

int64_t
ParseOffset(const char *digits)
{
    errno = 0;
    int64_t offset = strtoll(digits, nullptr, 10);
    if (errno == ERANGE)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("offset %s is out of range", digits),
                        errhint("Offsets go up to 9223372036854775807.")));
    return offset;
}

[[noreturn]] void
RefusePosition(const char *text)
{
    ereport(
        ERROR,
        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("\"%s\" is no position", text),
         errhint("Use earliest, latest, an offset, a timestamp, or -1 hour; start_position takes "
                 "after_rows, too.")));
}

// A timestamp, or an interval before now.
TimestampTz
ParseTime(const char *text)
{
    if (text[0] != '-')
        return DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(text),
                                                       ObjectIdGetDatum(InvalidOid),
                                                       Int32GetDatum(-1)));
    Interval *back = DatumGetIntervalP(DirectFunctionCall3(
        interval_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
    return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
                                                   TimestampTzGetDatum(GetCurrentTimestamp()),
                                                   IntervalPGetDatum(back)));
}

} // namespace

int
ReadPartitions(const char *pipeline, PartitionRow **rows)
{
    return ReadRows(&select_partitions, pipeline, rows);
}

int
ReadLeftovers(const char *pipeline, PartitionRow **rows)
{
    return ReadRows(&select_leftovers, pipeline, rows);
}

bool
StartPartition(const char *pipeline, int64_t version, const char *topic, int32_t partition,
               const Start &start)
{
    bool is_new = false;
    pg::InSpi([&] {
        Datum arguments[8] = {CStringGetTextDatum(pipeline),
                              CStringGetTextDatum(topic),
                              Int32GetDatum(partition),
                              Int64GetDatum(start.next_offset),
                              CStringGetTextDatum(start.reason),
                              BoolGetDatum(start.is_another_log),
                              Int64GetDatum(version),
                              Int64GetDatum(start.low)};
        is_new = pg::Execute(&start_partition, arguments) == 1;
    });
    return is_new;
}

bool
WouldInsertAgain(const char *pipeline)
{
    static Target target;
    PipelineDefinition definition = {};
    bool has_rows = false;
    pg::InSpi([&] {
        Datum name = CStringGetTextDatum(pipeline);
        if (pg::Execute(&select_unbegun, &name) != 1)
            return;
        pg::CopyText(definition.name, sizeof(definition.name), pipeline);
        pg::CopyText(definition.target, sizeof(definition.target), pg::GetText(0, 1));
        LoadTarget(definition, Scope::kCall, &target);
        if (target.tells_duplicates)
            return;
        const char *sql = psprintf("SELECT FROM %s LIMIT 1", target.qualified_name);
        if (SPI_execute(sql, true, 1) != SPI_OK_SELECT)
            elog(ERROR, "could not look into %s", target.qualified_name);
        has_rows = SPI_processed > 0;
    });
    return has_rows;
}

void
MovePartition(const char *pipeline, const PartitionOffset &to, const Move &move)
{
    pg::InSpi([&] {
        Datum arguments[9] = {CStringGetTextDatum(pipeline),
                              CStringGetTextDatum(to.topic.c_str()),
                              Int32GetDatum(to.partition),
                              Int64GetDatum(to.next_offset),
                              CStringGetTextDatum(move.caller),
                              BoolGetDatum(move.is_another_log),
                              Int64GetDatum(move.low),
                              CStringGetTextDatum(move.reason),
                              CStringGetTextDatum(move.gap_reason)};
        (void)pg::Execute(&move_partition, arguments);
    });
}

void
AcceptRejects(const char *pipeline, const ingest::PartitionWatermarks &marks, const char *caller)
{
    pg::InSpi([&] {
        Datum arguments[5] = {
            CStringGetTextDatum(pipeline), CStringGetTextDatum(marks.topic.c_str()),
            Int32GetDatum(marks.partition), Int64GetDatum(marks.high), CStringGetTextDatum(caller)};
        (void)pg::Execute(&accept_rejects, arguments);
    });
}

ingest::Position
ParsePosition(const char *text)
{
    if (pg_strcasecmp(text, "earliest") == 0)
        return {ingest::Position::Kind::kEarliest, 0};
    if (pg_strcasecmp(text, "latest") == 0)
        return {ingest::Position::Kind::kLatest, 0};
    if (pg_strcasecmp(text, "after_rows") == 0)
        return {ingest::Position::Kind::kAfterRows, 0};
    if (strlen(text) > 0 && strspn(text, "0123456789") == strlen(text))
        return {ingest::Position::Kind::kOffset, ParseOffset(text)};
    // -1 and -2 are Kafka's own words for latest and earliest: not taken for seconds.
    bool is_plain_number = text[0] == '-' && strspn(text + 1, "0123456789") == strlen(text + 1);
    TimestampTz timestamp = is_plain_number ? DT_NOBEGIN : ParseTime(text);
    if (TIMESTAMP_NOT_FINITE(timestamp))
        RefusePosition(text);
    return {ingest::Position::Kind::kTime, ToUnixUs(timestamp) / 1000};
}

} // namespace pulse::store
