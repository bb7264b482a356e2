#include "worker/batch_leaves.hpp"

#include "ingest/counter_deltas.hpp"
#include "pg/partition_budget.hpp"
#include "pg/xact.hpp"
#include "store/partitions.hpp"
#include "store/time.hpp"
#include "worker/status.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

int64_t
BucketWidthUs(const store::Target &target)
{
    bool is_hourly = target.partition_unit[0] == 'h';
    return is_hourly ? ingest::CounterDeltas::kHourUs : ingest::CounterDeltas::kDayUs;
}

int64_t
BucketOf(const store::Target &target, const ingest::Record &record)
{
    int64_t time_us = record.cells[target.event_time_cell].integer;
    int64_t width_us = BucketWidthUs(target);
    int64_t rest = time_us % width_us;
    return time_us - (rest < 0 ? rest + width_us : rest);
}

// PG regime. The leaf when one holds the whole bucket and may be written directly, else 0.
unsigned int
LeafOfBucket(const PipelineState &pipeline, int64_t bucket_us)
{
    if (!pipeline.may_use_leaf)
        return InvalidOid;
    int64_t first = store::FromUnixUs(bucket_us);
    int64_t last = first + BucketWidthUs(pipeline.target) - 1;
    Oid leaf = store::FindLeaf(pipeline.target, first);
    if (leaf != store::FindLeaf(pipeline.target, last) || !OidIsValid(leaf))
        return InvalidOid;
    return store::MayWriteLeaf(pipeline.target, leaf) ? leaf : InvalidOid;
}

// Environment: it goes on by itself, and no event is at fault alone.
[[noreturn]] void
RaiseOverBudget(const BatchState &state, uint32_t row, int64_t timestamp, int64_t wait_until)
{
    char at[64];
    char until[64];
    pg::CallPg([&] {
        strlcpy(at, timestamptz_to_str(timestamp), sizeof(at));
        strlcpy(until, timestamptz_to_str(wait_until), sizeof(until));
    });
    pg::Error error;
    error.sqlstate = "53400";
    error.message = WhereOf(state.batch, state.record(row)) + ": its event_timestamp " + at +
                    " needs another partition of " + state.pipeline->target.qualified_name +
                    ", and " + std::to_string(pg::kPartitionsPerHour) +
                    " were made within an hour, which is the limit";
    error.hint = std::string("Are these times right? If not, lower reject_older_than: they become "
                             "dead letters (too_old). Or partition_by a longer unit. It goes on by "
                             "itself at ") +
                 until + ".";
    throw error;
}

// In a transaction of its own.
void
MakePartition(const BatchState &state, uint32_t row, int64_t timestamp)
{
    const store::Target &target = state.pipeline->target;
    int64_t wait_until = 0;
    bool is_made = false;
    pg::InTransaction([&] {
        pg::CallPg([&] {
            if (store::FindLeaf(target, timestamp) != InvalidOid)
                return;
            wait_until = pg::PartitionBudgetFrom(state.name());
            if (wait_until == 0)
                is_made = store::EnsurePartition(target, timestamp);
        });
    });
    if (wait_until != 0)
        RaiseOverBudget(state, row, timestamp, wait_until);
    if (is_made)
        pg::CallPg([&] { pg::SpendPartition(state.name()); });
    Beat(); // many take a while
}

} // namespace

void
MakeTargetPartitions(BatchState *state)
{
    PipelineState *pipeline = state->pipeline;
    const store::Target &target = pipeline->target;
    if (!target.is_managed || target.event_time_cell < 0)
        return;
    for (uint32_t i = state->begin; i < state->end; i++) {
        if (state->outcomes[i] != Outcome::kPending)
            continue;
        int64_t bucket = BucketOf(target, state->record(i));
        if (pipeline->leaves.contains(bucket))
            continue;
        int64_t timestamp =
            store::FromUnixUs(state->record(i).cells[target.event_time_cell].integer);
        unsigned int leaf = 0;
        MakePartition(*state, i, timestamp);
        pg::InTransaction(
            [&] { leaf = pg::CallPg([&] { return LeafOfBucket(*pipeline, bucket); }); });
        pipeline->leaves[bucket] = leaf;
    }
}

unsigned int
LeafOf(const BatchState &state, ingest::Slice slice)
{
    const store::Target &target = state.pipeline->target;
    if (!target.is_managed || target.event_time_cell < 0)
        return 0;
    bool is_first = true;
    unsigned int leaf = 0;
    for (uint32_t i = slice.begin; i < slice.end; i++) {
        if (state.outcomes[i] != Outcome::kPending)
            continue;
        auto entry = state.pipeline->leaves.find(BucketOf(target, state.record(i)));
        unsigned int own = entry == state.pipeline->leaves.end() ? 0 : entry->second;
        if (own == 0 || (!is_first && own != leaf))
            return 0;
        leaf = own;
        is_first = false;
    }
    return leaf;
}

} // namespace pulse::worker
