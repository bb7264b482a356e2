// The nouns shared by every layer: where a record came from, what a decoded field looks like.
// Views only; whoever fills them owns the bytes (an Arena). A string_view whose data() is nullptr
// means SQL NULL / Kafka null, which is not the same as empty.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace pulse {

// What tells a record from the one at its offset in another log of the same name.
struct Fingerprint {
    static constexpr int64_t kUnknownTime = INT64_MIN;

    int64_t kafka_offset = -1; // -1 = none
    int64_t timestamp_ms = kUnknownTime;
    int64_t crc = -1; // of key and value (base/crc32c.hpp); -1 = unknown
};

// An offset always means the next one to read.
struct PartitionOffset {
    PartitionOffset() = default;
    PartitionOffset(std::string name, int32_t number, int64_t offset, Fingerprint record = {})
        : topic(std::move(name)), partition(number), next_offset(offset), last(record)
    {
    }

    std::string topic;
    int32_t partition = 0;
    int64_t next_offset = 0;
    Fingerprint last; // of a record before next_offset
};

// One decoded field, ready to become a Datum. Times are microseconds since 1970-01-01 UTC.
enum class CellKind : uint8_t {
    kMissing,   // the event has no such field
    kNull,      // JSON null
    kText,      // UTF-8 text; also digits for numeric, and text for types with an input function
    kInteger,   // int2, int4, int8
    kReal,      // float4, float8
    kBool,      // integer is 0 or 1
    kTimestamp, // integer is microseconds since 1970-01-01 UTC
    kDate,      // integer is days since 1970-01-01
    kJson,      // JSON text for json and jsonb columns
};

struct Cell {
    union {
        const char *text;
        int64_t integer;
        double real;
    };
    uint32_t length;
    CellKind kind;

    std::string_view view() const { return {text, length}; }
};

} // namespace pulse
