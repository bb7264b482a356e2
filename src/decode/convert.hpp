// A scanned JSON value -> the cell of one column, by the column's type.
// Regime: C++. Errors: a Reject with the column's path; std::bad_alloc.
#pragma once

#include <cstdint>

#include "base/arena.hpp"
#include "base/types.hpp"
#include "decode/mapping.hpp"
#include "decode/message.hpp"
#include "decode/scanner.hpp"

namespace pulse::decode {

// What a conversion needs beside the value.
struct ConvertContext {
    const Limits &limits;
    int64_t now_us;
    Arena &arena;
    Reject *reject;
    const Pointer *path = nullptr; // of an array's element; null: the column's own
};

// value may be absent. Text that has no escapes stays in the document, other text goes to the
// arena.
bool ToCell(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context,
            Cell *cell);

// The same for one element of an array column, or a column of no array; null is always allowed.
bool ToScalarCell(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context,
                  Cell *cell);

Pointer ColumnPointer(const ColumnSpec &column);

// Refuses the value of a column.
bool RefuseColumn(const ColumnSpec &column, RejectCode code, const Message &message,
                  const ConvertContext &context);

// "found string "12"": what stands where something else was expected.
void AddFound(const JsonValue &value, Message *message);

} // namespace pulse::decode
