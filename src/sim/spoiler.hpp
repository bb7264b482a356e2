// Malformed records: each spoiler turns a good event's bytes into a record that pulse must refuse
// with a known error code. One for every code of class decode and schema that a pipeline with
// default settings can give. Regime: C++.
#pragma once

#include <string>
#include <string_view>

namespace pulse::sim {

struct Spoiler {
    std::string_view error_code;                            // as in raw.dlq
    void (*spoil)(std::string_view good, std::string *bad); // appends to bad
    bool is_null = false;                                   // the record has no value at all
};

constexpr int kSpoilers = 16;
extern const Spoiler kSpoilerTable[kSpoilers];

} // namespace pulse::sim
