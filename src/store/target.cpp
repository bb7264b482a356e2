#include "store/target.hpp"

#include "pg/guc.hpp"
#include "store/columns.hpp"
#include "store/conflict_key.hpp"
#include "store/partition_tree.hpp"
#include "store/stage_plans.hpp"
#include "pg/spi.hpp"

namespace pulse::store {

namespace {

constexpr char kDisabledRule = 'D'; // pg_rewrite.ev_enabled

pg::Statement select_pipeline = {
    "SELECT target, owner, version, settings->>'partition_by',"
    " COALESCE(retained_from, '-infinity') FROM pulse.pipelines WHERE name = $1",
    1,
    {TEXTOID},
    nullptr};

pg::Statement select_settings = {
    "SELECT s.key, s.value FROM pulse.pipelines p, pg_catalog.jsonb_each_text(p.settings) s"
    " WHERE p.name = $1 ORDER BY s.key",
    1,
    {TEXTOID},
    nullptr};

pg::Statement select_mapping = {
    "SELECT m.key, m.value FROM pulse.pipelines p,"
    " pg_catalog.jsonb_each_text(p.settings->'mapping') m WHERE p.name = $1",
    1,
    {TEXTOID},
    nullptr};

pg::Statement select_schema = {
    "SELECT settings->>'schema' FROM pulse.pipelines WHERE name = $1", 1, {TEXTOID}, nullptr};

pg::Statement select_columns = {
    "SELECT pg_catalog.unnest(columns) FROM pulse.pipelines WHERE name = $1",
    1,
    {TEXTOID},
    nullptr};

pg::Statement add_columns = {
    "UPDATE pulse.pipelines SET columns = $2 WHERE name = $1", 2, {TEXTOID, TEXTARRAYOID}, nullptr};

// The counters' keys hold it as text; what the row will hold must be known, and never NULL.
bool
IsCountedText(const TargetColumn &column)
{
    return column.decode_type == decode::ColumnType::kText && !column.is_array &&
           column.is_not_null && column.is_required;
}

void
AssignCells(Target *target)
{
    target->rest_cell = target->event_type_cell = target->event_time_cell = target->user_id_cell =
        -1;
    for (int i = 0; i < target->column_count; i++) {
        TargetColumn *column = &target->columns[i];
        if (column->source != ColumnSource::kCell && column->source != ColumnSource::kEventId)
            continue;
        column->cell_index = target->cell_count++;
        if (strcmp(column->name, "properties") == 0 && column->type_oid == JSONBOID)
            target->rest_cell = column->cell_index;
        // The counters' keys hold both; longer ones would not fit their B-tree.
        if (strcmp(column->name, "event_type") == 0 || strcmp(column->name, "user_id") == 0)
            LimitBytes(column, kMaxCounterKeyBytes);
        if (strcmp(column->name, "event_type") == 0 && IsCountedText(*column))
            target->event_type_cell = column->cell_index;
        if (strcmp(column->name, "event_timestamp") == 0 && column->type_oid == TIMESTAMPTZOID &&
            column->is_required) {
            target->event_time_cell = column->cell_index;
            column->is_event_time = true;
        }
        if (strcmp(column->name, "user_id") == 0 && IsCountedText(*column))
            target->user_id_cell = column->cell_index;
    }
}

// PG regime, through the door to the parser.
void
CheckPointer(const char *column, const char *pointer)
{
    pg::CallCpp([&] {
        auto path = decode::ParsePointer(pointer == nullptr ? "" : pointer);
        if (path.ok() && strlen(pointer) < kMaxPointerBytes)
            return;
        pg::Error error;
        error.sqlstate = "22023";
        error.message = std::string("mapping of column \"") + column +
                        "\" is not a JSON pointer: " +
                        (path.ok() ? "it is longer than 255 bytes" : path.message());
        error.hint = "Write it as /field, /object/field or /array/0; ~ is ~0 and / is ~1 in a name "
                     "(RFC 6901).";
        throw error;
    });
}

void
ApplyMapping(const PipelineDefinition &definition, Target *target)
{
    Datum name = CStringGetTextDatum(definition.name);
    uint64 count = pg::Execute(&select_mapping, &name);
    for (uint64 row = 0; row < count; row++) {
        const char *column_name = pg::GetText(row, 1);
        const char *pointer = pg::GetText(row, 2);
        TargetColumn *column = FindColumn(target, column_name);
        if (column == nullptr)
            ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
                            errmsg("column \"%s\" of the mapping does not exist in %s", column_name,
                                   definition.target),
                            errhint("Add the column, or give a whole mapping without it: "
                                    "pulse.alter_pipeline(%s, '{\"mapping\": {...}}'). Generated "
                                    "and identity columns can't be mapped.",
                                    quote_literal_cstr(definition.name))));
        CheckPointer(column_name, pointer);
        strcpy(column->pointer, pointer);
        if (column->source != ColumnSource::kEventId)
            column->source = ColumnSource::kCell;
    }
}

