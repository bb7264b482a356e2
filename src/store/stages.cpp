#include "store/stages.hpp"

#include "base/clock.hpp"
#include "pg/stage_stats.hpp"
#include "store/stage_plans.hpp"
#include "store/time.hpp"
#include "pg/prelude.hpp"

namespace pulse::store {

struct StagedRows {
    MinimalTuple *tuples; // per record of the slice; null where there is none
    const int16_t *sources;
    TupleTableSlot *slot;
};

namespace {

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
RunSelect(InsertJob *job, int index)
{
    const uint32_t count = job->slice.end - job->slice.begin;
    const StagePlan *plan = PlanOf(*job->target, index);
    StagedRows *rows = static_cast<StagedRows *>(palloc0(sizeof(StagedRows)));
    rows->tuples = static_cast<MinimalTuple *>(palloc0(sizeof(MinimalTuple) * count));
    rows->sources = plan->sources;
    bool *is_seen = static_cast<bool *>(palloc0(sizeof(bool) * count));
    current_run = {job, plan, rows, is_seen, CurrentMemoryContext};
    (void)RunStagePlan(*job->stage, *plan, &staged_receiver);
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
RunStages(InsertJob *job)
{
    int64_t pending = job->target->stage_count > 0 ? CountOf(*job, Outcome::kPending) : 0;
    for (int i = 0; i < job->target->stage_count && pending > 0; i++) {
        job->stage = &job->target->stages[i];
        if (job->stage->IsSink())
            continue;
        const int64_t began_us = MonotonicUs();
        RunSelect(job, i);
        const int64_t left = CountOf(*job, Outcome::kPending);
        pg::AddStageRun(job->stage->stats, pending, left, MonotonicUs() - began_us);
        pending = left;
    }
    job->stage = nullptr;
}

void
RunSinks(InsertJob *job)
{
    const int64_t inserted = job->target->stage_count > 0 ? CountOf(*job, Outcome::kInserted) : 0;
    for (int i = 0; i < job->target->stage_count && inserted > 0; i++) {
        job->stage = &job->target->stages[i];
        if (!job->stage->IsSink())
            continue;
        const int64_t began_us = MonotonicUs();
        const int64_t written = RunStagePlan(*job->stage, *PlanOf(*job->target, i), None_Receiver);
        pg::AddStageRun(job->stage->stats, inserted, written, MonotonicUs() - began_us);
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

} // namespace pulse::store
