// Events per (bucket, event_type) of one batch, summed in memory so that a counter row is touched
// once per batch. Regime: C++, pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace pulse::ingest {

struct CounterDelta {
    int64_t bucket_us; // start of the bucket, microseconds since 1970 UTC
    std::string_view event_type;
    int64_t count;
};

class CounterDeltas {
  public:
    static constexpr int64_t kMinuteUs = 60LL * 1000000;
    static constexpr int64_t kHourUs = 60 * kMinuteUs;
    static constexpr int64_t kDayUs = 24 * kHourUs;

    // Counts one event into the bucket of bucket_us width that holds timestamp_us.
    void Add(int64_t timestamp_us, std::string_view event_type, int64_t width_us,
             int64_t count = 1);

    // Sorted by bucket and event_type: every worker locks counter rows in the same order (W22).
    const std::vector<CounterDelta> &Sorted();

    // The same events in wider buckets.
    CounterDeltas Coarser(int64_t width_us) const;

  private:
    void Grow();

    std::vector<CounterDelta> deltas_;
    std::vector<int32_t> table_; // open addressing; index in deltas_ or -1; size is a power of two
};

} // namespace pulse::ingest