// A column that the pipeline counted on and that is gone is a definition error: going on would move
// its values into properties without a word. A new column is taken in.
void
CheckExpectedColumns(const PipelineDefinition &definition, Scope scope, Target *target)
{
    Datum name = CStringGetTextDatum(definition.name);
    uint64 count = pg::Execute(&select_columns, &name);
    for (uint64 row = 0; row < count; row++) {
        const char *expected = pg::GetText(row, 1);
        if (FindColumn(target, expected) == nullptr)
            ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
                            errmsg("column \"%s\" of %s is gone", expected, definition.target),
                            errhint("Add the column back, or accept the table as it is now with "
                                    "pulse.alter_pipeline(%s, '{}').",
                                    quote_literal_cstr(definition.name))));
    }
    if (count == static_cast<uint64>(target->column_count) || count == 0 || scope == Scope::kCall)
        return;
    Datum *names = static_cast<Datum *>(palloc(sizeof(Datum) * target->column_count));
    for (int i = 0; i < target->column_count; i++)
        names[i] = CStringGetTextDatum(target->columns[i].name);
    Datum arguments[2] = {name, PointerGetDatum(construct_array(names, target->column_count,
                                                                TEXTOID, -1, false, TYPALIGN_INT))};
    (void)pg::Execute(&add_columns, arguments);
}

void
LoadSchema(const PipelineDefinition &definition, Target *target)
{
    Datum name = CStringGetTextDatum(definition.name);
    const char *schema = pg::Execute(&select_schema, &name) == 0 ? nullptr : pg::GetText(0, 1);
    target->schema = schema == nullptr ? nullptr : MemoryContextStrdup(TopMemoryContext, schema);
}

const char *
KindName(char kind)
{
    switch (kind) {
    case RELKIND_VIEW:
        return "a view";
    case RELKIND_MATVIEW:
        return "a materialized view";
    case RELKIND_FOREIGN_TABLE:
        return "a foreign table";
    case RELKIND_SEQUENCE:
        return "a sequence";
    case RELKIND_COMPOSITE_TYPE:
        return "a composite type";
    default:
        return "an index";
    }
}

bool
HasInsertRule(Relation relation)
{
    for (int i = 0; relation->rd_rules != nullptr && i < relation->rd_rules->numLocks; i++)
        if (relation->rd_rules->rules[i]->event == CMD_INSERT &&
            relation->rd_rules->rules[i]->enabled != kDisabledRule)
            return true;
    return false;
}

// What could not keep the promise: rows that commit elsewhere, vanish in a crash, or are turned
// into something else.
void
CheckKind(Relation relation, const PipelineDefinition &definition)
{
    char kind = relation->rd_rel->relkind;
    if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
        ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                        errmsg("%s is %s, not a table", definition.target, KindName(kind)),
                        errhint("Rows must commit together with their offsets: write into a table, "
                                "and build the rest on it.")));
    if (relation->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
        ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                        errmsg("%s is not a permanent table", definition.target),
                        errhint("Its rows would be gone after a crash and the offsets not: ALTER "
                                "TABLE %s SET LOGGED.",
                                definition.target)));
    if (HasInsertRule(relation))
        ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                        errmsg("%s has a rule on INSERT", definition.target),
                        errhint("Drop the rule; a trigger does the same row by row.")));
}

} // namespace

