#include "worker/batch_rows.hpp"

#include <algorithm>

#include "base/error_class.hpp"
#include "decode/convert.hpp"
#include "ingest/bisect.hpp"
#include "pg/stage_stats.hpp"
#include "pg/xact.hpp"
#include "store/partitions.hpp"
#include "worker/batch_leaves.hpp"
#include "worker/flight_recorder.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

constexpr int kMaxSubtransactions = 32;

// Records that were read before are mostly duplicates.
bool
HasReadAgain(const BatchState &state)
{
    for (uint32_t i = state.begin; i < state.end; i++)
        if (state.record(i).kafka_offset <
            state.range_partitions[state.record(i).range_index]->highest_offset)
            return true;
    return false;
}

store::InsertJob
JobFor(BatchState *state, ingest::Slice slice, bool expects_duplicates)
{
    store::InsertJob job{};
    job.batch = &state->batch;
    job.target = &state->pipeline->target;
    job.partitions = state->range_partitions.data();
    job.slice = slice;
    job.leaf = LeafOf(*state, slice);
    job.expects_duplicates = expects_duplicates;
    job.role = state->pipeline->role;
    job.ingested_at = state->ingested_at;
    job.id_seed = state->id_seed.data();
    job.outcomes = state->outcomes.data();
    job.current_record = store::kNoRecord;
    job.current_column = store::kNoColumn;
    // A single one stays marked for the whole transaction.
    job.mark = state->end - state->begin == 1 ? nullptr : &my_flight->writing;
    return job;
}

// The stage that an error came from, or null: reading a value is none's.
const store::Stage *
StageOf(const store::InsertJob &job)
{
    return job.current_column == store::kNoColumn ? job.stage : nullptr;
}

void
Insert(BatchState *state, store::InsertJob *job)
{
    try {
        pg::InSubTransaction([&] { pg::CallPg([&] { store::InsertRows(job); }); });
    } catch (pg::Error &error) {
        store::ForgetInsertJob();
        if (StageOf(*job) != nullptr)
            error.message = std::string("stage \"") + StageOf(*job)->name + "\": " + error.message;
        throw;
    } catch (...) {
        store::ForgetInsertJob();
        throw;
    }
    for (int i = 0; i < job->stored_event_count; i++)
        state->stored_events.push_back(job->stored_events[i]);
    if (job->stored_events != nullptr)
        pg::CallPg([&] { pfree(job->stored_events); });
}

void
ResetOutcomes(BatchState *state, ingest::Slice slice)
{
    for (uint32_t i = slice.begin; i < slice.end; i++)
        if (state->outcomes[i] != Outcome::kRejected)
            state->outcomes[i] = Outcome::kPending;
}

// 23514 of the target or a leaf, without a constraint: no partition holds the row, because one was
// dropped meanwhile. A trigger may raise the same code about anything else.
bool
IsMissingPartition(BatchState *state, const pg::Error &error)
{
    const store::Target &target = state->pipeline->target;
    if (!target.is_managed || error.sqlstate != "23514" || !error.constraint.empty())
        return false;
    bool is_ours = pg::CallPg(
        [&] { return store::IsPartOf(target, error.schema.c_str(), error.table.c_str()); });
    if (is_ours)
        state->pipeline->leaves.clear();
    return is_ours;
}

bool
IsOfOneRow(BatchState *state, const store::InsertJob &job, const pg::Error &error)
{
    return ClassOf(error.sqlstate) == ErrorClass::kData &&
           (StageOf(job) != nullptr || !IsMissingPartition(state, error));
}

// All at once without looking for duplicates; false when a row is one (or bad), and nothing
// happened.
bool
TryPlainInsert(BatchState *state)
{
    store::InsertJob job = JobFor(state, {state->begin, state->end}, false);
    try {
        Insert(state, &job);
        state->pipeline->plain_inserts.Worked();
        return true;
    } catch (const pg::Error &error) {
        if (!IsOfOneRow(state, job, error))
            throw;
        ResetOutcomes(state, job.slice);
        if (error.sqlstate == "23505")
            state->pipeline->plain_inserts.Wasted();
        return false;
    }
}

// An error in a type's input function or a domain is about one value: say which and what it was.
SqlReject
DescribeReject(const BatchState &state, uint32_t record, const store::InsertJob &job,
               pg::Error error)
{
    SqlReject reject{record, std::move(error), {}, {}, {}};
    reject.message = reject.error.message;
    if (StageOf(job) != nullptr)
        reject.stage = StageOf(job)->name;
    const int32_t column = job.current_column;
    if (column == store::kNoColumn)
        return reject;
    if (!reject.error.detail.empty())
        reject.message += " (" + reject.error.detail + ")";
    size_t index = static_cast<size_t>(state.pipeline->target.columns[column].cell_index);
    const Cell &cell = state.record(record).cells[index];
    if (cell.kind == CellKind::kText || cell.kind == CellKind::kJson) {
        decode::Message found;
        found.Add(", found ").AddExcerpt(cell.view());
        reject.message += found.view();
    }
    reject.path = decode::ColumnPointer(state.batch.mapping->columns[index]).view();
    return reject;
}

// Marks the record that an error was about, once it is known which.
void
Reject(BatchState *state, const store::InsertJob &job, ingest::Bisect *bisect, pg::Error error)
{
    uint32_t bad = job.current_record;
    if (bad != store::kNoRecord)
        bisect->FailedAt(bad);
    else if (bisect->FailedSomewhere())
        bad = job.slice.begin;
    if (bad == store::kNoRecord)
        return;
    state->outcomes[bad] = Outcome::kRejected;
    if (StageOf(job) != nullptr)
        pg::CallPg([&] { pg::AddStageRefusal(StageOf(job)->stats); });
    state->sql_rejects.push_back(DescribeReject(*state, bad, job, std::move(error)));
}

void
InsertSlice(BatchState *state, ingest::Slice slice, ingest::Bisect *bisect)
{
    store::InsertJob job = JobFor(state, slice, true);
    pg::Error error;
    try {
        Insert(state, &job);
        return;
    } catch (pg::Error &caught) {
        if (!IsOfOneRow(state, job, caught))
            throw;
        error = std::move(caught);
    }
    ResetOutcomes(state, slice);
    Reject(state, job, bisect, std::move(error));
}

} // namespace

uint32_t
InsertBatchRows(BatchState *state)
{
    if (state->begin < state->end && !HasReadAgain(*state) &&
        state->pipeline->plain_inserts.MayTry() && TryPlainInsert(state))
        return state->end;
    ingest::Bisect bisect(state->begin, state->end, kMaxSubtransactions);
    ingest::Slice slice;
    while (bisect.Next(&slice)) {
        bool has_pending =
            std::any_of(state->outcomes.begin() + slice.begin, state->outcomes.begin() + slice.end,
                        [](Outcome outcome) { return outcome == Outcome::kPending; });
        if (has_pending)
            InsertSlice(state, slice, &bisect);
    }
    return bisect.reached();
}

} // namespace pulse::worker
