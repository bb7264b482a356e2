#include "store/retention.hpp"

#include "pg/guc.hpp"
#include "store/ingests.hpp"
#include "pg/spi.hpp"

namespace pulse::store {

namespace {

pg::Statement wants_retention = {
    "SELECT EXISTS (SELECT FROM pulse.pipelines WHERE COALESCE(settings->>'retention',"
    " pg_catalog.current_setting('pulse.retention')) <> '0')",
    0,
    {},
    nullptr};

// The rows of a partition may be of each of them, and no row says whose it is.
pg::Statement select_sharers = {
    "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(p.name), ', ' ORDER BY p.name)"
    " FROM pulse.pipelines p JOIN pulse.pipelines mine ON mine.target = p.target"
    " WHERE mine.name = $1 AND p.name <> $1",
    1,
    {TEXTOID},
    nullptr};

pg::Statement select_keeper = {
    "SELECT p.name FROM pulse.pipelines p JOIN pulse.pipelines mine ON mine.target = p.target"
    " WHERE mine.name = $1 AND p.name <> $1 AND COALESCE(p.settings->>'retention',"
    " pg_catalog.current_setting('pulse.retention')) <> '0' ORDER BY p.name LIMIT 1",
    1,
    {TEXTOID},
    nullptr};

constexpr int kMaxHolders = 5; // shown

constexpr const char *kUselessHint =
    "Whole partitions can go where one pipeline writes a table whose partitions pulse makes; else "
    "delete old rows yourself, or set retention to 0.";
constexpr const char *kStrangerHint =
    "Whoever may not drop a table himself can't have a pipeline do it: make the pipeline's owner a "
    "member of that role, or set retention to 0.";

pg::Statement select_holders = {
    "SELECT pg_catalog.string_agg(h.who, ', ' ORDER BY h.since) FROM ("
    "  SELECT COALESCE(l.pid::text, 'a prepared transaction') AS who, min(a.xact_start) AS since"
    "  FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)"
    "  WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1)"
    "  AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() AND l.database ="
    "   (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = "
    "pg_catalog.current_database())"
    "  GROUP BY 1 ORDER BY 2 LIMIT $2) h",
    2,
    {OIDARRAYOID, INT8OID},
    nullptr};

pg::Statement add_expired = {"UPDATE pulse.offsets SET expired_rows = expired_rows + $4"
                             " WHERE pipeline = $1 AND topic = $2 AND partition = $3",
                             4,
                             {TEXTOID, TEXTOID, INT4OID, INT8OID},
                             nullptr};

pg::Statement note_border = {"UPDATE pulse.pipelines SET retained_from = $2 WHERE name = $1"
                             " AND COALESCE(retained_from, '-infinity') < $2",
                             2,
                             {TEXTOID, TIMESTAMPTZOID},
                             nullptr};

struct Count {
    char topic[pg::kTopicBytes];
    int32_t partition;
    int64_t rows;
};

void
SetLockTimeout(const char *value)
{
    (void)set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
                            true, 0, false);
}

// Partitions are dropped as the owner of the table, whoever wrote the retention into the pipeline.
bool
MayDrop(const PipelineDefinition &definition, const Target &target)
{
    const Oid role = get_role_oid(definition.owner, true);
    return OidIsValid(role) && is_member_of_role(role, target.owner);
}

bool
HasPosition(const Target &target)
{
    int found = 0;
    for (int i = 0; i < target.column_count; i++)
        found += target.columns[i].source == ColumnSource::kKafkaTopic ||
                 target.columns[i].source == ColumnSource::kKafkaPartition ||
                 target.columns[i].source == ColumnSource::kKafkaOffset;
    return found == 3;
}

TimestampTz
BeginOfUnit(TimestampTz at, const char *unit) // the session's time zone is UTC
{
    return DatumGetTimestampTz(
        DirectFunctionCall2(timestamptz_trunc, CStringGetTextDatum(unit), TimestampTzGetDatum(at)));
}

TimestampTz
BoundAt(PartitionBoundInfo bounds, int index, TimestampTz otherwise)
{
    return bounds->kind[index][0] == PARTITION_RANGE_DATUM_VALUE
               ? DatumGetTimestampTz(bounds->datums[index][0])
               : otherwise;
}

// Are the exclusive locks to be had? Asked before the rows are counted, which may take a while and
// would be in vain. Raises 55P03. Batches wait for us meanwhile, lock_timeout at most.
void
CheckIdle(const Target &target, Oid leaf)
{
    for (Oid relation : {static_cast<Oid>(target.relation), leaf}) {
        LockRelationOid(relation, AccessExclusiveLock);
        UnlockRelationOid(relation, AccessExclusiveLock);
    }
}

const char *
QualifiedName(Oid relation)
{
    return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)),
                                      get_rel_name(relation));
}

