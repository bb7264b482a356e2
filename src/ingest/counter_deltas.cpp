#include "ingest/counter_deltas.hpp"

#include <algorithm>
#include <functional>

namespace pulse::ingest {

namespace {

size_t
HashOf(int64_t bucket_us, std::string_view event_type)
{
    return std::hash<std::string_view>{}(event_type) ^
           (static_cast<uint64_t>(bucket_us / CounterDeltas::kMinuteUs) * 0x9E3779B97F4A7C15ULL);
}

int64_t
FloorTo(int64_t timestamp_us, int64_t width_us)
{
    int64_t rest = timestamp_us % width_us;
    return timestamp_us - (rest < 0 ? rest + width_us : rest);
}

} // namespace

void
CounterDeltas::Add(int64_t timestamp_us, std::string_view event_type, int64_t width_us,
                   int64_t count)
{
    if (deltas_.size() * 2 >= table_.size())
        Grow();
    int64_t bucket_us = FloorTo(timestamp_us, width_us);
    size_t mask = table_.size() - 1;
    size_t index = HashOf(bucket_us, event_type) & mask;
    while (table_[index] >= 0) {
        CounterDelta &delta = deltas_[static_cast<size_t>(table_[index])];
        if (delta.bucket_us == bucket_us && delta.event_type == event_type) {
            delta.count += count;
            return;
        }
        index = (index + 1) & mask;
    }
    table_[index] = static_cast<int32_t>(deltas_.size());
    deltas_.push_back({bucket_us, event_type, count});
}

const std::vector<CounterDelta> &
CounterDeltas::Sorted()
{
    std::sort(deltas_.begin(), deltas_.end(),
              [](const CounterDelta &left, const CounterDelta &right) {
                  return left.bucket_us != right.bucket_us ? left.bucket_us < right.bucket_us
                                                           : left.event_type < right.event_type;
              });
    table_.clear(); // its indexes are stale; the next Add() builds it again
    return deltas_;
}

CounterDeltas
CounterDeltas::Coarser(int64_t width_us) const
{
    CounterDeltas coarser;
    for (const CounterDelta &delta : deltas_)
        coarser.Add(delta.bucket_us, delta.event_type, width_us, delta.count);
    return coarser;
}

void
CounterDeltas::Grow()
{
    size_t size = table_.empty() ? 64 : table_.size() * 2;
    while (size < deltas_.size() * 4)
        size *= 2;
    table_.assign(size, -1);
    for (size_t i = 0; i < deltas_.size(); i++) {
        size_t index = HashOf(deltas_[i].bucket_us, deltas_[i].event_type) & (size - 1);
        while (table_[index] >= 0)
            index = (index + 1) & (size - 1);
        table_[index] = static_cast<int32_t>(i);
    }
}

} // namespace pulse::ingest
