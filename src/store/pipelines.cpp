#include "store/pipelines.hpp"

#include "pg/spi.hpp"
#include "store/time.hpp"

namespace pulse::store {

namespace {

pg::Statement select_pipelines = {
    "SELECT name, pg_catalog.array_to_string(topics, E'\\n'),"
    " COALESCE(settings->>'brokers', pg_catalog.current_setting('pulse.brokers')),"
    " COALESCE(settings->>'group_id', pg_catalog.current_setting('pulse.group_id')),"
    " COALESCE(settings->>'kafka_options', pg_catalog.current_setting('pulse.kafka_options')),"
    " COALESCE(settings->>'secrets_file', pg_catalog.current_setting('pulse.secrets_file')),"
    " COALESCE(settings->>'start_position', pg_catalog.current_setting('pulse.start_position')),"
    " COALESCE(settings->>'workers', pg_catalog.current_setting('pulse.workers')),"
    " version, desired_state, reason, hint FROM pulse.pipelines ORDER BY name",
    0,
    {},
    nullptr};

pg::Statement select_partitions = {"SELECT topic, partition, next_offset FROM pulse.offsets WHERE "
                                   "pipeline = $1 ORDER BY topic, partition",
                                   1,
                                   {TEXTOID},
                                   nullptr};

pg::Statement needs_default = {"SELECT NOT EXISTS (SELECT FROM pulse._installation) AND NOT EXISTS "
                               "(SELECT FROM pulse.pipelines),"
                               " EXISTS (SELECT FROM pg_catalog.pg_class c JOIN "
                               "pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                               "         WHERE n.nspname IN ('raw', 'live'))",
                               0,
                               {},
                               nullptr};

// A regular expression may hold commas.
pg::Statement create_default = {"SELECT pulse.create_pipeline('events', CASE WHEN $1 LIKE '^%'"
                                " THEN ARRAY[$1] ELSE pg_catalog.string_to_array("
                                "pg_catalog.replace($1, ' ', ''), ',') END, 'raw.events', '{}')",
                                1,
                                {TEXTOID},
                                nullptr};

pg::Statement note_default = {
    "INSERT INTO pulse._installation VALUES (pg_catalog.clock_timestamp())", 0, {}, nullptr};

pg::Statement start_partition = {
    // Another pipeline may have its name by now. One that is being dropped is locked: skipped, and
    // looked at again by the next probe.
    "WITH living AS (SELECT FROM pulse.pipelines WHERE name = $1 AND version = $6"
    "  FOR KEY SHARE SKIP LOCKED),"
    " started AS (INSERT INTO pulse.offsets (pipeline, topic, partition, next_offset, "
    "highest_offset)"
    "  SELECT $1, $2, $3, $4, $4 FROM living ON CONFLICT DO NOTHING RETURNING 1)"
    " INSERT INTO pulse.offset_log (pipeline, topic, partition, old_offset, new_offset, reason)"
    " SELECT $1, $2, $3, NULL, $4, $5 FROM started",
    6,
    {TEXTOID, TEXTOID, INT4OID, INT8OID, TEXTOID, INT8OID},
    nullptr};

// One statement: the log and the gap are written from what the UPDATE found.
pg::Statement seek_partition = {
    "WITH old AS (SELECT next_offset, highest_offset, topic_epoch FROM pulse.offsets"
    "  WHERE pipeline = $1 AND topic = $2 AND partition = $3 FOR UPDATE),"
    " moved AS (UPDATE pulse.offsets SET next_offset = $4, fence = fence + 1,"
    "  highest_offset = GREATEST(highest_offset, $4), updated_at = pg_catalog.clock_timestamp()"
    "  WHERE pipeline = $1 AND topic = $2 AND partition = $3),"
    " gap AS (INSERT INTO pulse.gaps (pipeline, topic, partition, topic_epoch, from_offset, "
    "to_offset,"
    "  reason, accepted_by)"
    "  SELECT $1, $2, $3, topic_epoch, GREATEST(next_offset, highest_offset), $4, $5, $6 FROM old"
    "  WHERE $4 > GREATEST(next_offset, highest_offset))"
    " INSERT INTO pulse.offset_log (pipeline, topic, partition, old_offset, new_offset, reason, "
    "changed_by)"
    " SELECT $1, $2, $3, next_offset, $4, $5, $6 FROM old",
    6,
    {TEXTOID, TEXTOID, INT4OID, INT8OID, TEXTOID, TEXTOID},
    nullptr};

pg::Statement set_desired_state = {
    "UPDATE pulse.pipelines SET desired_state = $2, reason = NULL, hint = NULL,"
    " changed_at = pg_catalog.clock_timestamp() WHERE name = $1",
    2,
    {TEXTOID, TEXTOID},
    nullptr};

pg::Statement prune_batch_log = {
    "DELETE FROM pulse.batch_log WHERE finished_at < pg_catalog.now() - interval '7 days'",
    0,
    {},
    nullptr};
pg::Statement prune_offset_log = {
    "DELETE FROM pulse.offset_log WHERE changed_at < pg_catalog.now() - interval '7 days'",
    0,
    {},
    nullptr};

char *
CopyColumn(uint64 row, int column, MemoryContext context)
{
    const char *value = pg::GetText(row, column);
    return value == nullptr ? nullptr : MemoryContextStrdup(context, value);
}

int64_t
ParseOffset(const char *digits)
{
    errno = 0;
    int64_t offset = strtoll(digits, nullptr, 10);
    if (errno == ERANGE)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("offset %s is out of range", digits)));
    return offset;
}

