// The breaker: too many rejects among the last 10,000 fresh records mean a bad deploy, not bad
// records (product.md section 10). Copyable, so a batch can be judged before it commits.
// Regime: C++, pure.
#pragma once

#include <bitset>
#include <cstdint>

namespace pulse::ingest {

class Breaker {
  public:
    static constexpr uint32_t kWindow = 10000;

    void Add(bool is_reject)
    {
        if (seen_ >= kWindow && window_[next_])
            rejects_--;
        window_[next_] = is_reject;
        rejects_ += is_reject ? 1 : 0;
        next_ = (next_ + 1) % kWindow;
        if (seen_ < kWindow)
            seen_++;
    }

    // max_ratio 1 never trips.
    bool IsTripped(double max_ratio, uint32_t min_records) const
    {
        return max_ratio < 1.0 && seen_ >= min_records &&
               static_cast<double>(rejects_) > max_ratio * static_cast<double>(seen_);
    }

    uint32_t seen() const { return seen_; }
    uint32_t rejects() const { return rejects_; }

  private:
    std::bitset<kWindow> window_;
    uint32_t next_ = 0;
    uint32_t seen_ = 0;
    uint32_t rejects_ = 0;
};

} // namespace pulse::ingest
