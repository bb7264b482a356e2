// The schema that RapidJSON's validator is given: made anew of what was checked, without $ref and
// annotations; see schema_check.hpp. Regime: C++. Errors: values; std::bad_alloc.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "decode/schema_check.hpp"
#include "decode/schema_json.hpp"

namespace pulse::decode {

struct CheckedSchema {
    SchemaDom dom;
    // Where a subschema came from: pointers into dom -> pointers into the schema as it was set;
    // only those that differ.
    std::map<std::string, std::string> origins;
};

std::optional<SchemaFault> WalkSchema(std::string_view schema, CheckedSchema *checked);

} // namespace pulse::decode
