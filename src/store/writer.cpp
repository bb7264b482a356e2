#include "store/writer.hpp"

#include "base/fault.hpp"
#include "store/row.hpp"
#include "store/stage_plans.hpp"
#include "store/stages.hpp"
#include "pg/spi.hpp"

namespace pulse::store {

namespace {

InsertJob *current_job = nullptr; // of the INSERT under way in this process

// ---- the statement ----

constexpr int kMaxPlans = 8; // leaves in use at a time

// What a plan does with the batch.
enum class Use : uint8_t {
    kInsert,           // a duplicate fails it with 23505
    kInsertNew,        // ON CONFLICT DO NOTHING
    kSelectDuplicates, // the records whose key is in the table
};

struct InsertPlan {
    Oid relation;
    Use use;
    SPIPlanPtr plan;
    uint64 used_at;
};

InsertPlan insert_plans[kMaxPlans];
uint64 insert_clock = 0;

// What goes into the column; missing and null fields take the default.
const char *
ValueSql(const TargetColumn &column)
{
    const char *name = quote_identifier(column.name);
    return column.has_default ? psprintf("COALESCE(b.%s, %s)", name, column.default_expression)
                              : psprintf("b.%s", name);
}

const char *
TableSql(Oid relation)
{
    return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)),
                                      get_rel_name(relation));
}

char *
DuplicatesSql(const Target &target, Oid relation)
{
    StringInfoData sql;
    initStringInfo(&sql);
    appendStringInfoString(&sql, "SELECT b.\"~record\" FROM (SELECT b.\"~record\"");
    for (int i = 0; i < target.column_count; i++)
        if (target.columns[i].is_of_key) // as it is in the table
            appendStringInfo(&sql, ", CAST(%s AS %s) AS %s", ValueSql(target.columns[i]),
                             target.columns[i].type_name, quote_identifier(target.columns[i].name));
    appendStringInfo(&sql,
                     " FROM pulse._batch() AS b(%s)) b WHERE b.\"~record\" >= 0"
                     " AND EXISTS (SELECT FROM %s t WHERE true",
                     BatchDefinitionsSql(target), TableSql(relation));
    for (int i = 0; i < target.conflict_key_count; i++) {
        const ConflictKey &key = target.conflict_keys[i];
        const char *name = quote_identifier(key.name);
        const char *value =
            key.generated != nullptr ? psprintf("(%s)", key.generated) : psprintf("b.%s", name);
        appendStringInfo(&sql, " AND (t.%s %s %s", name, key.equality, value);
        if (!target.has_distinct_nulls)
            appendStringInfo(&sql, " OR t.%s IS NULL AND %s IS NULL", name, value);
        appendStringInfoChar(&sql, ')');
    }
    appendStringInfoChar(&sql, ')');
    return sql.data;
}

char *
InsertSql(const Target &target, Oid relation, bool expects_duplicates)
{
    StringInfoData columns, values, sql;
    initStringInfo(&columns);
    initStringInfo(&values);
    initStringInfo(&sql);
    for (int i = 0; i < target.column_count; i++) {
        const TargetColumn &column = target.columns[i];
        const char *separator = i == 0 ? "" : ", ";
        appendStringInfo(&columns, "%s%s", separator, quote_identifier(column.name));
        appendStringInfo(&values, "%s%s", separator, ValueSql(column));
    }
    // _at_record() tells which record is being evaluated, so the one that PostgreSQL refuses is
    // known.
    appendStringInfo(&sql,
                     "INSERT INTO %s (%s) SELECT %s FROM pulse._batch() AS b(%s)"
                     " WHERE pulse._at_record(b.\"~record\")",
                     TableSql(relation), columns.data, values.data, BatchDefinitionsSql(target));
    if (expects_duplicates && target.conflict_columns[0] != '\0')
        appendStringInfo(&sql, " ON CONFLICT (%s) DO NOTHING", target.conflict_columns);
    if (target.IsCountedAsStored() && target.event_type_cell >= 0 && target.event_time_cell >= 0)
        appendStringInfo(&sql, " RETURNING event_timestamp, event_type::pg_catalog.text%s",
                         target.user_id_cell >= 0 ? ", user_id::pg_catalog.text" : "");
    else
        appendStringInfoString(&sql, " RETURNING NULL");
    return sql.data;
}

