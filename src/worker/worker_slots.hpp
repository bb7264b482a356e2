// The coordinator's hold on the workers: which are wanted, and which have to go. It writes slots in
// shared memory; the launcher starts processes for them and the workers look at their own.
#pragma once

#include <cstdint>
#include <string>

#include "worker/known_pipeline.hpp"

namespace pulse::worker {

// Wants that many workers of the pipeline and no others. When not all of them can be had, or one
// does not move, the others share all partitions, and known says why. Regime: C++.
void WantWorkers(KnownPipeline *known, int count);

// Tells all workers of the pipeline to go, after the batch in flight or by rolling it back. Regime:
// C++.
void HaltWorkers(const std::string &name, bool must_abort);
bool HasWorkers(const std::string &name);
int32_t AnyWorker(const std::string &name); // its pid; 0 when there is none

// Wants a sender when something waits that none is there for. Regime: C++.
class SenderWish {
  public:
    void Tick();
    void Withdraw(); // the extension is gone

  private:
    int64_t looked_at_ = 0;
    int64_t seen_news_ = -1;
};

// A resumed pipeline does not wait out its back-off. Regime: PG.
void ForgiveWorkers(const char *name);

// Frees the slots of workers whose pipeline is gone. Regime: C++.
void ReleaseStraySlots(const KnownPipelines &pipelines);

// Forgets what shared memory holds of a pipeline and its partitions. Regime: PG.
void ForgetSlots(const char *name);
// The same of all pipelines that are not known: dropped while no coordinator ran. Regime: C++.
void ForgetStrays(const KnownPipelines &pipelines);

} // namespace pulse::worker