bool
LoadPipeline(const char *name, Scope scope, PipelineDefinition *definition)
{
    bool found = false;
    pg::InSpi([&] {
        Datum argument = CStringGetTextDatum(name);
        if (pg::Execute(&select_pipeline, &argument) == 0)
            return;
        found = true;
        memset(static_cast<void *>(definition), 0, sizeof(*definition));
        pg::CopyText(definition->name, sizeof(definition->name), name);
        pg::CopyText(definition->target, sizeof(definition->target), pg::GetText(0, 1));
        pg::CopyText(definition->owner, sizeof(definition->owner), pg::GetText(0, 2));
        definition->version = pg::GetInt64(0, 3);
        bool is_null = false;
        definition->retained_from = DatumGetTimestampTz(pg::GetDatum(0, 5, &is_null));
        const char *unit = pg::GetText(0, 4);
        pg::CopyText(definition->partition_unit, sizeof(definition->partition_unit),
                     unit == nullptr ? "day" : unit);

        uint64 count = pg::Execute(&select_settings, &argument);
        for (uint64 row = 0; row < count; row++) {
            const char *key = pg::GetText(row, 1);
            if (pg::IsPipelineSetting(key))
                pg::OverrideSetting(key, pg::GetText(row, 2), scope == Scope::kCall);
        }
    });
    return found;
}

void
LoadTarget(const PipelineDefinition &definition, Scope scope, Target *target)
{
    FreeTexts(target);
    FreeStages(target);
    FreeMembers(target);
    memset(static_cast<void *>(target), 0, sizeof(*target));
    List *name = stringToQualifiedNameList(definition.target);
    Relation relation = relation_openrv(makeRangeVarFromNameList(name), AccessShareLock);
    CheckKind(relation, definition);
    target->relation = RelationGetRelid(relation);
    ListMembers(target); // before anything is asked of them
    target->owner = relation->rd_rel->relowner;
    strlcpy(target->qualified_name,
            quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
                                       RelationGetRelationName(relation)),
            sizeof(target->qualified_name));
    target->retained_from = definition.retained_from;
    strlcpy(target->partition_unit, definition.partition_unit, sizeof(target->partition_unit));
    if (strcmp(target->partition_unit, "none") == 0)
        strlcpy(target->partition_unit, "day", sizeof(target->partition_unit));

    DescribeColumns(relation, target);
    pg::InSpi([&] {
        ApplyMapping(definition, target);
        LoadSchema(definition, target);
        LoadStages(definition, target);
        CheckExpectedColumns(definition, scope, target);
        for (int i = 0; i < target->column_count; i++)
            CheckMetadataType(target->columns[i]);
    });
    DescribeConflictKey(relation, target);
    DescribePartitioning(relation, definition, target);
    DescribeMembers(relation, target);
    AssignCells(target);
    relation_close(relation, NoLock);
}

bool
IsCounted(const char *target_name, bool by_user)
{
    static Target target; // large
    FreeTexts(&target);
    memset(static_cast<void *>(&target), 0, sizeof(target));
    List *name = stringToQualifiedNameList(target_name);
    Relation relation = relation_openrv(makeRangeVarFromNameList(name), AccessShareLock);
    DescribeColumns(relation, &target);
    AssignCells(&target);
    relation_close(relation, NoLock);
    return target.event_type_cell >= 0 && target.event_time_cell >= 0 &&
           (!by_user || target.user_id_cell >= 0);
}

void
CheckRowSecurity(const Target &target, unsigned int role)
{
    if (check_enable_rls(target.relation, role, true) != RLS_ENABLED)
        return;
    ereport(ERROR,
            (errcode(ERRCODE_WRONG_OBJECT_TYPE),
             errmsg("row-level security of %s applies to the role that writes it",
                    target.qualified_name),
             errhint("Policies would filter events in silence: let the table's owner own the "
                     "pipeline (without FORCE ROW LEVEL SECURITY), or a role with "
                     "BYPASSRLS.")));
}

unsigned int
WriterRole(const PipelineDefinition &definition)
{
    const char *name = pg::guc_role[0] != '\0' ? pg::guc_role : definition.owner;
    return get_role_oid(name, false);
}

} // namespace pulse::store
