#include "worker/known_pipeline.hpp"

#include <algorithm>

#include "base/error_class.hpp"
#include "ingest/connection_check.hpp"
#include "pg/shmem.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

// Until then a topic may be on its way: being made, or made again.
constexpr int64_t kWaitingLong = 30000000;

} // namespace

Awaited
WaitsFor(const KnownPipeline &known)
{
    for (const auto &[partition, text] : known.in_trouble)
        if (!known.partitions.contains(partition))
            return {"to begin it waits for " +
                        ingest::Describe({partition.first, partition.second, text}),
                    ingest::HintFor(text)};
    if (known.missing_topics.empty())
        return {};
    const auto &missing = *known.missing_topics.begin();
    return {ingest::Describe(missing), ingest::HintFor(missing)};
}

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
    const Awaited awaited = WaitsFor(known);
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
    } else if (!known.start_error.message.empty()) {
        state = ClassOf(known.start_error.sqlstate) == ErrorClass::kEnvironment ? State::kRetrying
                                                                                : State::kFailed;
        reason = (known.partitions.empty() ? "" : "new partitions cannot begin: ") +
                 known.start_error.message;
        hint = known.start_error.hint;
    } else if (known.partitions.empty()) {
        state = State::kStarting;
        reason = awaited.reason.empty() ? "looking for partitions" : awaited.reason;
        hint = awaited.hint;
    } else if (!awaited.reason.empty()) {
        if (GetCurrentTimestamp() - known.waiting_since > kWaitingLong)
            state = State::kRetrying;
        reason = awaited.reason;
        hint = awaited.hint +
               " Other topics go on, and it does as soon as it can be read; one that is gone for "
               "good must leave the pipeline: drop it and create it without.";
    } else if (!known.spread_error.empty()) {
        state = known.spread == 0 ? State::kStarting : State::kRunning;
        reason = known.spread_error;
        hint = known.spread_hint;
    }
    pg::CallPg([&] {
        pg::LockShared();
        pg::PipelineSlot *slot = pg::FindPipeline(known.name.c_str(), true);
        if (slot != nullptr) {
            pg::SetPipelineState(slot, state, reason.c_str(), hint.c_str());
            slot->unseen_partitions = known.unseen;
        }
        pg::UnlockShared();
    });
}

} // namespace pulse::worker