SPIPlanPtr
PlanFor(const Target &target, Oid relation, Use use)
{
    InsertPlan *oldest = &insert_plans[0];
    for (InsertPlan &entry : insert_plans) {
        if (entry.plan != nullptr && entry.relation == relation && entry.use == use) {
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
    const char *sql = use == Use::kSelectDuplicates
                          ? DuplicatesSql(target, relation)
                          : InsertSql(target, relation, use == Use::kInsertNew);
    SPIPlanPtr plan = SPI_prepare(sql, 0, nullptr);
    if (plan == nullptr)
        elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
    SPI_keepplan(plan);
    *oldest = {relation, use, plan, ++insert_clock};
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
    if (*length > static_cast<int32_t>(kMaxCounterKeyBytes))
        ereport(ERROR,
                (errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
                 errmsg("event_type or user_id is too long to be counted"),
                 errdetail("It has %d bytes, the limit is %u.", *length, kMaxCounterKeyBytes)));
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
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("a row was inserted that is not of the batch"),
                        errhint("pulse._at_record() and pulse._batch() are for pulse's own "
                                "statements: look for them in the triggers and defaults of %s.",
                                job->target->qualified_name)));
    if (job->outcomes[job->current_record] != Outcome::kPending)
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("a record of the batch was inserted twice"),
                        errhint("pulse._at_record() and pulse._batch() are for pulse's own "
                                "statements: look for them in the triggers and defaults of %s.",
                                job->target->qualified_name)));
    job->outcomes[job->current_record] = Outcome::kInserted;
    if (slot->tts_tupleDescriptor->natts < 2)
        return true;
    slot_getallattrs(slot);
    for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
        if (slot->tts_isnull[i])
            ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
                            errmsg("column \"%s\" of an event that is counted is null",
                                   NameStr(TupleDescAttr(slot->tts_tupleDescriptor, i)->attname))));
    if (job->stored_event_count == job->stored_event_capacity) {
        job->stored_event_capacity =
            Max(static_cast<int32_t>(Min(1024u, job->slice.end - job->slice.begin)),
                job->stored_event_capacity * 2);
        Size bytes = sizeof(StoredEvent) * job->stored_event_capacity;
        job->stored_events = static_cast<StoredEvent *>(
            job->stored_events == nullptr ? MemoryContextAlloc(TopTransactionContext, bytes)
                                          : repalloc(job->stored_events, bytes));
    }
    StoredEvent *event = &job->stored_events[job->stored_event_count++];
    *event = {};
    event->event_timestamp = DatumGetTimestampTz(slot->tts_values[0]);
    if (TIMESTAMP_NOT_FINITE(event->event_timestamp))
        ereport(ERROR, (errcode(ERRCODE_DATETIME_FIELD_OVERFLOW),
                        errmsg("event_timestamp of an event that is counted is infinite")));
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

bool
ReceiveDuplicate(TupleTableSlot *slot, DestReceiver *)
{
    bool is_null = false;
    int32 record = DatumGetInt32(slot_getattr(slot, 1, &is_null));
    current_job->outcomes[record] = Outcome::kDuplicate;
    return true;
}

DestReceiver inserted_receiver = {ReceiveInserted, StartReceiver, EndReceiver, EndReceiver,
                                  DestNone};
DestReceiver duplicate_receiver = {ReceiveDuplicate, StartReceiver, EndReceiver, EndReceiver,
                                   DestNone};

// ---- the batch as rows ----

constexpr Size kRowContextBytes = 256 * 1024; // reset when it needs more