[[noreturn]] void
RefusePosition(const char *text)
{
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("\"%s\" is no position", text),
                    errhint("Use earliest, latest, an offset, a timestamp, or -1 hour.")));
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

bool
ExtensionExists()
{
    return OidIsValid(get_extension_oid("pulse", true));
}

int
ReadPipelines(PipelineRow **rows)
{
    MemoryContext context = CurrentMemoryContext;
    int count = 0;
    pg::InSpi([&] {
        count = static_cast<int>(
            Min(pg::Execute(&select_pipelines), static_cast<uint64>(pg::kMaxPipelines)));
        *rows = static_cast<PipelineRow *>(
            MemoryContextAllocZero(context, sizeof(PipelineRow) * (count + 1)));
        for (int i = 0; i < count; i++) {
            PipelineRow *row = *rows + i;
            pg::CopyText(row->name, sizeof(row->name), pg::GetText(i, 1));
            row->topics = CopyColumn(i, 2, context);
            row->brokers = CopyColumn(i, 3, context);
            row->group_id = CopyColumn(i, 4, context);
            row->kafka_options = CopyColumn(i, 5, context);
            row->secrets_file = CopyColumn(i, 6, context);
            row->start_position = CopyColumn(i, 7, context);
            row->workers = Max(1, atoi(pg::GetText(i, 8)));
            row->version = pg::GetInt64(i, 9);
            pg::CopyText(row->desired_state, sizeof(row->desired_state), pg::GetText(i, 10));
            row->reason = CopyColumn(i, 11, context);
            row->hint = CopyColumn(i, 12, context);
        }
    });
    return count;
}

int
ReadPartitions(const char *pipeline, PartitionRow **rows)
{
    MemoryContext context = CurrentMemoryContext;
    int count = 0;
    pg::InSpi([&] {
        Datum name = CStringGetTextDatum(pipeline);
        count = static_cast<int>(
            Min(pg::Execute(&select_partitions, &name), static_cast<uint64>(pg::kMaxPartitions)));
        *rows = static_cast<PartitionRow *>(
            MemoryContextAllocZero(context, sizeof(PartitionRow) * (count + 1)));
        for (int i = 0; i < count; i++) {
            pg::CopyText((*rows)[i].topic, pg::kTopicBytes, pg::GetText(i, 1));
            (*rows)[i].partition = pg::GetInt32(i, 2);
            (*rows)[i].next_offset = pg::GetInt64(i, 3);
        }
    });
    return count;
}

