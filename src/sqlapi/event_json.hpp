// A decoded event as JSON, column by column: what decode(), preview() and extract() show. Regime:
// C++ with doors (PostgreSQL prints the times).
#pragma once

#include <string>

#include "base/types.hpp"
#include "decode/mapping.hpp"

namespace pulse::sqlapi {

std::string EventJson(const decode::Mapping &mapping, const Cell *cells);

} // namespace pulse::sqlapi
