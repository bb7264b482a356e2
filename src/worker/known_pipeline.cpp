#include "worker/known_pipeline.hpp"

#include <algorithm>

#include "ingest/connection_check.hpp"
#include "pg/shmem.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

Result<kafka::Config>
ConfigOf(const KnownPipeline &known)
{
    return ConnectionConfig(known.connection, "pulse-coordinator");
}

int64_t
NextAssignment()
{
    static int64_t last = 0;
    last = std::max(last + 1, GetCurrentTimestamp());
    return last;
}

void
PublishPipeline(const KnownPipeline &known)
{
    using pg::State;
    State state = State::kRunning;
    std::string reason = known.reason;
    std::string hint = known.hint;
    if (known.desired_state != "running") {
        state = known.desired_state == "paused" ? State::kPaused : State::kStopped;
        reason = known.halt_reason.empty() ? known.reason : known.halt_reason;
        hint = known.halt_reason.empty() ? known.hint : known.halt_hint;
    } else if (known.halts > 0 && !known.halt_reason.empty()) {
        reason = known.halt_reason;
        hint = known.halt_hint;
    } else if (!known.config_error.empty()) {
        state = State::kFailed;
        reason = known.config_error;
        hint = known.config_hint;
    } else if (!known.broker_error.empty()) {
        state = known.has_probed ? State::kRetrying : State::kStarting;
        reason = "broker cannot be reached: " + known.broker_error;
        hint = ingest::HintFor(known.broker_error) +
               " The pipeline goes on by itself when the broker answers; pulse.test_connection() "
               "goes step by step.";
    } else if (known.partitions.empty() && !known.start_error.empty()) {
        state = State::kFailed;
        reason = known.start_error;
        hint = known.start_hint;
    } else if (known.partitions.empty()) {
        state = State::kStarting;
        reason = known.missing_topics.empty()
                     ? "looking for partitions"
                     : "topic \"" + known.missing_topics[0] + "\" does not exist yet";
    } else if (!known.spread_error.empty()) {
        state = known.spread == 0 ? State::kStarting : State::kRunning;
        reason = known.spread_error;
        hint = known.spread_hint;
    }
    pg::CallPg([&] {
        pg::LockShared();
        pg::PipelineSlot *slot = pg::FindPipeline(known.name.c_str(), true);
        if (slot != nullptr)
            pg::SetPipelineState(slot, state, reason.c_str(), hint.c_str());
        pg::UnlockShared();
    });
}

} // namespace pulse::worker
