#include "ingest/too_large.hpp"

#include <utility>

#include "base/clock.hpp"

namespace pulse::ingest {

namespace {

constexpr int kTimeoutMs = 2000;
constexpr int64_t kPatienceUs = 5000000; // under load it is never dry

} // namespace

void
TooLargeSearch::Begin(std::vector<size_t> suspects)
{
    if (IsRunning())
        return;
    suspects_ = std::move(suspects);
    began_at_us_ = MonotonicUs();
}

bool
TooLargeSearch::IsDue(bool is_dry) const
{
    return IsRunning() && (is_dry || MonotonicUs() - began_at_us_ >= kPatienceUs);
}

size_t
TooLargeSearch::Next()
{
    size_t suspect = suspects_.back();
    suspects_.pop_back();
    return suspect;
}

bool
TooLargeSearch::IsTooLarge(const PartitionOffset &next)
{
    if (client_ == nullptr) {
        auto created = kafka::Consumer::Create(config_);
        if (!created.ok())
            return false;
        client_.reset(created.value().release());
    }
    auto marks = client_->QueryWatermarks(next.topic, next.partition, kTimeoutMs);
    if (!marks.ok() || marks.value().high <= next.next_offset)
        return false;
    auto found = client_->ReadFrom(next, kTimeoutMs, [](const kafka::Message &) {});
    return found.ok() && found.value() == kafka::Found::kTooLarge;
}

} // namespace pulse::ingest
