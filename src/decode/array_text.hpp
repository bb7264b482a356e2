// A JSON array -> the text of a PostgreSQL array, element by element by the type of the column's
// elements. Called by ToCell. Regime: C++. Errors: a Reject with the element's path.
#pragma once

#include "decode/convert.hpp"

namespace pulse::decode {

// value is an array. Elements may be arrays of one shape (PostgreSQL knows no other), 6 levels deep
// at most; null elements are NULL.
bool ToArrayCell(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context,
                 Cell *cell);

} // namespace pulse::decode
