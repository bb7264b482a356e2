#include "store/stages.hpp"

#include "base/clock.hpp"
#include "pg/stage_stats.hpp"
#include "store/time.hpp"
#include "pg/spi.hpp"

namespace pulse::store {

struct StagedRows {
    MinimalTuple *tuples; // per record of the slice; null where there is none
    const int16_t *sources;
    TupleTableSlot *slot;
};

namespace {

pg::Statement select_stages = {
    "SELECT name, kind, body FROM pulse.stages WHERE pipeline = $1 ORDER BY at_position",
    1,
    {TEXTOID},
    nullptr};

struct StagePlan {
    SPIPlanPtr plan;
    int16_t sources[kMaxColumns]; // attribute of the result per column of the target; 0 = left out
    int32_t event_time;           // attribute that must be the record's own; 0 = none
};

StagePlan stage_plans[kMaxStages];

// ---- the statement ----

void
AddContext(void *stage)
{
    errcontext("stage \"%s\" of the pipeline", static_cast<const Stage *>(stage)->name);
}

// Names the stage in whatever error comes.
template <class Function>
void
InContextOf(const Stage &stage, Function function)
{
    ErrorContextCallback context;
    context.callback = AddContext;
    context.arg = const_cast<Stage *>(&stage);
    context.previous = error_context_stack;
    error_context_stack = &context;
    function();
    error_context_stack = context.previous;
}

bool
IsSink(const Stage &stage)
{
    return stage.kind == StageKind::kSink;
}

// The body as one statement of the right kind, without a semicolon, so that it can't end the one it
// is put into.
const char *
StatementOf(const Stage &stage)
{
    List *statements = raw_parser(stage.body, RAW_PARSE_DEFAULT);
    const RawStmt *raw =
        list_length(statements) == 1 ? linitial_node(RawStmt, statements) : nullptr;
    const Node *statement = raw == nullptr ? nullptr : raw->stmt;
    if (IsSink(stage)) {
        if (statement == nullptr || !IsA(statement, InsertStmt) ||
            reinterpret_cast<const InsertStmt *>(statement)->withClause != nullptr)
            ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                            errmsg("the body of a sink must be one INSERT"),
                            errhint("Write INSERT INTO table SELECT ... FROM batch; a WITH goes "
                                    "before its SELECT.")));
    } else if (statement == nullptr || !IsA(statement, SelectStmt) ||
               reinterpret_cast<const SelectStmt *>(statement)->intoClause != nullptr) {
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("the body of a stage must be one SELECT"),
                        errhint("Write SELECT ... FROM batch.")));
    }
    return raw->stmt_len == 0 ? stage.body + raw->stmt_location
                              : pnstrdup(stage.body + raw->stmt_location, raw->stmt_len);
}

SPIPlanPtr
PrepareSql(const char *sql)
{
    SPIPlanPtr plan = SPI_prepare(sql, 0, nullptr);
    if (plan == nullptr)
        elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
    return plan;
}

const char *
ColumnsSql(const Target &target)
{
    StringInfoData columns;
    initStringInfo(&columns);
    for (int i = 0; i < target.column_count; i++)
        appendStringInfo(&columns, "%sr.%s", i == 0 ? "" : ", ",
                         quote_identifier(target.columns[i].name));
    return columns.data;
}

// Every record by itself, so that it is known which one a row is made of; for the planner it is a
// join with the batch.
const char *
FromSql(const Target &target, const char *body)
{
    return psprintf(" FROM pulse._batch() AS r(%s) CROSS JOIN LATERAL (WITH batch AS (SELECT %s) "
                    "SELECT * FROM (\n%s\n) AS body) AS s",
                    BatchDefinitionsSql(target), ColumnsSql(target), body);
}

SPIPlanPtr
PrepareSink(const Target &target, const char *body)
{
    return PrepareSql(psprintf("WITH batch AS (SELECT %s FROM pulse._batch() AS r(%s))\n%s",
                               ColumnsSql(target), BatchDefinitionsSql(target), body));
}

