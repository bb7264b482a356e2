#include "store/stages.hpp"

#include "base/clock.hpp"
#include "pg/stage_stats.hpp"
#include "store/pipelines.hpp"
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
    SPIPlanPtr body;              // as it is written; null for sinks
    TupleDesc results;            // of the body, when it was prepared; TopMemoryContext
    int16_t sources[kMaxColumns]; // attribute of the result per column of the target; 0 = left out
    int32_t event_time;           // attribute that must be the record's own; 0 = none
};

StagePlan stage_plans[kMaxStages];

// ---- the statement ----

// What is being parsed or run: the body, behind so many characters of ours.
struct Context {
    const char *stage;
    const char *body;
    int characters_before;
};

void
AddContext(void *argument)
{
    const Context *context = static_cast<const Context *>(argument);
    if (geterrposition() > 0) { // of the parser, which has seen the body alone
        internalerrposition(geterrposition());
        internalerrquery(context->body);
        errposition(0);
    } else if (getinternalerrposition() > context->characters_before) {
        internalerrposition(getinternalerrposition() - context->characters_before);
        internalerrquery(context->body);
    }
    errcontext("stage \"%s\" of the pipeline", context->stage);
}

// Names the stage in whatever error comes.
template <class Function>
void
InContext(const Context &stage, Function function)
{
    ErrorContextCallback context;
    context.callback = AddContext;
    context.arg = const_cast<Context *>(&stage);
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
PrepareSql(const Stage &stage, const char *before, const char *body, const char *behind)
{
    const char *sql = psprintf("%s\n%s\n%s", before, body, behind);
    const Context context = {stage.name, body, pg_mbstrlen(before) + 1};
    SPIPlanPtr plan = nullptr;
    InContext(context, [&] { plan = SPI_prepare(sql, 0, nullptr); });
    if (plan == nullptr)
        elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
    return plan;
}

// The batch under names that no body can mean by mistake.
const char *
NumberedBatchSql(const Target &target)
{
    StringInfoData sql;
    initStringInfo(&sql);
    appendStringInfoString(&sql, "pulse._batch() AS \"~batch\"(");
    for (int i = 0; i < target.column_count; i++)
        appendStringInfo(&sql, "\"~%d\" %s, ", i, BatchTypeSql(target, target.columns[i]));
    appendStringInfoString(&sql, "\"~record\" int4)");
    return sql.data;
}

// Its columns as the body knows them. For a sink they are as the table has them.
const char *
ColumnsSql(const Target &target, bool is_sink)
{
    StringInfoData columns;
    initStringInfo(&columns);
    for (int i = 0; i < target.column_count; i++) {
        const TargetColumn &column = target.columns[i];
        const char *separator = i == 0 ? "" : ", ";
        const char *name = quote_identifier(column.name);
        if (is_sink)
            appendStringInfo(&columns, "%sCAST(\"~batch\".\"~%d\" AS %s) AS %s", separator, i,
                             column.type_name, name);
        else
            appendStringInfo(&columns, "%s\"~batch\".\"~%d\" AS %s", separator, i, name);
    }
    return columns.data;
}

// Every record by itself, so that it is known which one a row is made of; for the planner it is a
// join with the batch.
const char *
FromSql(const Target &target)
{
    return psprintf(" FROM %s CROSS JOIN LATERAL (WITH batch AS (SELECT %s) SELECT * FROM (",
                    NumberedBatchSql(target), ColumnsSql(target, false));
}

void
PrepareSink(const Target &target, const Stage &stage, const char *body, StagePlan *prepared)
{
    const char *before = psprintf("WITH batch AS (SELECT %s FROM %s)", ColumnsSql(target, true),
                                  NumberedBatchSql(target));
    prepared->plan = PrepareSql(stage, before, body, "");
    const CachedPlanSource *source =
        linitial_node(CachedPlanSource, SPI_plan_get_plan_sources(prepared->plan));
    const Query *query = linitial_node(Query, source->query_list);
    if (query->resultRelation > 0 &&
        IsMember(target, rt_fetch(query->resultRelation, query->rtable)->relid))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("a sink must not write into %s, the target of the pipeline",
                               target.qualified_name),
                        errhint("Its rows would be in no ledger: use a transform, or another "
                                "table.")));
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
ValueSql(const Target &target, const TargetColumn &column, TupleDesc results, int result)
{
    Oid found = TupleDescAttr(results, result)->atttypid;
    Oid wanted = getBaseType(column.type_oid);
    if (!can_coerce_type(1, &found, &wanted, COERCION_ASSIGNMENT))
        ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
                        errmsg("column \"%s\" is of type %s, the stage returns %s", column.name,
                               format_type_be(column.type_oid), format_type_be(found)),
                        errhint("Cast it.")));
    return psprintf("CAST(s.\"~%d\" AS %s)", result, BatchTypeSql(target, column));
}

