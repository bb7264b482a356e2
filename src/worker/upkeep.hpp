// What is to be done to the tables once a minute (retention), in a process of its own: counting the
// rows of a partition takes a while, and the coordinator must answer meanwhile. Regime: C++ with
// doors.
#pragma once

#include <cstdint>

struct BackgroundWorkerHandle;

namespace pulse::worker {

class Upkeep {
  public:
    // Starts the process when it is time and something is to be done.
    void Tick();
    // At the next Tick(): a setting has changed.
    void Hurry() { started_at_ = 0; }

  private:
    int64_t started_at_ = 0;
    BackgroundWorkerHandle *handle_ = nullptr;
};

} // namespace pulse::worker
