// UTF-8 by RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF. NUL is well-formed
// UTF-8 but no PostgreSQL text can hold it, so it is a fault with a name of its own.
// Our own validator because the reader thread must not call PostgreSQL and RapidJSON 1.1's
// kParseValidateEncodingFlag reads past the end of its input.
// Regime: C++. Errors: none, faults are values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pulse {

enum class Utf8Fault : uint8_t { kNone, kInvalid, kNul };

struct Utf8Check {
    Utf8Fault fault = Utf8Fault::kNone;
    size_t offset = 0; // of the first byte at fault
};

// Finds the first fault of bytes, if any.
Utf8Check CheckUtf8(std::string_view bytes);

// Length in bytes (1..4) of the well-formed character at the start of bytes, 0 when there is none.
size_t Utf8CharacterLength(std::string_view bytes);

// Writes a code point up to U+10FFFF as 1 to 4 bytes; returns the end.
char *WriteUtf8(uint32_t code_point, char *target);

} // namespace pulse
