#include "store/target.hpp"

#include "pg/guc.hpp"
#include "pg/spi.hpp"

namespace pulse::store {

namespace {

// A B-tree entry must fit a third of a page; longer keys would raise 54000 for ever.
constexpr uint32_t kMaxKeyBytes = 2600;
constexpr uint32_t kMaxCounterKeyBytes = 1000; // two of them in one key

struct Metadata {
    const char *column;
    ColumnSource source;
};

const Metadata metadata_columns[] = {
    {"kafka_topic", ColumnSource::kKafkaTopic},
    {"kafka_partition", ColumnSource::kKafkaPartition},
    {"kafka_offset", ColumnSource::kKafkaOffset},
    {"kafka_timestamp", ColumnSource::kKafkaTimestamp},
    {"kafka_key", ColumnSource::kKafkaKey},
    {"kafka_headers", ColumnSource::kKafkaHeaders},
    {"ingested_at", ColumnSource::kIngestedAt},
    {"topic_epoch", ColumnSource::kTopicEpoch},
};

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

pg::Statement select_columns = {
    "SELECT pg_catalog.unnest(columns) FROM pulse.pipelines WHERE name = $1",
    1,
    {TEXTOID},
    nullptr};

pg::Statement add_columns = {
    "UPDATE pulse.pipelines SET columns = $2 WHERE name = $1", 2, {TEXTOID, TEXTARRAYOID}, nullptr};

decode::ColumnType
DecodeTypeOf(Oid type)
{
    switch (type) {
    case TEXTOID:
    case VARCHAROID:
    case BPCHAROID:
        return decode::ColumnType::kText;
    case INT2OID:
        return decode::ColumnType::kInt2;
    case INT4OID:
        return decode::ColumnType::kInt4;
    case INT8OID:
        return decode::ColumnType::kInt8;
    case FLOAT4OID:
        return decode::ColumnType::kFloat4;
    case FLOAT8OID:
        return decode::ColumnType::kFloat8;
    case NUMERICOID:
        return decode::ColumnType::kNumeric;
    case BOOLOID:
        return decode::ColumnType::kBool;
    case TIMESTAMPTZOID:
    case TIMESTAMPOID:
        return decode::ColumnType::kTimestamp;
    case DATEOID:
        return decode::ColumnType::kDate;
    case UUIDOID:
        return decode::ColumnType::kUuid;
    case JSONOID:
    case JSONBOID:
        return decode::ColumnType::kJson;
    default:
        return decode::ColumnType::kOther;
    }
}

char *
DefaultExpression(Relation relation, AttrNumber attribute)
{
    Node *expression = build_column_default(relation, attribute);
    if (expression == nullptr)
        return nullptr;
    char *deparsed = nullptr;
    TupleConstr *constraints = relation->rd_att->constr;
    for (int i = 0; constraints != nullptr && i < constraints->num_defval; i++) {
        if (constraints->defval[i].adnum != attribute)
            continue;
        Datum expression_text =
            DirectFunctionCall2(pg_get_expr, CStringGetTextDatum(constraints->defval[i].adbin),
                                ObjectIdGetDatum(RelationGetRelid(relation)));
        deparsed = MemoryContextStrdup(TopMemoryContext, TextDatumGetCString(expression_text));
    }
    return deparsed;
}

// The writer builds these itself, without the type's input function.
void
CheckMetadataType(const TargetColumn &column)
{
    bool is_right = true;
    switch (column.source) {
    case ColumnSource::kKafkaTopic:
        is_right = column.type_oid == TEXTOID || column.type_oid == VARCHAROID;
        break;
    case ColumnSource::kKafkaPartition:
    case ColumnSource::kKafkaOffset:
    case ColumnSource::kTopicEpoch:
        is_right =
            column.type_oid == INT2OID || column.type_oid == INT4OID || column.type_oid == INT8OID;
        break;
    case ColumnSource::kKafkaTimestamp:
    case ColumnSource::kIngestedAt:
        is_right = column.type_oid == TIMESTAMPTZOID || column.type_oid == TIMESTAMPOID;
        break;
    case ColumnSource::kKafkaKey:
        is_right = column.type_oid == BYTEAOID || column.type_oid == TEXTOID;
        break;
    case ColumnSource::kKafkaHeaders:
        is_right = column.type_oid == JSONBOID;
        break;
    case ColumnSource::kCell:
    case ColumnSource::kEventId:
        break;
    }
    if (!is_right)
        ereport(
            ERROR,
            (errcode(ERRCODE_DATATYPE_MISMATCH),
             errmsg("column \"%s\" has type %s, which can't take the record's metadata",
                    column.name, column.type_name),
             errhint("kafka_topic is text, kafka_partition, kafka_offset and topic_epoch are "
                     "integers, kafka_timestamp and ingested_at timestamptz, kafka_key bytea or "
                     "text, kafka_headers jsonb.")));
}

void
DescribeColumn(Relation relation, Form_pg_attribute attribute, TargetColumn *column)
{
    memset(static_cast<void *>(column), 0, sizeof(*column));
    pg::CopyText(column->name, sizeof(column->name), NameStr(attribute->attname));
    column->source = ColumnSource::kCell;
    column->cell_index = -1;
    column->type_oid = attribute->atttypid;
    column->type_modifier = attribute->atttypmod;
    pg::CopyText(column->type_name, sizeof(column->type_name),
                 format_type_extended(attribute->atttypid, attribute->atttypmod,
                                      FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
    column->decode_type = DecodeTypeOf(attribute->atttypid);
    if (attribute->atthasdef)
        column->default_expression = DefaultExpression(relation, attribute->attnum);
    column->has_default = column->default_expression != nullptr;
    column->is_required = attribute->attnotnull && !column->has_default;
    for (const Metadata &metadata : metadata_columns)
        if (strcmp(column->name, metadata.column) == 0)
            column->source = metadata.source;
    if (strcmp(column->name, "event_id") == 0 && column->decode_type == decode::ColumnType::kText) {
        column->source = ColumnSource::kEventId;
        column->is_required = false;
    }
}

// The columns that tell a duplicate: the primary key, else the first unique index that can.
void
DescribeConflictKey(Relation relation, Target *target)
{
    List *indexes = RelationGetIndexList(relation);
    Oid primary = RelationGetPrimaryKeyIndex(relation);
    Oid chosen = InvalidOid;
    ListCell *cell;
    foreach (cell, indexes) {
        Oid index = lfirst_oid(cell);
        HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
        if (!HeapTupleIsValid(tuple))
            continue;
        Form_pg_index form = reinterpret_cast<Form_pg_index>(GETSTRUCT(tuple));
        bool is_usable = form->indisunique && form->indimmediate && form->indisvalid &&
                         heap_attisnull(tuple, Anum_pg_index_indpred, nullptr) &&
                         heap_attisnull(tuple, Anum_pg_index_indexprs, nullptr);
        if (is_usable && (index == primary || !OidIsValid(chosen)))
            chosen = index;
        ReleaseSysCache(tuple);
    }
    if (!OidIsValid(chosen))
        return;
    StringInfoData columns;
    initStringInfo(&columns);
    HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(chosen));
    Form_pg_index form = reinterpret_cast<Form_pg_index>(GETSTRUCT(tuple));
    for (int i = 0; i < form->indnkeyatts; i++) {
        const char *name = get_attname(RelationGetRelid(relation), form->indkey.values[i], false);
        appendStringInfo(&columns, "%s%s", i == 0 ? "" : ", ", quote_identifier(name));
        for (int j = 0; j < target->column_count; j++)
            if (strcmp(target->columns[j].name, name) == 0)
                target->columns[j].max_bytes = kMaxKeyBytes;
    }
    ReleaseSysCache(tuple);
    if (columns.len >= static_cast<int>(sizeof(target->conflict_columns)))
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("the unique key of the target is too wide")));
    strcpy(target->conflict_columns, columns.data);
}

void
DescribePartitioning(Relation relation, Target *target)
{
    if (relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
        return;
    target->is_partitioned = true;
    PartitionKey key = RelationGetPartitionKey(relation);
    if (key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 ||
        key->partattrs[0] == 0 || key->parttypid[0] != TIMESTAMPTZOID)
        return;
    const char *name = get_attname(RelationGetRelid(relation), key->partattrs[0], false);
    for (int i = 0; i < target->column_count; i++) {
        TargetColumn *column = &target->columns[i];
        if (strcmp(column->name, name) == 0 && strcmp(name, "event_timestamp") == 0 &&
            column->is_required && column->source == ColumnSource::kCell && !column->has_default) {
            column->is_event_time = true;
            target->is_managed = true;
        }
    }
}

void
DescribeTriggers(Relation relation, Target *target)
{
    TriggerDesc *triggers = relation->trigdesc;
    target->has_row_triggers = triggers != nullptr && triggers->trig_insert_before_row;
    for (int i = 0; triggers != nullptr && i < triggers->numtriggers; i++)
        target->has_deferrable |= triggers->triggers[i].tgdeferrable;
    bool has_statement_triggers = triggers != nullptr && (triggers->trig_insert_before_statement ||
                                                          triggers->trig_insert_after_statement ||
                                                          triggers->trig_insert_new_table);
    // A row trigger may move the row to another partition: only the parent says so plainly.
    target->may_use_leaf = target->is_managed && !has_statement_triggers &&
                           !target->has_row_triggers && !relation->rd_rel->relrowsecurity;
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
            column->max_bytes = kMaxCounterKeyBytes;
        if (strcmp(column->name, "event_type") == 0 &&
            column->decode_type == decode::ColumnType::kText && column->is_required)
            target->event_type_cell = column->cell_index;
        if (strcmp(column->name, "event_timestamp") == 0 && column->type_oid == TIMESTAMPTZOID &&
            column->is_required) {
            target->event_time_cell = column->cell_index;
            column->is_event_time = true;
        }
        if (strcmp(column->name, "user_id") == 0 &&
            column->decode_type == decode::ColumnType::kText && column->is_required)
            target->user_id_cell = column->cell_index;
    }
}

TargetColumn *
FindColumn(Target *target, const char *name)
{
    for (int i = 0; i < target->column_count; i++)
        if (strcmp(target->columns[i].name, name) == 0)
            return &target->columns[i];
    return nullptr;
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
                                   definition.target)));
        if (pointer == nullptr || pointer[0] != '/' || strlen(pointer) >= kMaxPointerBytes)
            ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                            errmsg("mapping of column \"%s\" is not a JSON pointer", column_name),
                            errhint("Write it as /field or /object/field.")));
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
FreeDefaults(Target *target)
{
    for (int i = 0; i < target->column_count; i++)
        if (target->columns[i].default_expression != nullptr)
            pfree(target->columns[i].default_expression);
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
    FreeDefaults(target);
    memset(static_cast<void *>(target), 0, sizeof(*target));
    List *name = stringToQualifiedNameList(definition.target);
    Relation relation = relation_openrv(makeRangeVarFromNameList(name), AccessShareLock);
    if (relation->rd_rel->relkind != RELKIND_RELATION &&
        relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
        ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                        errmsg("%s is not a table", definition.target)));
    target->relation = RelationGetRelid(relation);
    target->owner = relation->rd_rel->relowner;
    strlcpy(target->qualified_name,
            quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
                                       RelationGetRelationName(relation)),
            sizeof(target->qualified_name));
    target->retained_from = definition.retained_from;
    strlcpy(target->partition_unit, definition.partition_unit, sizeof(target->partition_unit));
    if (strcmp(target->partition_unit, "none") == 0)
        strlcpy(target->partition_unit, "day", sizeof(target->partition_unit));

    TupleDesc descriptor = RelationGetDescr(relation);
    for (int i = 0; i < descriptor->natts; i++) {
        Form_pg_attribute attribute = TupleDescAttr(descriptor, i);
        if (attribute->attisdropped || attribute->attgenerated != '\0' ||
            attribute->attidentity != '\0')
            continue;
        if (target->column_count == kMaxColumns)
            ereport(ERROR, (errcode(ERRCODE_TOO_MANY_COLUMNS),
                            errmsg("%s has more than %d columns", definition.target, kMaxColumns)));
        DescribeColumn(relation, attribute, &target->columns[target->column_count++]);
    }
    pg::InSpi([&] {
        CheckExpectedColumns(definition, scope, target);
        ApplyMapping(definition, target);
        for (int i = 0; i < target->column_count; i++)
            CheckMetadataType(target->columns[i]);
    });
    DescribeConflictKey(relation, target);
    DescribePartitioning(relation, target);
    DescribeTriggers(relation, target);
    AssignCells(target);
    relation_close(relation, NoLock);
}

unsigned int
FindLeaf(const Target &target, int64_t timestamp)
{
    Relation relation = table_open(target.relation, AccessShareLock);
    PartitionDesc description = RelationGetPartitionDesc(relation, true);
    PartitionKey key = RelationGetPartitionKey(relation);
    Oid leaf = InvalidOid;
    if (description->nparts > 0) {
        Datum value = TimestampTzGetDatum(timestamp);
        bool is_equal = false;
        int bound = partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
                                                  description->boundinfo, 1, &value, &is_equal);
        int index = description->boundinfo->indexes[bound + 1];
        if (index >= 0)
            leaf = description->oids[index];
    }
    table_close(relation, NoLock);
    return leaf;
}

unsigned int
WriterRole(const PipelineDefinition &definition)
{
    const char *name = pg::guc_role[0] != '\0' ? pg::guc_role : definition.owner;
    return get_role_oid(name, false);
}

} // namespace pulse::store