// The last of that name: SELECT *, lower(event_type) AS event_type. -1 = none.
int
FindResult(TupleDesc results, const char *name)
{
    for (int i = results->natts - 1; i >= 1; i--)
        if (strcmp(NameStr(TupleDescAttr(results, i)->attname), name) == 0)
            return i;
    return -1;
}

void
CheckNames(const Target &target, TupleDesc results)
{
    for (int i = 1; i < results->natts; i++) {
        const char *name = NameStr(TupleDescAttr(results, i)->attname);
        bool is_known = false;
        for (int column = 0; column < target.column_count && !is_known; column++)
            is_known = strcmp(target.columns[column].name, name) == 0;
        if (!is_known)
            ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
                            errmsg("the stage returns column \"%s\", which %s does not have", name,
                                   target.qualified_name),
                            errhint("Name the columns of the target; batch.* are all of them.")));
    }
}

const char *
ValueSql(const TargetColumn &column, TupleDesc results, int result)
{
    const char *type = format_type_extended(column.type_oid, -1, FORMAT_TYPE_TYPEMOD_GIVEN);
    if (result < 0) // the domain may not allow it
        return psprintf("CAST(NULL AS %s)", type);
    Oid found = TupleDescAttr(results, result)->atttypid;
    if (!can_coerce_type(1, &found, &column.type_oid, COERCION_ASSIGNMENT))
        ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
                        errmsg("column \"%s\" is of type %s, the stage returns %s", column.name,
                               format_type_be(column.type_oid), format_type_be(found)),
                        errhint("Cast it.")));
    return psprintf("CAST(s.\"~%d\" AS %s)", result, type);
}

void
PrepareSelect(const Target &target, StageKind kind, const char *body, StagePlan *prepared)
{
    const char *from = FromSql(target, body);
    SPIPlanPtr as_is = PrepareSql(psprintf("SELECT r.\"~record\", s.*%s", from));
    TupleDesc results =
        linitial_node(CachedPlanSource, SPI_plan_get_plan_sources(as_is))->resultDesc;
    StringInfoData values;
    initStringInfo(&values);
    appendStringInfoString(&values, "SELECT r.\"~record\"");
    if (kind == StageKind::kTransform) {
        CheckNames(target, results);
        int16_t attribute = 1;
        for (int i = 0; i < target.column_count; i++) {
            const TargetColumn &column = target.columns[i];
            int result = FindResult(results, column.name);
            if (column.cell_index < 0 || (result < 0 && (!column.is_domain || column.has_default)))
                continue;
            appendStringInfo(&values, ", %s", ValueSql(column, results, result));
            prepared->sources[i] = ++attribute;
            if (column.is_event_time && target.is_managed)
                prepared->event_time = attribute;
        }
    }
    appendStringInfoString(&values, from);
    for (int i = 1; i < results->natts; i++)
        appendStringInfo(&values, "%s\"~%d\"", i == 1 ? "(" : ", ", i);
    if (results->natts > 1)
        appendStringInfoChar(&values, ')');
    SPI_freeplan(as_is);
    prepared->plan = PrepareSql(values.data);
}

void
Prepare(const Target &target, const Stage &stage, StagePlan *prepared)
{
    *prepared = {};
    InContextOf(stage, [&] {
        const char *body = StatementOf(stage);
        if (IsSink(stage))
            prepared->plan = PrepareSink(target, body);
        else
            PrepareSelect(target, stage.kind, body, prepared);
    });
}

StagePlan *
PlanOf(const Target &target, int index)
{
    StagePlan *prepared = &stage_plans[index];
    if (prepared->plan == nullptr) {
        StagePlan fresh;
        Prepare(target, target.stages[index], &fresh);
        SPI_keepplan(fresh.plan);
        *prepared = fresh;
    }
    return prepared;
}

// ---- what comes of it ----

