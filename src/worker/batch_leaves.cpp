#include "worker/batch_leaves.hpp"

#include "ingest/counter_deltas.hpp"
#include "pg/xact.hpp"
#include "store/partitions.hpp"
#include "store/time.hpp"
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
        pg::InTransaction([&] {
            pg::CallPg([&] {
                if (store::FindLeaf(target, timestamp) == InvalidOid)
                    store::EnsurePartition(target, timestamp);
            });
        });
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
