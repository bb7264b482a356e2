// The table behind reject.hpp: what each code is called, means, and what to do about it. README and
// the view pulse.error_codes print these words, so they address the operator.
#include "decode/reject.hpp"

#include <iterator>

namespace pulse::decode {

namespace {

constexpr RejectInfo kRejects[] = {
    {RejectCode::kSyntax, "decode", "syntax", "The value is not JSON by RFC 8259.",
     "Mend the producer; the message names the byte at fault."},
    {RejectCode::kEncoding, "decode", "encoding", "The value is not UTF-8, or holds a NUL byte.",
     "Make the producer write UTF-8 without NUL bytes."},
    {RejectCode::kNul, "decode", "nul",
     "A string holds \\u0000, which no PostgreSQL text can hold.",
     "Make the producer leave the character out, or send binary data as base64."},
    {RejectCode::kSurrogate, "decode", "surrogate",
     "A string holds half of a UTF-16 surrogate pair.",
     "Make the producer escape whole characters; cutting a string in two is the usual cause."},
    {RejectCode::kDepth, "decode", "depth", "Objects and arrays are nested too deep.",
     "Flatten the event."},
    {RejectCode::kOversize, "decode", "oversize", "The value is longer than max_message_bytes.",
     "Raise max_message_bytes and replay, or send less."},
    {RejectCode::kTooLargeToFetch, "decode", "too_large_to_fetch",
     "The record is larger than the 32 MiB that pulse fetches, so its value was never seen.",
     "skip() the record; limit max.message.bytes of the topic to less than 32 MiB."},
    {RejectCode::kNumber, "decode", "number", "A number is out of range or has too many digits.",
     "Send numbers within the range of the column; anything else as a string."},
    {RejectCode::kDupKey, "decode", "dup_key", "An object has the same member name twice.",
     "Make the producer write each name once: readers disagree about which one counts."},
    {RejectCode::kNotObject, "decode", "not_object", "The value is JSON, but not an object.",
     "Send one JSON object per record."},
    {RejectCode::kEmpty, "decode", "empty", "The value has zero bytes.",
     "Find out why the producer sends empty values."},
    {RejectCode::kTombstone, "decode", "tombstone", "The record has no value at all (Kafka null).",
     "Events are never deleted by tombstones; take the topic out of the compacting producer."},
    {RejectCode::kSchemaFramedPayload, "decode", "schema_framed_payload",
     "The value is framed for a schema registry and is not JSON inside.",
     "Use the JSON serializer; Avro and Protobuf are not read."},
    {RejectCode::kMissingField, "schema", "missing_field", "A required field is missing or null.",
     "Send the field; or give the column a default or allow NULL, and replay."},
    {RejectCode::kType, "schema", "type", "A field has a JSON type its column does not take.",
     "Send the type the message asks for; or change the column or the mapping, and replay."},
    {RejectCode::kTime, "schema", "time",
     "A time is neither RFC 3339 nor epoch milliseconds, or lies outside the years 1 to 9999.",
     "Send times like 2026-11-20T12:34:56.789Z."},
    {RejectCode::kTooOld, "schema", "too_old",
     "The event time is older than reject_older_than, or than what retention keeps.",
     "Raise reject_older_than and replay, or look at the producer's clock."},
    {RejectCode::kTooNew, "schema", "too_new",
     "The event time is further in the future than reject_newer_than.",
     "Look at the producer's clock; raise reject_newer_than and replay if it is right."},
    {RejectCode::kTooLong, "schema", "too_long", "A text is longer than its column may hold.",
     "Send a shorter text, or take the column out of the unique index."},
    {RejectCode::kSchema, "schema", "schema", "The event breaks the pipeline's JSON Schema.",
     "Mend the event, or the schema, and replay; the message names the rule, the path the value."},
    {RejectCode::kUnknownField, "schema", "unknown_field",
     "The event has a field that no column takes, and unknown fields are refused.",
     "Add a column or a mapping, or let the pipeline keep or drop unknown fields, and replay."},
    {RejectCode::kSqlError, "data", "sql_error", "PostgreSQL refused the row.",
     "Read sqlstate and the message, mend the cause, and replay."},
    {RejectCode::kStageError, "data", "stage_error", "A stage of the pipeline refused the row.",
     "Read stage and the message, mend the stage, and replay."},
    {RejectCode::kSkipped, "operator", "skipped", "An operator skipped the record.",
     "Nothing, or replay it by its id."},
    {RejectCode::kQuarantined, "operator", "quarantined",
     "The record was in flight in three crashes in a row; it is kept without being decoded.",
     "Look for triggers or types of yours that crash; else report it as a bug of pulse, with the "
     "record."},
};

constexpr RejectInfo kNoReject = {RejectCode::kNone, "", "", "", ""};

// InfoOf indexes the table by code, so its order must be the enum's.
constexpr bool
IsTableInOrder()
{
    for (size_t i = 0; i < std::size(kRejects); i++)
        if (static_cast<size_t>(kRejects[i].code) != i + 1)
            return false;
    return std::size(kRejects) == static_cast<size_t>(RejectCode::kQuarantined);
}
static_assert(IsTableInOrder());

} // namespace

const RejectInfo &
InfoOf(RejectCode code)
{
    size_t position = static_cast<size_t>(code);
    if (position == 0 || position > std::size(kRejects))
        return kNoReject;
    return kRejects[position - 1];
}

const RejectInfo *
AllRejects(int *count)
{
    *count = static_cast<int>(std::size(kRejects));
    return kRejects;
}

} // namespace pulse::decode
