// Values of rows; see row.hpp.
#include "store/row.hpp"

#include "store/time.hpp"
#include "pg/spi.hpp"

namespace pulse::store {

namespace {

// Bytes of the row being built; text Datums point into it.
struct Scratch {
    char *data;
    Size size;
    Size used;
};

char *
TakeScratch(Scratch *scratch, Size bytes)
{
    scratch->used = MAXALIGN(scratch->used);
    char *result = scratch->data + scratch->used;
    scratch->used += bytes;
    Assert(scratch->used <= scratch->size);
    return result;
}

Datum
VarlenaDatum(Scratch *scratch, const char *bytes, Size length)
{
    if (length + VARHDRSZ_SHORT <= VARATT_SHORT_MAX) {
        char *value = TakeScratch(scratch, length + VARHDRSZ_SHORT);
        SET_VARSIZE_SHORT(value, length + VARHDRSZ_SHORT);
        memcpy(value + VARHDRSZ_SHORT, bytes, length);
        return PointerGetDatum(value);
    }
    char *value = TakeScratch(scratch, length + VARHDRSZ);
    SET_VARSIZE(value, length + VARHDRSZ);
    memcpy(value + VARHDRSZ, bytes, length);
    return PointerGetDatum(value);
}

char *
CString(Scratch *scratch, const char *bytes, Size length)
{
    char *copy = TakeScratch(scratch, length + 1);
    memcpy(copy, bytes, length);
    copy[length] = '\0';
    return copy;
}

struct ColumnPlan {
    FmgrInfo input; // for types whose text PostgreSQL reads itself
    Oid io_parameter;
    bool uses_input;
    void *domain_cache;
};

void
PlanColumns(const Target &target, ColumnPlan *plans)
{
    for (int i = 0; i < target.column_count; i++) {
        const TargetColumn &column = target.columns[i];
        bool is_bounded_text =
            column.decode_type == decode::ColumnType::kText &&
            (column.type_modifier >= 0 || column.is_domain || column.base_type_oid == BPCHAROID);
        plans[i].uses_input = is_bounded_text || column.is_array ||
                              column.decode_type == decode::ColumnType::kNumeric ||
                              column.decode_type == decode::ColumnType::kUuid ||
                              column.decode_type == decode::ColumnType::kOther ||
                              column.decode_type == decode::ColumnType::kJson;
        Oid input = InvalidOid;
        getTypeInputInfo(column.type_oid, &input, &plans[i].io_parameter);
        if (plans[i].uses_input)
            fmgr_info(input, &plans[i].input);
    }
}

Datum
IntegerDatum(const TargetColumn &column, int64_t value)
{
    switch (column.base_type_oid) {
    case INT2OID:
        return Int16GetDatum(static_cast<int16>(value));
    case INT4OID:
        return Int32GetDatum(static_cast<int32>(value));
    case INT8OID:
        return Int64GetDatum(value);
    default:
        ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
                        errmsg("column \"%s\" must be an integer", column.name)));
    }
}

// timestamp(p) is rounded here: nothing casts the value any more.
Datum
TimestampDatum(const TargetColumn &column, Timestamp value)
{
    if (column.base_type_modifier < 0)
        return TimestampGetDatum(value);
    return DirectFunctionCall2(timestamp_scale, TimestampGetDatum(value),
                               Int32GetDatum(column.base_type_modifier));
}

// Never earlier than the moment itself: what is older than pulse.ingest_horizon() is committed.
Timestamp
RoundedUp(const TargetColumn &column, Timestamp value)
{
    int64 unit = 1;
    for (int digits = column.time_precision; digits < MAX_TIMESTAMP_PRECISION; digits++)
        unit *= 10;
    return (value + unit - 1) / unit * unit;
}

Datum
TextDatum(const TargetColumn &column, ColumnPlan *plan, const char *bytes, Size length,
          Scratch *scratch)
{
    if (plan->uses_input)
        return InputFunctionCall(&plan->input, CString(scratch, bytes, length), plan->io_parameter,
                                 column.type_modifier);
    return VarlenaDatum(scratch, bytes, length);
}

