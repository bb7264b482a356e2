// What checking a JSON Schema and judging by it share: a small document tree, and numbers as
// numbers. RapidJSON's own number parser is never reached: in 1.1.0 a thirty-byte number sends it
// out of bounds. Numbers come as text and are typed here: integers of 64 bits as such, everything
// else, also longer integers, as double.
// Regime: C++. Errors: std::bad_alloc, RapidJsonAssertion.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

#include "decode/rapidjson_prelude.hpp"

namespace pulse::decode {

using SchemaPool = rapidjson::MemoryPoolAllocator<RapidJsonAllocator>;
using SchemaValue = rapidjson::GenericValue<rapidjson::UTF8<>, SchemaPool>;
using SchemaDom = rapidjson::GenericDocument<rapidjson::UTF8<>, SchemaPool, RapidJsonAllocator>;

inline std::string_view
TextOf(const SchemaValue &value)
{
    return {value.GetString(), value.GetStringLength()};
}

// Reports a number as RapidJSON's handlers expect it. text is well-formed and in the range of a
// double.
template <typename Handler>
bool
ReportNumber(std::string_view text, Handler *handler)
{
    const char *end = text.data() + text.size();
    if (text.find_first_of(".eE") == std::string_view::npos) {
        uint64_t natural = 0;
        int64_t integer = 0;
        if (text[0] != '-' && std::from_chars(text.data(), end, natural).ec == std::errc())
            return handler->Uint64(natural);
        if (text[0] == '-' && std::from_chars(text.data(), end, integer).ec == std::errc())
            return handler->Int64(integer);
    }
    double real = 0;
    (void)std::from_chars(text.data(), end, real);  // underflow leaves 0
    return handler->Double(real == 0 ? 0.0 : real); // no -0: it is equal to 0 and has other bytes
}

// The first of that name, or null.
const SchemaValue *Member(const SchemaValue &object, std::string_view name);

// Reads JSON of up to max_depth levels; false when it is none, or deeper, or holds a number that is
// out of the range of a double.
bool ParseSchemaJson(std::string_view text, int max_depth, SchemaDom *dom);

} // namespace pulse::decode
