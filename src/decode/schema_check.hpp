// Whether a JSON Schema (draft 4) may be set, and what of it RapidJSON's validator gets to see.
// RapidJSON 1.1.0 takes anything for a schema: keywords it does not know and references it cannot
// follow count as fulfilled, a reference to itself ends the process, and some keywords it judges
// wrongly. So pulse walks the schema first and refuses with a reason what the validator does not
// do, or does not do right:
//   - keywords that draft 4 does not have; values of the wrong type;
//   - $ref that leaves the document, is no JSON pointer, or leads back to itself. Others are
//     replaced by what they stand for;
//   - enum with objects or arrays: their hashes do not tell {"a": "b"} from {"b": "a"};
//   - uniqueItems: it compares each with each, and by such hashes;
//   - patternProperties beside additionalProperties: what matches a pattern is judged by another
//     schema, or by none;
//   - names in required or dependencies that properties lacks, beside additionalProperties: it
//     takes them for allowed;
//   - multipleOf a fraction; patterns beyond schema_pattern.hpp.
// format is an annotation: it is not checked. An integer beyond 64 bits is judged as a number that
// is no integer.
// Regime: C++, pure. Errors: values; std::bad_alloc.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pulse::decode {

constexpr size_t kMaxSchemaBytes = 256 * 1024;
constexpr int kMaxSchemaDepth = 64;
constexpr size_t kMaxSubschemas = 1000; // with every reference replaced

struct SchemaFault {
    std::string pointer; // JSON pointer into the schema; "" = all of it
    std::string message;
    std::string hint; // empty = none
};

// Nothing: it may be set.
std::optional<SchemaFault> CheckSchema(std::string_view schema);

} // namespace pulse::decode