void
PrepareSelect(const Target &target, const Stage &stage, const char *body, StagePlan *prepared)
{
    const char *from = FromSql(target);
    prepared->body = PrepareSql(stage, psprintf("SELECT \"~batch\".\"~record\", s.*%s", from), body,
                                ") AS body) AS s");
    TupleDesc results =
        linitial_node(CachedPlanSource, SPI_plan_get_plan_sources(prepared->body))->resultDesc;
    StringInfoData before, behind;
    initStringInfo(&before);
    initStringInfo(&behind);
    appendStringInfoString(&before, "SELECT \"~batch\".\"~record\"");
    if (stage.kind == StageKind::kTransform) {
        CheckNames(target, results);
        int16_t attribute = 1;
        for (int i = 0; i < target.column_count; i++) {
            const TargetColumn &column = target.columns[i];
            const int result = FindResult(results, column.name);
            if (column.cell_index < 0 || result < 0)
                continue;
            appendStringInfo(&before, ", %s", ValueSql(target, column, results, result));
            prepared->sources[i] = ++attribute;
            if (column.is_event_time && target.is_managed)
                prepared->event_time = attribute;
        }
    }
    appendStringInfoString(&before, from);
    appendStringInfoString(&behind, ") AS body) AS s");
    for (int i = 1; i < results->natts; i++)
        appendStringInfo(&behind, "%s\"~%d\"", i == 1 ? "(" : ", ", i);
    if (results->natts > 1)
        appendStringInfoChar(&behind, ')');
    prepared->plan = PrepareSql(stage, before.data, body, behind.data);
    prepared->results = results;
}

void
Prepare(const Target &target, const Stage &stage, StagePlan *prepared)
{
    *prepared = {};
    const char *body = nullptr;
    InContext({stage.name, stage.body, 0}, [&] { body = StatementOf(stage); });
    if (IsSink(stage))
        PrepareSink(target, stage, body, prepared);
    else
        PrepareSelect(target, stage, body, prepared);
}

void
Forget(StagePlan *prepared)
{
    if (prepared->plan != nullptr)
        SPI_freeplan(prepared->plan);
    if (prepared->body != nullptr)
        SPI_freeplan(prepared->body);
    if (prepared->results != nullptr)
        FreeTupleDesc(prepared->results);
    *prepared = {};
}

// A column was added to a table of which the body takes all (*), say: its results have other places
// now. Looking locks the tables, so it stays so until the transaction ends.
bool
HasOtherResults(const Stage &stage, const StagePlan &prepared)
{
    if (prepared.body == nullptr)
        return false;
    CachedPlan *plan = nullptr;
    InContext({stage.name, stage.body, INT_MAX},
              [&] { plan = SPI_plan_get_cached_plan(prepared.body); });
    TupleDesc results =
        linitial_node(CachedPlanSource, SPI_plan_get_plan_sources(prepared.body))->resultDesc;
    const bool is_other = !equalTupleDescs(results, prepared.results);
    if (plan != nullptr)
        ReleaseCachedPlan(plan, CurrentResourceOwner);
    return is_other;
}

StagePlan *
PlanOf(const Target &target, int index)
{
    static StagePlan fresh; // large
    StagePlan *prepared = &stage_plans[index];
    if (prepared->plan != nullptr && !HasOtherResults(target.stages[index], *prepared))
        return prepared;
    Forget(prepared);
    Prepare(target, target.stages[index], &fresh);
    if (fresh.results != nullptr) {
        MemoryContext outer = MemoryContextSwitchTo(TopMemoryContext);
        fresh.results = CreateTupleDescCopy(fresh.results);
        MemoryContextSwitchTo(outer);
    }
    SPI_keepplan(fresh.plan);
    if (fresh.body != nullptr)
        SPI_keepplan(fresh.body);
    *prepared = fresh;
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
    const int level = NewGUCNestLevel(); // what one stage sets is no other's affair
    int result = SPI_execute_plan_extended(plan, &options);
    AtEOXact_GUC(false, level);
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
    InContext({job->stage->name, job->stage->body, INT_MAX},
              [&] { Execute(plan->plan, &staged_receiver); });
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
    uint64 count = 0;
    // Whoever may make pipelines need not be allowed to read the stages of others.
    pg::AsRole(OwnerOfPulse(), [&] { count = pg::Execute(&select_stages, &name); });
    if (count > kMaxStages)
        ereport(ERROR,
                (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                 errmsg("pipeline \"%s\" has more than %d stages", definition.name, kMaxStages)));
    for (uint64 row = 0; row < count; row++) {
        Stage *stage = &target->stages[row];
        const char *kind = pg::GetText(row, 2);
        pg::CopyText(stage->name, sizeof(stage->name), pg::GetText(row, 1));
        stage->kind = strcmp(kind, "sink") == 0     ? StageKind::kSink
                      : strcmp(kind, "filter") == 0 ? StageKind::kFilter
                                                    : StageKind::kTransform;
        stage->body = MemoryContextStrdup(TopMemoryContext, pg::GetText(row, 3));
        stage->stats = pg::StageStatsOf(definition.name, stage->name);
        target->has_transforms |= stage->kind == StageKind::kTransform;
        target->sink_count += IsSink(*stage);
        target->stage_count++;
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
        InContext({job->stage->name, job->stage->body, INT_MAX},
                  [&] { Execute(plan, None_Receiver); });
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
    for (StagePlan &prepared : stage_plans)
        Forget(&prepared);
}

} // namespace pulse::store