int64_t
CountRows(const Target &target, Oid leaf, Count **counts, int *group_count, int64_t *ingested)
{
    bool has_position = HasPosition(target);
    pg::ExecuteOnce(psprintf(
        has_position ? "SELECT pg_catalog.count(*), kafka_topic::text, kafka_partition::int4 FROM "
                       "ONLY %s GROUP BY 2, 3 ORDER BY 2, 3"
                     : "SELECT pg_catalog.count(*), NULL::text, NULL::int4 FROM ONLY %s",
        QualifiedName(leaf)));
    uint64 groups = SPI_processed;
    *counts = static_cast<Count *>(palloc0(sizeof(Count) * (groups + 1)));
    *group_count = 0;
    int64_t total = 0;
    for (uint64 row = 0; row < groups; row++) {
        int64_t rows = pg::GetInt64(row, 1);
        total += rows;
        bool is_null = false;
        (void)pg::GetDatum(row, 3, &is_null);
        if (is_null || pg::GetText(row, 2) == nullptr) {
            *ingested += has_position ? rows : 0; // not from Kafka
            continue;
        }
        Count *count = *counts + (*group_count)++;
        pg::CopyText(count->topic, sizeof(count->topic), pg::GetText(row, 2));
        count->partition = pg::GetInt32(row, 3);
        count->rows = rows;
    }
    return total;
}

void
AddToLedger(const char *pipeline, const Count *counts, int group_count)
{
    for (int i = 0; i < group_count; i++) {
        Datum arguments[4] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(counts[i].topic),
                              Int32GetDatum(counts[i].partition), Int64GetDatum(counts[i].rows)};
        (void)pg::Execute(&add_expired, arguments);
    }
}

// The first column of the only row; palloc'd, null = NULL, or no row.
char *
AnswerOf(pg::Statement *question, const char *pipeline)
{
    MemoryContext context = CurrentMemoryContext;
    char *answer = nullptr;
    pg::InSpi([&] {
        Datum name = CStringGetTextDatum(pipeline);
        if (pg::Execute(question, &name) == 0)
            return;
        if (const char *text = pg::GetText(0, 1); text != nullptr)
            answer = MemoryContextStrdup(context, text);
    });
    return answer;
}

} // namespace

bool
WantsRetention()
{
    return pg::IsTrue(&wants_retention);
}

const char *
SharerWithRetention(const char *pipeline)
{
    return AnswerOf(&select_keeper, pipeline);
}

Obstacle
WhyNothingExpires(const PipelineDefinition &definition, const Target &target)
{
    if (!target.is_managed)
        return {psprintf("pulse does not make the partitions of %s: %s", target.qualified_name,
                         target.why_unmanaged != nullptr ? target.why_unmanaged
                                                         : "it is not partitioned"),
                kUselessHint};
    if (!MayDrop(definition, target))
        return {psprintf("%s belongs to \"%s\", whose rights the pipeline's owner \"%s\" has not",
                         target.qualified_name, GetUserNameFromId(target.owner, false),
                         definition.owner),
                kStrangerHint};
    const char *sharers = AnswerOf(&select_sharers, definition.name);
    if (sharers != nullptr)
        return {psprintf("other pipelines write %s, too: %s", target.qualified_name, sharers),
                kUselessHint};
    return {};
}

