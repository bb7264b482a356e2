// Conversion of values; see convert.hpp. JSON types are taken by their word: the string "12" is no
// integer and 1.0 is none either, for the producer's type is part of what an event says.
#include "decode/convert.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/timestamp.hpp"
#include "decode/array_text.hpp"
#include "decode/json_text.hpp"
#include "decode/path_tree.hpp"

namespace pulse::decode {

namespace {

uint32_t
CountCharacters(std::string_view text)
{
    uint32_t count = 0;
    for (char byte : text)
        count += (static_cast<unsigned char>(byte) & 0xC0) != 0x80 ? 1 : 0;
    return count;
}

std::string_view
WithoutBlanks(std::string_view text)
{
    return text.substr(0, text.find_last_not_of(' ') + 1);
}

// char(n) knows no trailing blanks, and varchar(n) cuts off those that are too many: the cell is
// what the row will hold.
std::string_view
AsStored(std::string_view text, const ColumnSpec &column)
{
    if (column.is_padded)
        return WithoutBlanks(text);
    if (column.max_characters == 0 || text.size() <= column.max_characters)
        return text;
    size_t excess = std::max(CountCharacters(text), column.max_characters) - column.max_characters;
    return text.substr(0, std::max(WithoutBlanks(text).size(), text.size() - excess));
}

bool
SetText(CellKind kind, std::string_view text, const ColumnSpec &column,
        const ConvertContext &context, Cell *cell)
{
    text = AsStored(text, column);
    if (column.max_bytes != 0 && text.size() > column.max_bytes) {
        Message message;
        message.Add("text of ").AddSize(text.size()).Add(" bytes, the column takes at most ");
        message.AddSize(column.max_bytes);
        return RefuseColumn(column, RejectCode::kTooLong, message, context);
    }
    if (column.max_characters != 0 && text.size() > column.max_characters &&
        CountCharacters(text) > column.max_characters) {
        Message message;
        message.Add("text of ").AddSize(CountCharacters(text));
        message.Add(" characters, the column takes at most ").AddSize(column.max_characters);
        return RefuseColumn(column, RejectCode::kTooLong, message, context);
    }
    cell->text = text.data();
    cell->length = static_cast<uint32_t>(text.size());
    cell->kind = kind;
    return true;
}

void
SetInteger(CellKind kind, int64_t integer, Cell *cell)
{
    cell->integer = integer;
    cell->length = 0;
    cell->kind = kind;
}

bool
RefuseValue(const ColumnSpec &column, RejectCode code, const char *expected, const JsonValue &value,
            const ConvertContext &context)
{
    Message message;
    message.Add("expected ").Add(expected).Add(", ");
    AddFound(value, &message);
    return RefuseColumn(column, code, message, context);
}

bool
RefuseType(const ColumnSpec &column, const char *expected, const JsonValue &value,
           const ConvertContext &context)
{
    return RefuseValue(column, RejectCode::kType, expected, value, context);
}

// The characters of a string.
std::string_view
StringText(const JsonValue &value, Arena &arena)
{
    std::string_view inner = value.inner();
    if (!value.has_escape)
        return inner;
    char *unescaped = arena.Allocate(inner.size());
    return {unescaped, Unescape(inner, unescaped)};
}

bool
ToText(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context, Cell *cell)
{
    if (value.kind == JsonKind::kString)
        return SetText(CellKind::kText, StringText(value, context.arena), column, context, cell);
    bool is_container = value.kind == JsonKind::kObject || value.kind == JsonKind::kArray;
    if (is_container && column.type == ColumnType::kText)
        return RefuseType(column, "string, number or boolean", value, context);
    return SetText(CellKind::kText, value.view(), column, context, cell);
}

bool
IsIntegerLiteral(const JsonValue &value)
{
    return value.kind == JsonKind::kNumber &&
           value.view().find_first_of(".eE") == std::string_view::npos;
}

bool
ToInteger(const ColumnSpec &column, int64_t minimum, int64_t maximum, const JsonValue &value,
          const ConvertContext &context, Cell *cell)
{
    if (!IsIntegerLiteral(value))
        return RefuseType(column, "integer", value, context);
    int64_t integer = 0;
    const char *end = value.text + value.length;
    std::from_chars_result result = std::from_chars(value.text, end, integer);
    if (result.ec != std::errc() || result.ptr != end || integer < minimum || integer > maximum) {
        Message message;
        message.Add("expected integer from ").Add(minimum).Add(" to ").Add(maximum).Add(", ");
        AddFound(value, &message);
        return RefuseColumn(column, RejectCode::kNumber, message, context);
    }
    SetInteger(CellKind::kInteger, integer, cell);
    return true;
}

template <typename Real>
bool
ToReal(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context, Cell *cell)
{
    if (value.kind != JsonKind::kNumber)
        return RefuseType(column, "number", value, context);
    Real real = 0;
    const char *end = value.text + value.length;
    std::from_chars_result result = std::from_chars(value.text, end, real);
    if (result.ec != std::errc() || result.ptr != end) {
        Message message;
        message.Add("out of range of ").Add(sizeof(Real) == 4 ? "real" : "double precision");
        message.Add(", ");
        AddFound(value, &message);
        return RefuseColumn(column, RejectCode::kNumber, message, context);
    }
    cell->real = static_cast<double>(real);
    cell->length = 0;
    cell->kind = CellKind::kReal;
    return true;
}

bool
ToBool(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context, Cell *cell)
{
    if (value.kind != JsonKind::kTrue && value.kind != JsonKind::kFalse)
        return RefuseType(column, "boolean", value, context);
    SetInteger(CellKind::kBool, value.kind == JsonKind::kTrue ? 1 : 0, cell);
    return true;
}

// numeric(p, s): what rounding may still carry over the edge PostgreSQL refuses itself.
bool
ToNumeric(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context,
          Cell *cell)
{
    if (value.kind != JsonKind::kNumber)
        return RefuseType(column, "number", value, context);
    if (DigitsBeforePoint(value.view()) > column.max_integer_digits) {
        Message message;
        message.Add("expected a number below 10^").Add(int64_t{column.max_integer_digits});
        message.Add(", ");
        AddFound(value, &message);
        return RefuseColumn(column, RejectCode::kNumber, message, context);
    }
    return SetText(CellKind::kText, value.view(), column, context, cell);
}

void
AddDuration(int64_t duration_us, Message *message)
{
    if (duration_us % kMicrosPerDay == 0)
        message->Add(duration_us / kMicrosPerDay).Add(" days");
    else
        message->Add(duration_us / kMicrosPerSecond).Add(" seconds");
}

// too_old and too_new. time_us lies in the years 1 to 9999, now_us is anything.
bool
CheckEventTime(const ColumnSpec &column, int64_t time_us, const JsonValue &value,
               const ConvertContext &context)
{
    if (!column.is_event_time)
        return true;
    const Limits &limits = context.limits;
    int64_t age_us = 0;
    if (__builtin_sub_overflow(context.now_us, time_us, &age_us))
        age_us = context.now_us < 0 ? std::numeric_limits<int64_t>::min() + 1
                                    : std::numeric_limits<int64_t>::max();
    bool is_too_old = limits.reject_older_than_us > 0 && age_us > limits.reject_older_than_us;
    bool is_too_new = limits.reject_newer_than_us > 0 && age_us < -limits.reject_newer_than_us;
    bool is_expired = time_us < limits.not_before_us;
    if (!is_too_old && !is_too_new && !is_expired)
        return true;
    Message message;
    if (is_expired && !is_too_old) {
        message.Add("event time is before what retention keeps, ");
        AddFound(value, &message);
        return RefuseColumn(column, RejectCode::kTooOld, message, context);
    }
    message.Add("event time is more than ");
    AddDuration(is_too_old ? limits.reject_older_than_us : limits.reject_newer_than_us, &message);
    message.Add(is_too_old ? " in the past, " : " in the future, ");
    AddFound(value, &message);
    return RefuseColumn(column, is_too_old ? RejectCode::kTooOld : RejectCode::kTooNew, message,
                        context);
}

bool
ToTimestamp(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context,
            Cell *cell)
{
    constexpr char kExpected[] = "RFC 3339 time or epoch milliseconds";
    std::optional<int64_t> time_us;
    if (value.kind == JsonKind::kString) {
        time_us = ParseRfc3339(StringText(value, context.arena));
    } else if (value.kind == JsonKind::kNumber) {
        int64_t epoch_ms = 0;
        const char *end = value.text + value.length;
        std::from_chars_result result = std::from_chars(value.text, end, epoch_ms);
        if (result.ec == std::errc() && result.ptr == end)
            time_us = MicrosFromEpochMs(epoch_ms);
    } else {
        return RefuseType(column, kExpected, value, context);
    }
    if (time_us)
        time_us = RoundTime(*time_us, column.time_precision);
    if (!time_us || *time_us > kMaxTimestampUs)
        return RefuseValue(column, RejectCode::kTime, kExpected, value, context);
    SetInteger(CellKind::kTimestamp, *time_us, cell);
    return CheckEventTime(column, *time_us, value, context);
}

bool
ToDate(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context, Cell *cell)
{
    constexpr char kExpected[] = "RFC 3339 date";
    if (value.kind != JsonKind::kString)
        return RefuseType(column, kExpected, value, context);
    std::optional<int32_t> days = ParseFullDate(StringText(value, context.arena));
    if (!days)
        return RefuseValue(column, RejectCode::kTime, kExpected, value, context);
    SetInteger(CellKind::kDate, *days, cell);
    return CheckEventTime(column, *days * kMicrosPerDay, value, context);
}

bool
IsUuid(std::string_view text)
{
    if (text.size() != 36)
        return false;
    for (size_t i = 0; i < text.size(); i++) {
        char byte = text[i];
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (byte != '-')
                return false;
            continue;
        }
        char lower = static_cast<char>(byte | 0x20);
        if (!(byte >= '0' && byte <= '9') && !(lower >= 'a' && lower <= 'f'))
            return false;
    }
    return true;
}

bool
ToUuid(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context, Cell *cell)
{
    if (value.kind == JsonKind::kString) {
        std::string_view text = StringText(value, context.arena);
        if (IsUuid(text))
            return SetText(CellKind::kText, text, column, context, cell);
    }
    return RefuseType(column, "UUID string", value, context);
}

} // namespace

