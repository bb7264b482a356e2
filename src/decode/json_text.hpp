// JSON strings and numbers as the payload spells them: checks and conversions that RapidJSON 1.1
// does wrong, not at all, or at the price of a copy.
// Regime: C++. Errors: values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pulse::decode {

enum class EscapeFault : uint8_t { kNone, kNul, kSurrogate };

struct EscapeCheck {
    EscapeFault fault = EscapeFault::kNone;
    size_t offset = 0; // of the backslash
};

// Looks for \u0000 and for surrogates without their other half. inner is what stands between the
// quotes of a string that is otherwise well-formed.
EscapeCheck CheckEscapes(std::string_view inner);

// Writes the characters inner stands for to target, which needs inner.size() bytes; returns how
// many bytes they take. inner has passed CheckEscapes.
size_t Unescape(std::string_view inner, char *target);

// Whether jsonb and numeric take the number and a double can hold its magnitude: at most 1000
// digits, and zero or between the smallest and the largest double
// (4.9e-324, 1.7976931348623157e308). number is well-formed JSON.
bool IsNumberInRange(std::string_view number);

// Digits that the number has before its decimal point when written without exponent: 2 for 12.5 and
// 1.25e1, 0 for 0.9, -1 for 0.09; INT32_MIN for zero. number is well-formed JSON and in range.
int32_t DigitsBeforePoint(std::string_view number);

} // namespace pulse::decode
