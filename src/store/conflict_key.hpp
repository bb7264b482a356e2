// The key of a target that tells duplicates. Called by LoadTarget. Regime: PG.
#pragma once

#include "store/target.hpp"

struct RelationData;

namespace pulse::store {

// Chooses among the unique indexes. Errors: 0A000 when only a deferrable one could, or when the
// names are too long.
void DescribeConflictKey(RelationData *relation, Target *target);

} // namespace pulse::store
