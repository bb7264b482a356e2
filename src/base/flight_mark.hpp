// The record that a thread is working on, noted where it outlives the process: in a file that the
// worker has mapped (worker/flight_recorder.hpp). Zeros mean none. One thread writes, the next
// process reads.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace pulse {

struct FlightMark {
    int64_t next_offset; // behind the record; 0 = none
    int32_t partition;
    int32_t topic_length;
    char topic[256]; // Kafka's limit is 249

    bool IsSet() const { return next_offset != 0; }
    int64_t kafka_offset() const { return next_offset - 1; }
    std::string_view topic_name() const { return {topic, static_cast<size_t>(topic_length)}; }

    bool IsSame(const FlightMark &other) const
    {
        return IsSet() && next_offset == other.next_offset && partition == other.partition &&
               topic_name() == other.topic_name();
    }

    void Set(std::string_view of_topic, int32_t of_partition, int64_t at_offset)
    {
        if (partition != of_partition || topic_name() != of_topic) {
            Clear();
            partition = of_partition;
            topic_length = static_cast<int32_t>(of_topic.copy(topic, sizeof(topic)));
        }
        __atomic_store_n(&next_offset, at_offset + 1, __ATOMIC_RELEASE);
    }

    void Clear() { __atomic_store_n(&next_offset, 0, __ATOMIC_RELEASE); }
};

} // namespace pulse
