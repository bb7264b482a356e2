// Text of others (a payload, or a message of PostgreSQL or of a trigger, which may quote one) made
// fit for a log line or a reason: short, in one line, nothing in it that a terminal obeys.
// Regime: C++. Errors: none.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pulse {

constexpr size_t kExcerptBytes = 256;

// How control characters are written.
enum class Escapes : uint8_t {
    kShort, // \n and \t, others as \xnn: for text
    kHex,   // all as \xnn: for JSON, where \n is something else than the byte
};

// Its beginning, cut between characters; control characters and bytes that are no UTF-8 are
// escaped. Not longer than max_bytes and "...".
std::string Excerpt(std::string_view text, size_t max_bytes = kExcerptBytes,
                    Escapes escapes = Escapes::kShort);

} // namespace pulse