void
FillStore(InsertJob *job, Tuplestorestate *store, TupleDesc descriptor)
{
    const Target &target = *job->target;
    bool is_expected = descriptor->natts == target.column_count + 1;
    for (int i = 0; is_expected && i <= target.column_count; i++) {
        const Oid wanted = i < target.column_count ? target.columns[i].type_oid : INT4OID;
        const Oid found = TupleDescAttr(descriptor, i)->atttypid;
        is_expected = found == wanted || found == getBaseType(wanted);
    }
    if (!is_expected)
        ereport(ERROR,
                (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                 errmsg("pulse._batch() has %d columns of other types", target.column_count + 1),
                 errhint("It is for pulse's own statements: look for it in the triggers and "
                         "defaults of %s.",
                         target.qualified_name)));
    RowBuilder *builder = NewRowBuilder(target);
    Datum *values = static_cast<Datum *>(palloc0(sizeof(Datum) * descriptor->natts));
    bool *nulls = static_cast<bool *>(palloc0(sizeof(bool) * descriptor->natts));
    MemoryContext row_context =
        AllocSetContextCreate(CurrentMemoryContext, "pulse row", ALLOCSET_DEFAULT_SIZES);
    MemoryContext outer = CurrentMemoryContext;

    const bool is_behind = job->stage != nullptr && job->stage->IsSink();
    for (uint32_t i = job->slice.begin; i < job->slice.end; i++) {
        if (job->outcomes[i] != (is_behind ? Outcome::kInserted : Outcome::kPending))
            continue;
        SetCurrent(job, i);
        const ingest::Record &record = job->batch->records[i];
        ReserveRow(builder, *job, record);
        MemoryContextSwitchTo(row_context);
        BuildRow(builder, job, record, values, nulls);
        if (job->staged != nullptr)
            LayStagedOver(*job, i, values, nulls);
        MemoryContextSwitchTo(outer);
        values[target.column_count] = Int32GetDatum(static_cast<int32>(i));
        tuplestore_putvalues(store, descriptor, values, nulls);
        if (MemoryContextMemAllocated(row_context, false) > kRowContextBytes)
            MemoryContextReset(row_context);
        CHECK_FOR_INTERRUPTS();
    }
    // A last row that _at_record() drops: an error after it belongs to no record.
    if (job->stage == nullptr) {
        memset(nulls, true, sizeof(bool) * target.column_count);
        values[target.column_count] = Int32GetDatum(-1);
        tuplestore_putvalues(store, descriptor, values, nulls);
    }
    SetCurrent(job, kNoRecord);
    MemoryContextDelete(row_context);
}

// ---- running it ----

bool
HasPending(const InsertJob &job)
{
    for (uint32_t i = job.slice.begin; i < job.slice.end; i++)
        if (job.outcomes[i] == Outcome::kPending)
            return true;
    return false;
}

void
RunPlan(const InsertJob &job, Use use, DestReceiver *receiver)
{
    SPIExecuteOptions options = {};
    options.dest = receiver;
    Oid relation = OidIsValid(job.leaf) ? job.leaf : job.target->relation;
    int result = SPI_execute_plan_extended(PlanFor(*job.target, relation, use), &options);
    if (result < 0)
        elog(ERROR, "could not write the batch: %s", SPI_result_code_string(result));
}

} // namespace

const char *
BatchTypeSql(const Target &target, const TargetColumn &column)
{
    return target.has_transforms
               ? format_type_extended(getBaseType(column.type_oid), -1, FORMAT_TYPE_TYPEMOD_GIVEN)
               : column.type_name;
}

const char *
BatchDefinitionsSql(const Target &target)
{
    StringInfoData definitions;
    initStringInfo(&definitions);
    for (int i = 0; i < target.column_count; i++)
        appendStringInfo(&definitions, "%s %s, ", quote_identifier(target.columns[i].name),
                         BatchTypeSql(target, target.columns[i]));
    appendStringInfoString(&definitions, "\"~record\" int4");
    return definitions.data;
}

void
InsertRows(InsertJob *job)
{
    current_job = job;
    SetCurrent(job, kNoRecord);
    job->current_column = kNoColumn;
    pg::AsRole(job->role, [job] {
        pg::InSpi([job] {
            RunStages(job);
            if (HasPending(*job))
                RunPlan(*job, job->expects_duplicates ? Use::kInsertNew : Use::kInsert,
                        &inserted_receiver);
            // A row left out is a duplicate, or a trigger's doing: then the key is not there.
            if (HasPending(*job) && job->expects_duplicates && job->target->has_row_triggers &&
                job->target->conflict_key_count > 0)
                RunPlan(*job, Use::kSelectDuplicates, &duplicate_receiver);
            RunSinks(job);
        });
    });
    current_job = nullptr;

    Outcome left_out = job->target->has_row_triggers ? Outcome::kFiltered : Outcome::kDuplicate;
    for (uint32_t i = job->slice.begin; i < job->slice.end; i++)
        if (job->outcomes[i] == Outcome::kPending)
            job->outcomes[i] = left_out;
}

void
FreeStoredEvent(const StoredEvent &event)
{
    pfree(const_cast<char *>(event.event_type));
    if (event.user_id != nullptr)
        pfree(const_cast<char *>(event.user_id));
}

void
ForgetInsertPlans()
{
    for (InsertPlan &entry : insert_plans) {
        if (entry.plan != nullptr)
            SPI_freeplan(entry.plan);
        entry = {};
    }
    ForgetStagePlans();
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
