#include "store/pipelines.hpp"

#include "pg/spi.hpp"

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
    " version, desired_state, reason, hint,"
    " COALESCE(settings->>'on_offset_lost', pg_catalog.current_setting('pulse.on_offset_lost'))"
    " FROM pulse.pipelines ORDER BY name",
    0,
    {},
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
// Not of a pipeline that is being dropped: what is added up would outlive it.
pg::Statement add_up_replays = {
    "WITH kept AS MATERIALIZED"
    "  (SELECT name FROM pulse.pipelines FOR KEY SHARE SKIP LOCKED),"
    " several AS MATERIALIZED"
    "  (SELECT r.pipeline, r.topic, r.partition, r.topic_epoch FROM pulse.replays r"
    "   JOIN kept k ON k.name = r.pipeline"
    "   WHERE r.changed_at < pg_catalog.now() - interval '7 days'"
    "   GROUP BY 1, 2, 3, 4 HAVING pg_catalog.count(*) > 1),"
    " old AS (DELETE FROM pulse.replays r USING several s"
    "  WHERE r.changed_at < pg_catalog.now() - interval '7 days'"
    "  AND (r.pipeline, r.topic, r.partition, r.topic_epoch)"
    "   = (s.pipeline, s.topic, s.partition, s.topic_epoch) RETURNING r.*)"
    " INSERT INTO pulse.replays (changed_at, pipeline, topic, partition, topic_epoch, replayed,"
    " duplicates, failed, purged)"
    " SELECT pg_catalog.max(changed_at), pipeline, topic, partition, topic_epoch,"
    " pg_catalog.sum(replayed), pg_catalog.sum(duplicates), pg_catalog.sum(failed),"
    " pg_catalog.sum(purged) FROM old GROUP BY 2, 3, 4, 5",
    0,
    {},
    nullptr};

char *
CopyColumn(uint64 row, int column, MemoryContext context)
{
    const char *value = pg::GetText(row, column);
    return value == nullptr ? nullptr : MemoryContextStrdup(context, value);
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
            row->on_offset_lost = CopyColumn(i, 13, context);
        }
    });
    return count;
}

bool
CreateDefaultPipeline(const char *topics, const char **reason)
{
    *reason = nullptr;
    bool is_created = false;
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
        Datum argument = CStringGetTextDatum(topics);
        pg::AsRole(owner, [&] { (void)pg::Execute(&create_default, &argument); });
        is_created = true;
    });
    return is_created;
}

unsigned int
OwnerOfPulse()
{
    Oid relation = get_relname_relid("offsets", get_namespace_oid("pulse", false));
    Relation offsets = relation_open(relation, AccessShareLock);
    Oid owner = offsets->rd_rel->relowner;
    relation_close(offsets, AccessShareLock);
    return owner;
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

void
PruneLogs()
{
    pg::InSpi([] {
        (void)pg::Execute(&prune_batch_log);
        (void)pg::Execute(&prune_offset_log);
    });
}

void
AddUpReplays()
{
    (void)set_config_option("lock_timeout", "100ms", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
                            true, ERROR, false);
    pg::InSpi([] { (void)pg::Execute(&add_up_replays); });
}

} // namespace pulse::store
