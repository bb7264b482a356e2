// Delays between retries: doubling from initial to maximum, with up to a quarter of jitter so that
// several workers don't knock in step. Regime: C++, pure.
#pragma once

#include <algorithm>
#include <cstdint>

namespace pulse::ingest {

class Backoff {
  public:
    Backoff(int64_t initial_ms, int64_t maximum_ms, uint64_t seed)
        : initial_ms_(initial_ms), maximum_ms_(maximum_ms), next_ms_(initial_ms), random_(seed | 1)
    {
    }

    int64_t NextMs()
    {
        int64_t delay_ms = next_ms_;
        next_ms_ = std::min(next_ms_ * 2, maximum_ms_);
        random_ = random_ * 6364136223846793005ULL + 1442695040888963407ULL; // Knuth's MMIX LCG
        int64_t jitter_ms =
            static_cast<int64_t>((random_ >> 33) % static_cast<uint64_t>(delay_ms / 4 + 1));
        return delay_ms - jitter_ms;
    }

    void Reset() { next_ms_ = initial_ms_; }

  private:
    int64_t initial_ms_;
    int64_t maximum_ms_;
    int64_t next_ms_;
    uint64_t random_;
};

} // namespace pulse::ingest
