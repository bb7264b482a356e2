// The closed list of reasons why a record can't become an event: the vocabulary of raw.dlq.
// product.md section 10 is the contract for the names; the README table and pulse.error_codes print
// this one list.
#pragma once

#include <cstdint>
#include <string_view>

namespace pulse::decode {

enum class RejectCode : uint8_t {
    kNone,
    // class decode
    kSyntax,
    kEncoding,
    kNul,
    kSurrogate,
    kDepth,
    kOversize,
    kTooLargeToFetch,
    kNumber,
    kDupKey,
    kNotObject,
    kEmpty,
    kTombstone,
    kSchemaFramedPayload,
    // class schema
    kMissingField,
    kType,
    kTime,
    kTooOld,
    kTooNew,
    kTooLong,
    kSchema,
    kUnknownField,
    // class data
    kSqlError,
    kStageError,
    // class operator
    kSkipped,
    kQuarantined,
};

struct RejectInfo {
    RejectCode code;
    std::string_view error_class; // decode, schema, data, operator
    std::string_view name;        // error_code as stored
    std::string_view meaning;     // one sentence
    std::string_view remedy;      // one sentence
};

// What is stored beside the payload. Views point into the batch's arena or are static.
struct Reject {
    RejectCode code = RejectCode::kNone;
    std::string_view message; // what was expected and found; at most 256 bytes of payload
    std::string_view path;    // JSON pointer of the failing value; null when there is none
};

const RejectInfo &InfoOf(RejectCode code);
// All codes in the order above, without kNone; count in *count.
const RejectInfo *AllRejects(int *count);

} // namespace pulse::decode