Datum
CellDatum(const Cell &cell, const TargetColumn &column, ColumnPlan *plan, Scratch *scratch)
{
    switch (cell.kind) {
    case CellKind::kInteger:
        return IntegerDatum(column, cell.integer);
    case CellKind::kReal:
        return column.base_type_oid == FLOAT4OID ? Float4GetDatum(static_cast<float4>(cell.real))
                                                 : Float8GetDatum(cell.real);
    case CellKind::kBool:
        return BoolGetDatum(cell.integer != 0);
    case CellKind::kTimestamp:
        return TimestampDatum(column, FromUnixUs(cell.integer));
    case CellKind::kDate:
        return DateADTGetDatum(static_cast<DateADT>(cell.integer - kEpochDays));
    case CellKind::kText:
    case CellKind::kJson:
        return TextDatum(column, plan, cell.text, cell.length, scratch);
    case CellKind::kMissing:
    case CellKind::kNull:
        break;
    }
    elog(ERROR, "unexpected cell");
}

// ingest-<uuid>: what came by ingest() has no offset. The same whenever the row is built again.
int
WriteRandomId(const InsertJob &job, char *id, Size size)
{
    unsigned char bytes[kIdSeedBytes];
    memcpy(bytes, job.id_seed, sizeof(bytes));
    for (int i = 0; i < 4; i++)
        bytes[12 + i] ^= static_cast<unsigned char>(job.current_record >> (8 * i));
    bytes[6] = (bytes[6] & 0x0F) | 0x40; // version 4
    bytes[8] = (bytes[8] & 0x3F) | 0x80;
    int length = snprintf(id, size, "ingest-");
    for (int i = 0; i < kIdSeedBytes; i++)
        length += snprintf(id + length, size - length,
                           i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", bytes[i]);
    return length;
}

Datum
GeneratedId(const InsertJob &job, const ingest::Record &record, const TargetColumn &column,
            ColumnPlan *plan, Scratch *scratch)
{
    const OwnedPartition &partition = *job.partitions[record.range_index];
    const int64_t kafka_offset = record.kafka_offset;
    char id[pg::kTopicBytes + 64];
    int length =
        partition.topic[0] == '\0' ? WriteRandomId(job, id, sizeof(id))
        : partition.topic_epoch == 0
            ? snprintf(id, sizeof(id), "%s-%d-%lld", partition.topic, partition.partition,
                       static_cast<long long>(kafka_offset))
            : snprintf(id, sizeof(id), "%s.%d-%d-%lld", partition.topic, partition.topic_epoch,
                       partition.partition, static_cast<long long>(kafka_offset));
    return TextDatum(column, plan, id, static_cast<Size>(length), scratch);
}

// False = NULL.
bool
MetadataDatum(const InsertJob &job, const ingest::Record &record, const TargetColumn &column,
              Scratch *scratch, Datum *value)
{
    const OwnedPartition &partition = *job.partitions[record.range_index];
    if (partition.topic[0] == '\0' && column.source != ColumnSource::kIngestedAt)
        return false; // it came by ingest()
    switch (column.source) {
    case ColumnSource::kKafkaTopic:
        *value = VarlenaDatum(scratch, partition.topic, strlen(partition.topic));
        return true;
    case ColumnSource::kKafkaPartition:
        *value = IntegerDatum(column, partition.partition);
        return true;
    case ColumnSource::kKafkaOffset:
        *value = IntegerDatum(column, record.kafka_offset);
        return true;
    case ColumnSource::kTopicEpoch:
        *value = IntegerDatum(column, partition.topic_epoch);
        return true;
    case ColumnSource::kKafkaTimestamp:
        if (!IsStorableMs(record.timestamp_ms))
            return false;
        *value = TimestampDatum(column, FromUnixMs(record.timestamp_ms));
        return true;
    case ColumnSource::kIngestedAt:
        *value = TimestampDatum(column, RoundedUp(column, job.ingested_at));
        return true;
    case ColumnSource::kKafkaKey:
        if (record.key.data() == nullptr ||
            (column.type_oid != BYTEAOID &&
             !pg_verify_mbstr(PG_UTF8, record.key.data(), static_cast<int>(record.key.size()),
                              true)))
            return false;
        *value = VarlenaDatum(scratch, record.key.data(), record.key.size());
        return true;
    case ColumnSource::kKafkaHeaders:
        *value = HeadersDatum(record.headers);
        return record.headers.data() != nullptr;
    case ColumnSource::kCell:
    case ColumnSource::kEventId:
        break;
    }
    return false;
}

Size
ScratchBytes(const InsertJob &job, const ingest::Record &record)
{
    const Target &target = *job.target;
    Size bytes = record.key.size() + 4 * pg::kTopicBytes + 1024;
    for (int i = 0; i < target.column_count; i++) {
        bytes += VARHDRSZ + 2 * MAXIMUM_ALIGNOF;
        int cell = target.columns[i].cell_index;
        if (cell >= 0 && (record.cells[cell].kind == CellKind::kText ||
                          record.cells[cell].kind == CellKind::kJson))
            bytes += record.cells[cell].length;
    }
    return bytes;
}

// ---- headers ----

void
AppendHeaderPart(StringInfo json, const char *name, std::string_view bytes)
{
    if (bytes.data() == nullptr) {
        appendStringInfo(json, "\"%s\": null", name);
        return;
    }
    bool is_text = pg_verify_mbstr(PG_UTF8, bytes.data(), static_cast<int>(bytes.size()), true) &&
                   memchr(bytes.data(), '\0', bytes.size()) == nullptr;
    if (is_text) {
        appendStringInfo(json, "\"%s\": ", name);
        char *copy = pnstrdup(bytes.data(), bytes.size());
        escape_json(json, copy);
        pfree(copy);
        return;
    }
    appendStringInfo(json, "\"%s_hex\": \"", name);
    for (char byte : bytes)
        appendStringInfo(json, "%02x", static_cast<unsigned char>(byte));
    appendStringInfoChar(json, '"');
}

} // namespace