struct Run {
    InsertJob *job;
    const StagePlan *plan;
    StagedRows *rows;
    bool *is_seen; // per record of the slice
    MemoryContext context;
};

Run current_run;

void
StartStaged(DestReceiver *, int, TupleDesc descriptor)
{
    MemoryContext outer = MemoryContextSwitchTo(current_run.context);
    current_run.rows->slot =
        MakeSingleTupleTableSlot(CreateTupleDescCopy(descriptor), &TTSOpsMinimalTuple);
    MemoryContextSwitchTo(outer);
}

// Its partition is there, made for the time in the event.
void
CheckEventTime(TupleTableSlot *slot, uint32_t record)
{
    bool is_null = false;
    Datum found = slot_getattr(slot, current_run.plan->event_time, &is_null);
    const InsertJob &job = *current_run.job;
    const Cell &own = job.batch->records[record].cells[job.target->event_time_cell];
    if (!is_null && DatumGetTimestampTz(found) != FromUnixUs(own.integer))
        ereport(ERROR,
                (errcode(ERRCODE_DATA_EXCEPTION),
                 errmsg("a stage must not change event_timestamp, by which %s is partitioned",
                        job.target->qualified_name)));
}

bool
ReceiveStaged(TupleTableSlot *slot, DestReceiver *)
{
    InsertJob *job = current_run.job;
    bool is_null = false;
    uint32_t record = static_cast<uint32_t>(DatumGetInt32(slot_getattr(slot, 1, &is_null)));
    uint32_t index = record - job->slice.begin;
    job->current_record = record; // an error here is about this one
    if (current_run.is_seen[index])
        ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
                        errmsg("the stage returned more than one row for a record")));
    current_run.is_seen[index] = true;
    if (current_run.plan->event_time > 0)
        CheckEventTime(slot, record);
    if (job->stage->kind == StageKind::kTransform) {
        MemoryContext outer = MemoryContextSwitchTo(current_run.context);
        current_run.rows->tuples[index] = ExecCopySlotMinimalTuple(slot);
        MemoryContextSwitchTo(outer);
    }
    job->current_record = kNoRecord;
    return true;
}

void
EndStaged(DestReceiver *)
{
}

DestReceiver staged_receiver = {ReceiveStaged, StartStaged, EndStaged, EndStaged, DestNone};

void
Execute(SPIPlanPtr plan, DestReceiver *receiver)
{
    SPIExecuteOptions options = {};
    options.dest = receiver;
    int result = SPI_execute_plan_extended(plan, &options);
    if (result < 0)
        elog(ERROR, "could not run the stage: %s", SPI_result_code_string(result));
}

void
RunSelect(InsertJob *job, int index)
{
    const uint32_t count = job->slice.end - job->slice.begin;
    StagePlan *plan = PlanOf(*job->target, index);
    StagedRows *rows = static_cast<StagedRows *>(palloc0(sizeof(StagedRows)));
    rows->tuples = static_cast<MinimalTuple *>(palloc0(sizeof(MinimalTuple) * count));
    rows->sources = plan->sources;
    bool *is_seen = static_cast<bool *>(palloc0(sizeof(bool) * count));
    current_run = {job, plan, rows, is_seen, CurrentMemoryContext};
    InContextOf(*job->stage, [&] { Execute(plan->plan, &staged_receiver); });
    current_run = {};
    for (uint32_t i = 0; i < count; i++)
        if (!is_seen[i] && job->outcomes[job->slice.begin + i] == Outcome::kPending)
            job->outcomes[job->slice.begin + i] = Outcome::kFiltered;
    if (job->stage->kind == StageKind::kTransform)
        job->staged = rows;
}

int64_t
CountOf(const InsertJob &job, Outcome outcome)
{
    int64_t count = 0;
    for (uint32_t i = job.slice.begin; i < job.slice.end; i++)
        count += job.outcomes[i] == outcome;
    return count;
}

} // namespace

