// Which JSON field feeds which column, and of what type: built from the target's catalog entry by
// store/target.cpp, read-only afterwards and safe to share between threads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.hpp"

namespace pulse::decode {

enum class ColumnType : uint8_t {
    kText, // text, varchar, char: any JSON scalar, as text
    kInt2,
    kInt4,
    kInt8, // JSON integers in range; "12" is no integer, 1.0 is none either
    kFloat4,
    kFloat8,    // JSON numbers in range
    kNumeric,   // JSON numbers, digits kept
    kBool,      // true, false
    kTimestamp, // RFC 3339 or epoch milliseconds (timestamp without time zone is taken as UTC)
    kDate,      // RFC 3339 full-date
    kUuid,      // string in the 8-4-4-4-12 form
    kJson,      // any value, as JSON text
    kOther,     // any other type: a JSON string or scalar as text for the type's input function;
                // objects and arrays as their JSON text
};

constexpr int32_t kAnyDigits = INT32_MAX;

struct ColumnSpec {
    std::string name;
    ColumnType type = ColumnType::kText;
    bool is_required = false;                // NOT NULL without a default
    bool is_event_time = false;              // too_old / too_new apply
    bool is_array = false;                   // of type; a JSON array of values that type takes
    char delimiter = ',';                    // between an array's elements
    uint32_t max_characters = 0;             // varchar(n), char(n); 0 = none
    int32_t max_integer_digits = kAnyDigits; // numeric(p, s): p - s
    int32_t time_precision = 6;              // timestamp(p): p
    bool is_padded = false;                  // char(n): trailing blanks mean nothing
    uint32_t max_bytes = 0; // 0 = none; longer text is too_long (columns of the unique index)
    std::vector<std::string> path; // reference tokens of the JSON pointer; {name} by default

    bool operator==(const ColumnSpec &) const = default;
};

enum class UnknownFields : uint8_t { kKeep, kDrop, kReject };

struct Limits {
    uint32_t max_message_bytes = 1024 * 1024;
    int max_depth = 64;
    int64_t reject_older_than_us = 400LL * 86400 * 1000000; // 0 = never
    int64_t reject_newer_than_us = 86400LL * 1000000;       // 0 = never
    int64_t not_before_us = INT64_MIN; // since 1970: older events were dropped by retention

    bool operator==(const Limits &) const = default;
};

struct Mapping {
    std::vector<ColumnSpec> columns; // cells come in this order
    int rest_column = -1;            // index in columns of the jsonb column that takes the rest
    UnknownFields unknown_fields = UnknownFields::kKeep;
    Limits limits;
    std::string schema; // JSON Schema that CheckSchema() has passed; empty = none

    bool operator==(const Mapping &) const = default;
};

// "/a/b~1c" -> {"a", "b/c"} (RFC 6901); errors: no leading slash, bad escape.
Result<std::vector<std::string>> ParsePointer(std::string_view pointer);

} // namespace pulse::decode