struct RowBuilder {
    const Target *target;
    ColumnPlan *plans;
    MemoryContext context;
    Scratch scratch;
};

RowBuilder *
NewRowBuilder(const Target &target)
{
    RowBuilder *builder = static_cast<RowBuilder *>(palloc0(sizeof(RowBuilder)));
    builder->target = &target;
    builder->context = CurrentMemoryContext;
    builder->plans =
        static_cast<ColumnPlan *>(palloc0(sizeof(ColumnPlan) * (target.column_count + 1)));
    PlanColumns(target, builder->plans);
    return builder;
}

void
ReserveRow(RowBuilder *builder, const InsertJob &job, const ingest::Record &record)
{
    Scratch *scratch = &builder->scratch;
    Size needed = ScratchBytes(job, record);
    if (needed <= scratch->size)
        return;
    scratch->size = needed * 2;
    if (scratch->data != nullptr)
        pfree(scratch->data);
    scratch->data = static_cast<char *>(MemoryContextAlloc(builder->context, scratch->size));
}

void
BuildRow(RowBuilder *builder, InsertJob *job, const ingest::Record &record, Datum *values,
         bool *nulls)
{
    const Target &target = *builder->target;
    Scratch *scratch = &builder->scratch;
    scratch->used = 0;
    for (int i = 0; i < target.column_count; i++) {
        const TargetColumn &column = target.columns[i];
        ColumnPlan *plan = &builder->plans[i];
        nulls[i] = false;
        if (column.cell_index < 0) {
            nulls[i] = !MetadataDatum(*job, record, column, scratch, &values[i]);
            continue;
        }
        job->current_column = i;
        const Cell &cell = record.cells[column.cell_index];
        if (cell.kind != CellKind::kMissing && cell.kind != CellKind::kNull)
            values[i] = CellDatum(cell, column, plan, scratch);
        else if (column.source == ColumnSource::kEventId)
            values[i] = GeneratedId(*job, record, column, plan, scratch);
        else
            nulls[i] = true;
        // Input functions of domains check values; NULL and what is built here they don't see.
        if (column.is_domain && (nulls[i] ? !column.has_default : !plan->uses_input))
            domain_check(values[i], nulls[i], column.type_oid, &plan->domain_cache,
                         builder->context);
    }
    job->current_column = kNoColumn;
}

uintptr_t
HeadersDatum(std::string_view headers)
{
    if (headers.data() == nullptr)
        return 0;
    StringInfoData json;
    initStringInfo(&json);
    appendStringInfoChar(&json, '[');
    bool is_first = true;
    ingest::VisitHeaders(headers, [&](std::string_view key, std::string_view value) {
        appendStringInfoString(&json, is_first ? "{" : ", {");
        is_first = false;
        AppendHeaderPart(&json, "key", key);
        appendStringInfoString(&json, ", ");
        AppendHeaderPart(&json, "value", value);
        appendStringInfoChar(&json, '}');
    });
    appendStringInfoChar(&json, ']');
    return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

} // namespace pulse::store