void
LoadStages(const PipelineDefinition &definition, Target *target)
{
    Datum name = CStringGetTextDatum(definition.name);
    uint64 count = pg::Execute(&select_stages, &name);
    if (count > kMaxStages)
        ereport(ERROR,
                (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                 errmsg("pipeline \"%s\" has more than %d stages", definition.name, kMaxStages)));
    for (uint64 row = 0; row < count; row++) {
        Stage *stage = &target->stages[target->stage_count++];
        const char *kind = pg::GetText(row, 2);
        pg::CopyText(stage->name, sizeof(stage->name), pg::GetText(row, 1));
        stage->kind = strcmp(kind, "sink") == 0     ? StageKind::kSink
                      : strcmp(kind, "filter") == 0 ? StageKind::kFilter
                                                    : StageKind::kTransform;
        stage->body = MemoryContextStrdup(TopMemoryContext, pg::GetText(row, 3));
        stage->stats = pg::StageStatsOf(definition.name, stage->name);
        target->has_transforms |= stage->kind == StageKind::kTransform;
    }
}

void
FreeStages(Target *target)
{
    for (int i = 0; i < target->stage_count; i++)
        pfree(target->stages[i].body);
    target->stage_count = 0;
}

void
CheckStages(const Target &target)
{
    pg::InSpi([&] {
        static StagePlan prepared; // large
        for (int i = 0; i < target.stage_count; i++)
            Prepare(target, target.stages[i], &prepared);
    });
}

void
RunStages(InsertJob *job)
{
    for (int i = 0; i < job->target->stage_count; i++) {
        const int64_t pending = CountOf(*job, Outcome::kPending);
        job->stage = &job->target->stages[i];
        if (IsSink(*job->stage) || pending == 0)
            continue;
        const int64_t began_us = MonotonicUs();
        RunSelect(job, i);
        pg::AddStageRun(job->stage->stats, pending, CountOf(*job, Outcome::kPending),
                        MonotonicUs() - began_us);
    }
    job->stage = nullptr;
}

void
RunSinks(InsertJob *job)
{
    const int64_t inserted = job->target->stage_count > 0 ? CountOf(*job, Outcome::kInserted) : 0;
    for (int i = 0; i < job->target->stage_count && inserted > 0; i++) {
        job->stage = &job->target->stages[i];
        if (!IsSink(*job->stage))
            continue;
        const int64_t began_us = MonotonicUs();
        SPIPlanPtr plan = PlanOf(*job->target, i)->plan;
        InContextOf(*job->stage, [&] { Execute(plan, None_Receiver); });
        pg::AddStageRun(job->stage->stats, inserted, static_cast<int64_t>(SPI_processed),
                        MonotonicUs() - began_us);
    }
    job->stage = nullptr;
}

void
LayStagedOver(const InsertJob &job, uint32_t record, Datum *values, bool *nulls)
{
    const Target &target = *job.target;
    const StagedRows &rows = *job.staged;
    TupleTableSlot *slot = rows.slot;
    ExecStoreMinimalTuple(rows.tuples[record - job.slice.begin], slot, false);
    slot_getallattrs(slot);
    for (int i = 0; i < target.column_count; i++) {
        const TargetColumn &column = target.columns[i];
        if (column.cell_index < 0)
            continue; // where the record comes from is no stage's affair
        const int16_t source = rows.sources[i];
        const bool is_null = source == 0 || slot->tts_isnull[source - 1];
        if (is_null && (column.source == ColumnSource::kEventId || column.is_event_time))
            continue;
        nulls[i] = is_null;
        values[i] = is_null ? static_cast<Datum>(0) : slot->tts_values[source - 1];
    }
}

void
ForgetStagePlans()
{
    for (StagePlan &prepared : stage_plans) {
        if (prepared.plan != nullptr)
            SPI_freeplan(prepared.plan);
        prepared.plan = nullptr;
    }
}

} // namespace pulse::store
