// Columns and their types; see columns.hpp.
#include "store/columns.hpp"

#include "pg/spi.hpp"

namespace pulse::store {

namespace {

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

// Of the column, or of its domain; null without one.
char *
DefaultExpression(Relation relation, AttrNumber attribute)
{
    Node *expression = build_column_default(relation, attribute);
    return expression == nullptr
               ? nullptr
               : MemoryContextStrdup(TopMemoryContext,
                                     deparse_expression(expression, NIL, false, false));
}

// The writer builds these itself, without the type's input function.
bool
TakesMetadata(const TargetColumn &column)
{
    switch (column.source) {
    case ColumnSource::kKafkaTopic:
        return column.type_oid == TEXTOID ||
               (column.type_oid == VARCHAROID && column.type_modifier < 0);
    case ColumnSource::kKafkaPartition:
    case ColumnSource::kTopicEpoch:
        return column.type_oid == INT4OID || column.type_oid == INT8OID;
    case ColumnSource::kKafkaOffset:
        return column.type_oid == INT8OID;
    case ColumnSource::kKafkaTimestamp: // compared with the record's own, which has milliseconds
        return (column.type_oid == TIMESTAMPTZOID || column.type_oid == TIMESTAMPOID) &&
               (column.type_modifier < 0 || column.type_modifier >= 3);
    case ColumnSource::kIngestedAt:
        return column.type_oid == TIMESTAMPTZOID || column.type_oid == TIMESTAMPOID;
    case ColumnSource::kKafkaKey:
        return column.type_oid == BYTEAOID || column.type_oid == TEXTOID;
    case ColumnSource::kKafkaHeaders:
        return column.type_oid == JSONBOID;
    case ColumnSource::kCell:
    case ColumnSource::kEventId:
        break;
    }
    return true;
}

// numeric(p, s) has p - s digits before the point; its modifier is laid out as in numeric.c.
int32_t
IntegerDigits(int32 type_modifier)
{
    if (type_modifier < VARHDRSZ)
        return decode::kAnyDigits;
    int32 packed = type_modifier - VARHDRSZ;
    int32 scale = ((packed & 0x7ff) ^ 1024) - 1024;
    return ((packed >> 16) & 0xffff) - scale;
}

bool
IsNotNullDomain(Oid type)
{
    bool is_not_null = false;
    while (get_typtype(type) == TYPTYPE_DOMAIN && !is_not_null) {
        HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
        if (!HeapTupleIsValid(tuple))
            elog(ERROR, "type %u is gone", type);
        Form_pg_type form = reinterpret_cast<Form_pg_type>(GETSTRUCT(tuple));
        is_not_null = form->typnotnull;
        type = form->typbasetype;
        ReleaseSysCache(tuple);
    }
    return is_not_null;
}

// Of arrays of that type: a comma but for box.
char
DelimiterOf(Oid element)
{
    HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(element));
    if (!HeapTupleIsValid(tuple))
        elog(ERROR, "type %u is gone", element);
    char delimiter = reinterpret_cast<Form_pg_type>(GETSTRUCT(tuple))->typdelim;
    ReleaseSysCache(tuple);
    return delimiter;
}

// What decode checks before PostgreSQL does: a reject costs less than a rolled back statement, and
// names the value.
void
DescribeType(TargetColumn *column)
{
    int32 modifier = column->type_modifier;
    Oid type = getBaseTypeAndTypmod(column->type_oid, &modifier);
    column->is_domain = type != column->type_oid;
    Oid element = get_element_type(type);
    column->is_array = OidIsValid(element);
    if (column->is_array) {
        column->delimiter = DelimiterOf(element);
        type = getBaseTypeAndTypmod(element, &modifier);
    }
    column->base_type_oid = type;
    column->base_type_modifier = modifier;
    column->decode_type = DecodeTypeOf(type);
    if (type == VARCHAROID || type == BPCHAROID)
        column->max_characters =
            modifier < VARHDRSZ ? 0 : static_cast<uint32_t>(modifier - VARHDRSZ);
    column->is_padded = type == BPCHAROID;
    bool is_time = (type == TIMESTAMPTZOID || type == TIMESTAMPOID) && !column->is_array;
    column->time_precision = is_time && modifier >= 0 ? modifier : MAX_TIMESTAMP_PRECISION;
    if (type == NAMEOID || type == CHAROID) // their input functions cut off the rest in silence
        LimitBytes(column, type == NAMEOID ? NAMEDATALEN - 1 : 1);
    column->max_integer_digits = type == NUMERICOID ? IntegerDigits(modifier) : decode::kAnyDigits;
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
    DescribeType(column);
    column->default_expression = DefaultExpression(relation, attribute->attnum);
    column->has_default = column->default_expression != nullptr;
    column->is_not_null = attribute->attnotnull;
    column->is_required =
        (attribute->attnotnull || IsNotNullDomain(attribute->atttypid)) && !column->has_default;
    for (const Metadata &metadata : metadata_columns)
        if (strcmp(column->name, metadata.column) == 0)
            column->source = metadata.source;
    if (strcmp(column->name, "event_id") == 0 && !column->is_array &&
        column->decode_type == decode::ColumnType::kText) {
        column->source = ColumnSource::kEventId;
        column->is_required = false;
    }
}

} // namespace

void
DescribeColumns(RelationData *relation, Target *target)
{
    TupleDesc descriptor = RelationGetDescr(relation);
    for (int i = 0; i < descriptor->natts; i++) {
        Form_pg_attribute attribute = TupleDescAttr(descriptor, i);
        if (attribute->attisdropped || attribute->attgenerated != '\0' ||
            attribute->attidentity != '\0')
            continue;
        if (target->column_count == kMaxColumns)
            ereport(ERROR,
                    (errcode(ERRCODE_TOO_MANY_COLUMNS),
                     errmsg("%s has more than %d columns", target->qualified_name, kMaxColumns),
                     errhint("Leave the rest to a jsonb column named properties.")));
        DescribeColumn(relation, attribute, &target->columns[target->column_count++]);
    }
}

void
CheckMetadataType(const TargetColumn &column)
{
    if (!TakesMetadata(column))
        ereport(
            ERROR,
            (errcode(ERRCODE_DATATYPE_MISMATCH),
             errmsg("column \"%s\" has type %s, which can't take the record's metadata",
                    column.name, column.type_name),
             errhint(
                 "kafka_topic is text, kafka_offset bigint, kafka_partition and topic_epoch int "
                 "or bigint, kafka_timestamp timestamptz (of milliseconds at least), "
                 "ingested_at timestamptz, kafka_key bytea or text, kafka_headers jsonb.")));
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
LimitBytes(TargetColumn *column, uint32_t max_bytes)
{
    if (column->max_bytes == 0 || column->max_bytes > max_bytes)
        column->max_bytes = max_bytes;
}

void
FreeTexts(Target *target)
{
    for (int i = 0; i < target->column_count; i++)
        if (target->columns[i].default_expression != nullptr)
            pfree(target->columns[i].default_expression);
    if (target->schema != nullptr)
        pfree(target->schema);
    for (int i = 0; i < target->conflict_key_count; i++)
        if (target->conflict_keys[i].generated != nullptr)
            pfree(target->conflict_keys[i].generated);
}

} // namespace pulse::store
