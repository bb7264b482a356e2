// JSON pointers into a schema: written down for messages, and followed for $ref.
// Regime: C++, pure. Errors: SchemaFault is thrown; std::bad_alloc.
#pragma once

#include <string>
#include <string_view>

#include "decode/schema_json.hpp"

namespace pulse::decode {

void AppendToken(std::string_view token, std::string *pointer);

std::string Join(std::string pointer, std::string_view token);
std::string Join(std::string pointer, rapidjson::SizeType index);

struct Referred {
    const SchemaValue *value;
    std::string pointer; // the one that every way of writing the reference comes to
};

// Where in the document a reference leads, say "#/definitions/price"; `here` is where it stands.
Referred FollowReference(const SchemaValue &document, std::string_view reference,
                         const std::string &here);

} // namespace pulse::decode
