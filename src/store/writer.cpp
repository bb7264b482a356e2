#include "store/writer.hpp"

#include "base/fault.hpp"
#include "pg/spi.hpp"
#include "store/time.hpp"

namespace pulse::store {

namespace {

InsertJob *current_job = nullptr; // of the INSERT under way in this process

// ---- the statement ----

constexpr int kMaxPlans = 8; // leaves in use at a time

struct InsertPlan {
    Oid relation;
    bool expects_duplicates;
    SPIPlanPtr plan;
    uint64 used_at;
};

InsertPlan insert_plans[kMaxPlans];
uint64 insert_clock = 0;

char *
InsertSql(const Target &target, Oid relation, bool expects_duplicates)
{
    StringInfoData columns, values, definitions, sql;
    initStringInfo(&columns);
    initStringInfo(&values);
    initStringInfo(&definitions);
    initStringInfo(&sql);
    for (int i = 0; i < target.column_count; i++) {
        const TargetColumn &column = target.columns[i];
        const char *separator = i == 0 ? "" : ", ";
        const char *name = quote_identifier(column.name);
        appendStringInfo(&columns, "%s%s", separator, name);
        if (column.has_default)
            appendStringInfo(&values, "%sCOALESCE(b.%s, %s)", separator, name,
                             column.default_expression);
        else
            appendStringInfo(&values, "%sb.%s", separator, name);
        appendStringInfo(&definitions, "%s%s %s", separator, name, column.type_name);
    }
    const char *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)),
                                                   get_rel_name(relation));
    // _at_row tells which record is being evaluated, so the one that PostgreSQL refuses is known.
    appendStringInfo(&sql,
                     "INSERT INTO %s (%s) SELECT %s FROM pulse._batch() AS b(%s, \"~record\" int4)"
                     " WHERE pulse._at_record(b.\"~record\")",
                     table, columns.data, values.data, definitions.data);
    if (expects_duplicates && target.conflict_columns[0] != '\0')
        appendStringInfo(&sql, " ON CONFLICT (%s) DO NOTHING", target.conflict_columns);
    if (target.has_row_triggers && target.event_type_cell >= 0 && target.event_time_cell >= 0)
        appendStringInfo(&sql, " RETURNING event_timestamp, event_type%s",
                         target.user_id_cell >= 0 ? ", user_id" : "");
    else
        appendStringInfoString(&sql, " RETURNING NULL");
    return sql.data;
}

SPIPlanPtr
PlanFor(const Target &target, Oid relation, bool expects_duplicates)
{
    InsertPlan *oldest = &insert_plans[0];
    for (InsertPlan &entry : insert_plans) {
        if (entry.plan != nullptr && entry.relation == relation &&
            entry.expects_duplicates == expects_duplicates) {
            entry.used_at = ++insert_clock;
            return entry.plan;
        }
        if (entry.used_at < oldest->used_at)
            oldest = &entry;
    }
    if (oldest->plan != nullptr) {
        SPI_freeplan(oldest->plan);
        *oldest = {};
    }
    const char *sql = InsertSql(target, relation, expects_duplicates);
    SPIPlanPtr plan = SPI_prepare(sql, 0, nullptr);
    if (plan == nullptr)
        elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
    SPI_keepplan(plan);
    *oldest = {relation, expects_duplicates, plan, ++insert_clock};
    return plan;
}

void
SetCurrent(InsertJob *job, uint32_t record)
{
    job->current_record = record;
    if (job->mark == nullptr)
        return;
    if (record == kNoRecord) {
        job->mark->Clear();
        return;
    }
    const ingest::Record &current = job->batch->records[record];
    const OwnedPartition &partition = *job->partitions[current.range_index];
    job->mark->Set(partition.topic, partition.partition, current.kafka_offset);
}

// ---- what RETURNING tells: this record was inserted ----

char *
CopyText(Datum value, int32_t *length)
{
    text *source = DatumGetTextPP(value);
    *length = static_cast<int32_t>(VARSIZE_ANY_EXHDR(source));
    char *copy = static_cast<char *>(MemoryContextAlloc(TopTransactionContext, *length + 1));
    memcpy(copy, VARDATA_ANY(source), *length);
    return copy;
}

