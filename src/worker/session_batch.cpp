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

int
MakeSessionPartitions(const BatchState &state, int most)
{
    const store::Target &target = state.pipeline->target;
    if (!target.is_managed || target.event_time_cell < 0)
        return 0;
    int made = 0;
    for (uint32_t i = state.begin; i < state.end && made < most; i++) {
        if (state.outcomes[i] != Outcome::kPending)
            continue;
        const int64_t timestamp =
            store::FromUnixUs(state.record(i).cells[target.event_time_cell].integer);
        made += pg::CallPg([&] {
            if (store::FindLeaf(target, timestamp) != InvalidOid)
                return 0;
            store::EnsurePartition(target, timestamp);
            CommandCounterIncrement();
            return 1;
        });
    }
    return made;
}

} // namespace pulse::worker
