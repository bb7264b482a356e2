// The nouns shared by every layer: where a record came from, what a decoded field looks like.
// Views only; whoever fills them owns the bytes (an Arena). A string_view whose data() is nullptr
// means SQL NULL / Kafka null, which is not the same as empty.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pulse {

// An offset always means the next one to read.
struct PartitionOffset {
    std::string topic;
    int32_t partition = 0;
    int64_t next_offset = 0;
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
