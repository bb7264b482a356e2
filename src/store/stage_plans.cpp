#include "store/stage_plans.hpp"

#include "pg/spi.hpp"
#include "pg/stage_stats.hpp"
#include "store/pipelines.hpp"
#include "store/writer.hpp"

namespace pulse::store {

namespace {

pg::Statement select_stages = {
    "SELECT name, kind, body FROM pulse.stages WHERE pipeline = $1 ORDER BY at_position",
    1,
    {TEXTOID},
    nullptr};

StagePlan stage_plans[kMaxStages];

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

// The body as one statement of the right kind, without a semicolon, so that it can't end the one it
// is put into.
const char *
StatementOf(const Stage &stage)
{
    List *statements = raw_parser(stage.body, RAW_PARSE_DEFAULT);
    const RawStmt *raw =
        list_length(statements) == 1 ? linitial_node(RawStmt, statements) : nullptr;
    const Node *statement = raw == nullptr ? nullptr : raw->stmt;
    if (stage.IsSink()) {
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
    if (stage.IsSink())
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
        target->sink_count += stage->IsSink();
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

const StagePlan *
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

int64_t
RunStagePlan(const Stage &stage, const StagePlan &plan, DestReceiver *receiver)
{
    SPIExecuteOptions options = {};
    options.dest = receiver;
    const int level = NewGUCNestLevel(); // what one stage sets is no other's affair
    int result = 0;
    InContext({stage.name, stage.body, INT_MAX},
              [&] { result = SPI_execute_plan_extended(plan.plan, &options); });
    AtEOXact_GUC(false, level);
    if (result < 0)
        elog(ERROR, "could not run the stage: %s", SPI_result_code_string(result));
    return static_cast<int64_t>(SPI_processed);
}

void
ForgetStagePlans()
{
    for (StagePlan &prepared : stage_plans)
        Forget(&prepared);
}

} // namespace pulse::store