bool
ReceiveInserted(TupleTableSlot *slot, DestReceiver *)
{
    InsertJob *job = current_job;
    // User code of the target may call _at_record() too.
    if (job->current_record < job->slice.begin || job->current_record >= job->slice.end)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("a row was inserted that is not of the batch")));
    job->outcomes[job->current_record] = Outcome::kInserted;
    if (slot->tts_tupleDescriptor->natts < 2)
        return true;
    slot_getallattrs(slot);
    if (job->stored_event_count == job->stored_event_capacity) {
        job->stored_event_capacity = Max(1024, job->stored_event_capacity * 2);
        Size bytes = sizeof(StoredEvent) * job->stored_event_capacity;
        job->stored_events = static_cast<StoredEvent *>(
            job->stored_events == nullptr ? MemoryContextAlloc(TopTransactionContext, bytes)
                                          : repalloc(job->stored_events, bytes));
    }
    StoredEvent *event = &job->stored_events[job->stored_event_count++];
    *event = {};
    event->event_timestamp = DatumGetTimestampTz(slot->tts_values[0]);
    event->event_type = CopyText(slot->tts_values[1], &event->event_type_bytes);
    if (slot->tts_tupleDescriptor->natts > 2)
        event->user_id = CopyText(slot->tts_values[2], &event->user_id_bytes);
    return true;
}

void
StartReceiver(DestReceiver *, int, TupleDesc)
{
}

void
EndReceiver(DestReceiver *)
{
}

DestReceiver inserted_receiver = {ReceiveInserted, StartReceiver, EndReceiver, EndReceiver,
                                  DestNone};

// ---- one row as Datums ----

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
};

