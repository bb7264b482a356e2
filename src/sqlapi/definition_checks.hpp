// Checks of what a definition of a pipeline says, before it is stored.
// Regime: PG.
#pragma once

#include "store/positions.hpp"

namespace pulse::sqlapi {

// `value` of the setting or argument `name`. Raises 22023 naming what was wrong, however
// PostgreSQL's own parsers put it.
ingest::Position CheckPosition(const char *name, const char *value);

} // namespace pulse::sqlapi
