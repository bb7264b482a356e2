// The columns of a target as the catalog describes them. Called by LoadTarget. Regime: PG.
#pragma once

#include "store/target.hpp"

struct RelationData;

namespace pulse::store {

// Those that pulse fills: not generated ones, not identity. Errors: 54011 for more than
// kMaxColumns.
void DescribeColumns(RelationData *relation, Target *target);

// Raises 42804 for a metadata column that can't take the record's metadata.
void CheckMetadataType(const TargetColumn &column);

// The column of that name, or null.
TargetColumn *FindColumn(Target *target, const char *name);

// The column takes no more, whatever it took before.
void LimitBytes(TargetColumn *column, uint32_t max_bytes);

// They outlive the transaction: to be called before the target is described again.
void FreeTexts(Target *target);

} // namespace pulse::store