void
PlanColumns(const Target &target, ColumnPlan *plans)
{
    for (int i = 0; i < target.column_count; i++) {
        const TargetColumn &column = target.columns[i];
        bool is_bounded_text = column.decode_type == decode::ColumnType::kText &&
                               (column.type_modifier >= 0 || column.type_oid == BPCHAROID);
        plans[i].uses_input = is_bounded_text ||
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
    switch (column.type_oid) {
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

Datum
CellDatum(const Cell &cell, const TargetColumn &column, ColumnPlan *plan, Scratch *scratch)
{
    switch (cell.kind) {
    case CellKind::kInteger:
        return IntegerDatum(column, cell.integer);
    case CellKind::kReal:
        return column.type_oid == FLOAT4OID ? Float4GetDatum(static_cast<float4>(cell.real))
                                            : Float8GetDatum(cell.real);
    case CellKind::kBool:
        return BoolGetDatum(cell.integer != 0);
    case CellKind::kTimestamp:
        return TimestampTzGetDatum(FromUnixUs(cell.integer));
    case CellKind::kDate:
        return DateADTGetDatum(static_cast<DateADT>(cell.integer - kEpochDays));
    case CellKind::kText:
    case CellKind::kJson:
        if (plan->uses_input)
            return InputFunctionCall(&plan->input, CString(scratch, cell.text, cell.length),
                                     plan->io_parameter, column.type_modifier);
        return VarlenaDatum(scratch, cell.text, cell.length);
    case CellKind::kMissing:
    case CellKind::kNull:
        break;
    }
    elog(ERROR, "unexpected cell");
}

Datum
GeneratedId(const OwnedPartition &partition, int64_t kafka_offset, Scratch *scratch)
{
    char id[pg::kTopicBytes + 64];
    int length =
        partition.topic_epoch == 0
            ? snprintf(id, sizeof(id), "%s-%d-%lld", partition.topic, partition.partition,
                       static_cast<long long>(kafka_offset))
            : snprintf(id, sizeof(id), "%s.%d-%d-%lld", partition.topic, partition.topic_epoch,
                       partition.partition, static_cast<long long>(kafka_offset));
    return VarlenaDatum(scratch, id, static_cast<Size>(length));
}

// False = NULL.
bool
MetadataDatum(const InsertJob &job, const ingest::Record &record, const TargetColumn &column,
              Scratch *scratch, Datum *value)
{
    const OwnedPartition &partition = *job.partitions[record.range_index];
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
        *value = TimestampTzGetDatum(FromUnixMs(record.timestamp_ms));
        return IsStorableMs(record.timestamp_ms);
    case ColumnSource::kIngestedAt:
        *value = TimestampTzGetDatum(job.ingested_at);
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

void
BuildRow(const InsertJob &job, const ingest::Record &record, ColumnPlan *plans, Scratch *scratch,
         Datum *values, bool *nulls)
{
    const Target &target = *job.target;
    scratch->used = 0;
    for (int i = 0; i < target.column_count; i++) {
        const TargetColumn &column = target.columns[i];
        nulls[i] = false;
        if (column.cell_index < 0) {
            nulls[i] = !MetadataDatum(job, record, column, scratch, &values[i]);
            continue;
        }
        const Cell &cell = record.cells[column.cell_index];
        if (cell.kind != CellKind::kMissing && cell.kind != CellKind::kNull)
            values[i] = CellDatum(cell, column, &plans[i], scratch);
        else if (column.source == ColumnSource::kEventId)
            values[i] =
                GeneratedId(*job.partitions[record.range_index], record.kafka_offset, scratch);
        else
            nulls[i] = true;
    }
}

Size
ScratchBytes(const InsertJob &job, const ingest::Record &record)
{
    const Target &target = *job.target;
    Size bytes = record.key.size() + 3 * pg::kTopicBytes + 1024;
    for (int i = 0; i < target.column_count; i++) {
        bytes += VARHDRSZ + 2 * MAXIMUM_ALIGNOF;
        int cell = target.columns[i].cell_index;
        if (cell >= 0 && (record.cells[cell].kind == CellKind::kText ||
                          record.cells[cell].kind == CellKind::kJson))
            bytes += record.cells[cell].length;
    }
    return bytes;
}

constexpr Size kRowContextBytes = 256 * 1024; // reset when it needs more

void
FillStore(InsertJob *job, Tuplestorestate *store, TupleDesc descriptor)
{
    const Target &target = *job->target;
    bool is_expected = descriptor->natts == target.column_count + 1;
    for (int i = 0; is_expected && i <= target.column_count; i++)
        is_expected =
            TupleDescAttr(descriptor, i)->atttypid ==
            (i < target.column_count ? target.columns[i].type_oid : static_cast<Oid>(INT4OID));
    if (!is_expected)
        elog(ERROR, "batch has %d columns, the query wants %d", target.column_count + 1,
             descriptor->natts);
    ColumnPlan *plans =
        static_cast<ColumnPlan *>(palloc0(sizeof(ColumnPlan) * (target.column_count + 1)));
    PlanColumns(target, plans);
    Datum *values = static_cast<Datum *>(palloc0(sizeof(Datum) * descriptor->natts));
    bool *nulls = static_cast<bool *>(palloc0(sizeof(bool) * descriptor->natts));
    Scratch scratch = {nullptr, 0, 0};
    MemoryContext row_context =
        AllocSetContextCreate(CurrentMemoryContext, "pulse row", ALLOCSET_DEFAULT_SIZES);
    MemoryContext outer = CurrentMemoryContext;

    for (uint32_t i = job->slice.begin; i < job->slice.end; i++) {
        if (job->outcomes[i] != Outcome::kPending)
            continue;
        SetCurrent(job, i);
        const ingest::Record &record = job->batch->records[i];
        Size needed = ScratchBytes(*job, record);
        if (needed > scratch.size) {
            scratch.size = needed * 2;
            if (scratch.data != nullptr)
                pfree(scratch.data);
            scratch.data = static_cast<char *>(palloc(scratch.size));
        }
        MemoryContextSwitchTo(row_context);
        BuildRow(*job, record, plans, &scratch, values, nulls);
        MemoryContextSwitchTo(outer);
        values[target.column_count] = Int32GetDatum(static_cast<int32>(i));
        tuplestore_putvalues(store, descriptor, values, nulls);
        if (MemoryContextMemAllocated(row_context, false) > kRowContextBytes)
            MemoryContextReset(row_context);
        CHECK_FOR_INTERRUPTS();
    }
    // A last row that _at_record() drops: an error after it belongs to no record.
    memset(nulls, true, sizeof(bool) * target.column_count);
    values[target.column_count] = Int32GetDatum(-1);
    tuplestore_putvalues(store, descriptor, values, nulls);
    SetCurrent(job, kNoRecord);
    MemoryContextDelete(row_context);
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

void
InsertRows(InsertJob *job)
{
    Oid caller = InvalidOid;
    int security = 0;
    GetUserIdAndSecContext(&caller, &security);
    SetUserIdAndSecContext(job->role,
                           security | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
    current_job = job;
    SetCurrent(job, kNoRecord);
    pg::InSpi([&] {
        Oid relation = OidIsValid(job->leaf) ? job->leaf : job->target->relation;
        SPIExecuteOptions options = {};
        options.dest = &inserted_receiver;
        int result = SPI_execute_plan_extended(
            PlanFor(*job->target, relation, job->expects_duplicates), &options);
        if (result < 0)
            elog(ERROR, "could not insert: %s", SPI_result_code_string(result));
    });
    current_job = nullptr;
    SetUserIdAndSecContext(caller, security);

    for (uint32_t i = job->slice.begin; i < job->slice.end; i++)
        if (job->outcomes[i] == Outcome::kPending)
            job->outcomes[i] = Outcome::kDuplicate;
}

void
ForgetInsertPlans()
{
    for (InsertPlan &entry : insert_plans) {
        if (entry.plan != nullptr)
            SPI_freeplan(entry.plan);
        entry = {};
    }
}

void
ForgetInsertJob()
{
    current_job = nullptr;
}

InsertJob *
CurrentInsertJob()
{
    return current_job;
}

} // namespace pulse::store

using pulse::store::CurrentInsertJob;

// pulse._batch(): the pending records of the slice being written, one row each.
PULSE_SQL_FUNCTION(pulse_batch)
{
    pulse::store::InsertJob *job = CurrentInsertJob();
    ReturnSetInfo *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
    if (job == nullptr || result == nullptr || !IsA(result, ReturnSetInfo) ||
        (result->allowedModes & SFRM_Materialize) == 0 || result->expectedDesc == nullptr)
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("pulse._batch() is for pulse's own statements")));
    MemoryContext outer = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
    // In memory whatever work_mem is: batch_max_bytes bounds it.
    Tuplestorestate *store = tuplestore_begin_heap(false, false, 1024 * 1024);
    result->returnMode = SFRM_Materialize;
    result->setResult = store;
    result->setDesc = CreateTupleDescCopy(result->expectedDesc);
    MemoryContextSwitchTo(outer);
    pulse::store::FillStore(job, store, result->setDesc);
    return static_cast<Datum>(0);
}

// pulse._at_record(int): notes which record the executor works on; false for the end marker.
PULSE_SQL_FUNCTION(pulse_at_record)
{
    pulse::store::InsertJob *job = CurrentInsertJob();
    int32 record = PG_GETARG_INT32(0);
    if (job == nullptr)
        PG_RETURN_BOOL(false);
    if (record >= 0 && (static_cast<uint32_t>(record) < job->slice.begin ||
                        static_cast<uint32_t>(record) >= job->slice.end))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("record %d is not of the batch", record)));
    pulse::store::SetCurrent(job,
                             record < 0 ? pulse::store::kNoRecord : static_cast<uint32_t>(record));
#ifdef PULSE_TESTING
    if (record >= 0 &&
        job->current_record - job->slice.begin >= (job->slice.end - job->slice.begin) / 2)
        pulse::pg::CallCpp([] { PULSE_FAULT("after_half_insert"); });
#endif
    PG_RETURN_BOOL(record >= 0);
}