bool
CreateDefaultPipeline(const char *topics, const char **reason)
{
    *reason = nullptr;
    bool is_created = false;
    Oid caller = InvalidOid;
    int security = 0;
    GetUserIdAndSecContext(&caller, &security);
    pg::InSpi([&] {
        bool is_null = false;
        if (pg::Execute(&needs_default) != 1 || !DatumGetBool(pg::GetDatum(0, 1, &is_null)))
            return;
        if (DatumGetBool(pg::GetDatum(0, 2, &is_null))) {
            *reason = "the database holds raw or live tables of an earlier installation";
            return;
        }
        Relation relation = table_open(ExtensionRelationId, AccessShareLock);
        ScanKeyData key;
        ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
                    CStringGetDatum("pulse"));
        SysScanDesc scan =
            systable_beginscan(relation, ExtensionNameIndexId, true, nullptr, 1, &key);
        HeapTuple tuple = systable_getnext(scan);
        Oid owner = HeapTupleIsValid(tuple)
                        ? reinterpret_cast<Form_pg_extension>(GETSTRUCT(tuple))->extowner
                        : InvalidOid;
        systable_endscan(scan);
        table_close(relation, AccessShareLock);
        if (!OidIsValid(owner))
            return;
        (void)pg::Execute(&note_default);
        SetUserIdAndSecContext(owner, security | SECURITY_LOCAL_USERID_CHANGE);
        Datum argument = CStringGetTextDatum(topics);
        (void)pg::Execute(&create_default, &argument);
        SetUserIdAndSecContext(caller, security);
        is_created = true;
    });
    return is_created;
}

bool
StartPartition(const char *pipeline, int64_t version, const char *topic, int32_t partition,
               int64_t next_offset, const char *reason)
{
    bool is_new = false;
    pg::InSpi([&] {
        Datum arguments[6] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(topic),
                              Int32GetDatum(partition),      Int64GetDatum(next_offset),
                              CStringGetTextDatum(reason),   Int64GetDatum(version)};
        is_new = pg::Execute(&start_partition, arguments) == 1;
    });
    return is_new;
}

void
SeekPartition(const char *pipeline, const char *topic, int32_t partition, int64_t next_offset,
              const char *reason, const char *caller)
{
    pg::InSpi([&] {
        Datum arguments[6] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(topic),
                              Int32GetDatum(partition),      Int64GetDatum(next_offset),
                              CStringGetTextDatum(reason),   CStringGetTextDatum(caller)};
        (void)pg::Execute(&seek_partition, arguments);
    });
}

bool
SetDesiredState(const char *pipeline, const char *state)
{
    bool is_found = false;
    pg::InSpi([&] {
        Datum arguments[2] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(state)};
        is_found = pg::Execute(&set_desired_state, arguments) == 1;
    });
    return is_found;
}

ingest::Position
ParsePosition(const char *text)
{
    if (pg_strcasecmp(text, "earliest") == 0)
        return {ingest::Position::Kind::kEarliest, 0};
    if (pg_strcasecmp(text, "latest") == 0)
        return {ingest::Position::Kind::kLatest, 0};
    if (strlen(text) > 0 && strspn(text, "0123456789") == strlen(text))
        return {ingest::Position::Kind::kOffset, ParseOffset(text)};
    // -1 and -2 are Kafka's own words for latest and earliest: not taken for seconds.
    bool is_plain_number = text[0] == '-' && strspn(text + 1, "0123456789") == strlen(text + 1);
    TimestampTz timestamp = is_plain_number ? DT_NOBEGIN : ParseTime(text);
    if (TIMESTAMP_NOT_FINITE(timestamp))
        RefusePosition(text);
    return {ingest::Position::Kind::kTime, ToUnixUs(timestamp) / 1000};
}

void
PruneLogs()
{
    pg::InSpi([] {
        (void)pg::Execute(&prune_batch_log);
        (void)pg::Execute(&prune_offset_log);
    });
}

} // namespace pulse::store