bool
ToCell(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context, Cell *cell)
{
    if (value.kind == JsonKind::kAbsent || value.kind == JsonKind::kNull) {
        bool is_null = value.kind == JsonKind::kNull;
        cell->text = nullptr;
        cell->length = 0;
        cell->kind = is_null ? CellKind::kNull : CellKind::kMissing;
        if (!column.is_required)
            return true;
        Message message;
        message.Add(is_null ? "required field is null" : "required field is missing");
        return RefuseColumn(column, RejectCode::kMissingField, message, context);
    }
    if (!column.is_array)
        return ToScalarCell(column, value, context, cell);
    if (value.kind != JsonKind::kArray)
        return RefuseType(column, "array", value, context);
    return ToArrayCell(column, value, context, cell);
}

bool
ToScalarCell(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context,
             Cell *cell)
{
    if (value.kind == JsonKind::kNull) {
        *cell = {{nullptr}, 0, CellKind::kNull};
        return true;
    }
    switch (column.type) {
    case ColumnType::kText:
    case ColumnType::kOther:
        return ToText(column, value, context, cell);
    case ColumnType::kInt2:
        return ToInteger(column, INT16_MIN, INT16_MAX, value, context, cell);
    case ColumnType::kInt4:
        return ToInteger(column, INT32_MIN, INT32_MAX, value, context, cell);
    case ColumnType::kInt8:
        return ToInteger(column, INT64_MIN, INT64_MAX, value, context, cell);
    case ColumnType::kFloat4:
        return ToReal<float>(column, value, context, cell);
    case ColumnType::kFloat8:
        return ToReal<double>(column, value, context, cell);
    case ColumnType::kNumeric:
        return ToNumeric(column, value, context, cell);
    case ColumnType::kBool:
        return ToBool(column, value, context, cell);
    case ColumnType::kTimestamp:
        return ToTimestamp(column, value, context, cell);
    case ColumnType::kDate:
        return ToDate(column, value, context, cell);
    case ColumnType::kUuid:
        return ToUuid(column, value, context, cell);
    case ColumnType::kJson:
        return SetText(CellKind::kJson, value.view(), column, context, cell);
    }
    return RefuseType(column, "a column type that pulse knows", value, context);
}

bool
RefuseColumn(const ColumnSpec &column, RejectCode code, const Message &message,
             const ConvertContext &context)
{
    if (context.path != nullptr)
        return Refuse(code, message, context.path, context.arena, context.reject);
    Pointer path = ColumnPointer(column);
    return Refuse(code, message, &path, context.arena, context.reject);
}

Pointer
ColumnPointer(const ColumnSpec &column)
{
    Pointer path;
    for (const std::string &name : PathOf(column))
        path.AddName(name);
    return path;
}

void
AddFound(const JsonValue &value, Message *message)
{
    constexpr const char *kNames[] = {"nothing", "null",   "false",  "true",
                                      "number",  "string", "object", "array"};
    message->Add("found ").Add(kNames[static_cast<size_t>(value.kind)]);
    if (value.kind >= JsonKind::kNumber)
        message->Add(" ").AddExcerpt(value.view());
}

} // namespace pulse::decode