int
FindExpired(const char *pipeline, PipelineDefinition *definition, Target *target,
            ExpiredPartition **found, int64_t *keep_from, Obstacle *obstacle)
{
    *keep_from = DT_NOBEGIN;
    *obstacle = {};
    (void)NewGUCNestLevel(); // ends with the transaction
    if (!LoadPipeline(pipeline, Scope::kCall, definition) || pg::guc_retention_s == 0)
        return 0;
    LoadTarget(*definition, Scope::kCall, target);
    *obstacle = WhyNothingExpires(*definition, *target);
    if (obstacle->reason != nullptr)
        return 0;

    TimestampTz border = GetCurrentTimestamp() - pg::guc_retention_s * static_cast<int64>(1000000);
    *keep_from = BeginOfUnit(border, target->partition_unit);
    Relation relation = table_open(target->relation, AccessShareLock);
    PartitionDesc description = RelationGetPartitionDesc(relation, true);
    PartitionBoundInfo bounds = description->boundinfo;
    *found = static_cast<ExpiredPartition *>(
        palloc0(sizeof(ExpiredPartition) * (description->nparts + 1)));
    int count = 0;
    // datums ascend; indexes[i] is the partition that ends at datums[i] and begins at the one
    // before.
    for (int i = 0; description->nparts > 0 && i < bounds->ndatums; i++) {
        if (bounds->indexes[i] < 0)
            continue;
        TimestampTz lower = i > 0 ? BoundAt(bounds, i - 1, DT_NOBEGIN) : DT_NOBEGIN;
        TimestampTz upper = BoundAt(bounds, i, DT_NOEND);
        Oid leaf = description->oids[bounds->indexes[i]];
        // Foreign and partitioned ones are somebody's own arrangement: nothing goes from there on.
        const bool is_arranged = get_rel_relkind(leaf) != RELKIND_RELATION;
        if (is_arranged && upper <= border)
            *obstacle = {
                psprintf("partition %s is partitioned itself, or foreign", get_rel_name(leaf)),
                kUselessHint};
        if (upper > border || is_arranged) {
            *keep_from = Min(*keep_from, lower);
            break;
        }
        (*found)[count++] = {leaf, upper};
    }
    table_close(relation, NoLock);
    return count;
}

const char *
HoldersOf(unsigned int leaf)
{
    MemoryContext context = CurrentMemoryContext;
    char *holders = nullptr;
    pg::InSpi([&] {
        Oid parent = get_rel_relispartition(leaf) ? get_partition_parent(leaf, false) : leaf;
        Datum relations[2] = {ObjectIdGetDatum(leaf), ObjectIdGetDatum(parent)};
        ArrayType *array = construct_array(relations, 2, OIDOID, sizeof(Oid), true, TYPALIGN_INT);
        Datum arguments[2] = {PointerGetDatum(array), Int64GetDatum(kMaxHolders)};
        (void)pg::Execute(&select_holders, arguments);
        const char *found = pg::GetText(0, 1);
        holders = MemoryContextStrdup(context, found != nullptr ? found : "nobody now");
    });
    return holders;
}

void
KeepFrom(const PipelineDefinition &definition, const Target &target, int64_t keep_from)
{
    pg::InSpi([&] {
        Datum arguments[2] = {CStringGetTextDatum(definition.name), TimestampTzGetDatum(keep_from)};
        if (pg::Execute(&note_border, arguments) == 1)
            CacheInvalidateRelcacheByRelid(target.relation); // workers look again
    });
}

bool
DropExpired(const PipelineDefinition &definition, const Target &target,
            const ExpiredPartition &expired, int64_t *rows)
{
    SetLockTimeout("100ms");
    CheckIdle(target, expired.leaf);
    LockRelationOid(expired.leaf, ShareLock); // no further rows; readers may go on
    if (!get_rel_relispartition(expired.leaf) ||
        get_partition_parent(expired.leaf, false) != target.relation)
        return false; // detached meanwhile

    pg::InSpi([&] {
        Count *counts = nullptr;
        int group_count = 0;
        int64_t ingested = 0;
        pg::AsRole(target.owner, [&] {
            *rows = CountRows(target, expired.leaf, &counts, &group_count, &ingested);
        });
        // A batch locks its offsets before the table: in that order here too, or both would wait.
        // It may hold them for as long as it takes; meanwhile we are in nobody's way.
        SetLockTimeout("2s");
        AddToLedger(definition.name, counts, group_count);
        if (ingested > 0)
            AddExpiredIngested(definition.name, ingested);
        Datum border[2] = {CStringGetTextDatum(definition.name),
                           TimestampTzGetDatum(expired.upper)};
        (void)pg::Execute(&note_border, border);
        SetLockTimeout("100ms");
        pg::AsRole(target.owner, [&] {
            pg::ExecuteOnce(psprintf("DROP TABLE %s", QualifiedName(expired.leaf)));
        });
    });
    return true;
}

} // namespace pulse::store
