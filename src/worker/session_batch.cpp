#include "worker/session_batch.hpp"

#include "pg/safe_settings.hpp"
#include "pg/xact.hpp"
#include "store/partitions.hpp"
#include "store/replays.hpp"
#include "store/time.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

PipelineState &
SessionPipeline()
{
    static PipelineState *const pipeline = new PipelineState;
    return *pipeline;
}

// What the session has set must neither be found by name where the pipeline's owner is at work, nor
// outlive the call.
void
LoadSessionPipeline(const char *name, int slot, PipelineState *pipeline)
{
    // It would change the pipeline and the plans under the statement that runs.
    if (store::CurrentInsertJob() != nullptr)
        ereport(ERROR,
                (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                 errmsg("events cannot be ingested or replayed while rows of a batch are written"),
                 errhint("Look in the triggers, defaults and stages of the target for a call of "
                         "pulse.ingest() or pulse.dlq_replay().")));
    for (const pg::SafeSetting &setting : pg::kSafeSettings)
        (void)set_config_option(setting.name, setting.value, PGC_USERSET, PGC_S_SESSION,
                                GUC_ACTION_SAVE, true, 0, false);
    if (!store::HoldPipeline(name) ||
        !store::LoadPipeline(name, store::Scope::kCall, &pipeline->definition))
        ereport(ERROR,
                (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("pipeline \"%s\" does not exist", name),
                 errhint("A pipeline of that name, made by pulse.create_pipeline(), takes "
                         "over the dead letters that are there.")));
    store::LoadTarget(pipeline->definition, store::Scope::kCall, &pipeline->target);
    store::ForgetInsertPlans();
    pipeline->role = store::WriterRole(pipeline->definition);
    store::CheckRowSecurity(pipeline->target, pipeline->role);
    pipeline->may_use_leaf = false;
    pipeline->slot = slot;
}

void
MakeIdSeed(unsigned char *seed)
{
    if (!pg_strong_random(seed, store::kIdSeedBytes))
        ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("no random bytes to be had")));
}

namespace {

// False when the row has one already.
bool
LacksPartition(const BatchState &state, uint32_t row)
{
    const store::Target &target = state.pipeline->target;
    if (state.outcomes[row] != Outcome::kPending || !target.is_managed ||
        target.event_time_cell < 0)
        return false;
    const int64_t time_us = state.record(row).cells[target.event_time_cell].integer;
    return pg::CallPg(
        [&] { return store::FindLeaf(target, store::FromUnixUs(time_us)) == InvalidOid; });
}

NewPartitions
MakePartitions(const BatchState &state, int most)
{
    const store::Target &target = state.pipeline->target;
    NewPartitions made = {0, state.begin};
    for (; made.end < state.end; made.end++) {
        if (!LacksPartition(state, made.end))
            continue;
        if (made.count == most)
            break;
        const int64_t time_us = state.record(made.end).cells[target.event_time_cell].integer;
        pg::CallPg([&] {
            (void)store::EnsurePartition(target, store::FromUnixUs(time_us));
            CommandCounterIncrement();
        });
        made.count++;
    }
    return made;
}

// Made in the transaction that runs, by all its calls; those that were rolled back count, too.
int *
MadeInTransaction()
{
    static LocalTransactionId transaction = InvalidLocalTransactionId;
    static int made = 0;
    if (transaction != MyProc->lxid)
        made = 0;
    transaction = MyProc->lxid;
    return &made;
}

} // namespace

NewPartitions
MakeSessionPartitions(const BatchState &state)
{
    return MakePartitions(state, kMaxNewPartitions);
}

void
MakeCallersPartitions(const BatchState &state)
{
    int *made = MadeInTransaction();
    const NewPartitions some = MakePartitions(state, kMaxNewPartitions - *made);
    *made += some.count;
    if (some.end == state.end)
        return;
    const store::Target &target = state.pipeline->target;
    const int64_t time_us = state.record(some.end).cells[target.event_time_cell].integer;
    pg::CallPg([&] {
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("the events of one transaction need more than %d new partitions of "
                               "%s",
                               kMaxNewPartitions, target.qualified_name),
                        errdetail("One more would be for event_timestamp %s.",
                                  timestamptz_to_str(store::FromUnixUs(time_us))),
                        errhint("Spread them over several transactions; dlq_replay does that by "
                                "itself outside of a transaction block. Or look at the times, "
                                "reject_older_than and partition_by.")));
    });
}

} // namespace pulse::worker
