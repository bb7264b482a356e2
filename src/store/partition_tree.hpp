// The tables that the rows of a target end up in: which of them pulse makes, which it may write
// directly, and what is asked of all. Called by LoadTarget and by whoever picks a leaf. Regime: PG.
#pragma once

#include "store/target.hpp"

struct RelationData;

namespace pulse::store {

// Fills members: from then on IsMember() knows them.
void ListMembers(Target *target);
void FreeMembers(Target *target);

// Raises 42809 for a member whose rows commit elsewhere or vanish in a crash; notes the triggers of
// all.
void DescribeMembers(RelationData *relation, Target *target);

// Whether pulse makes the partitions, and why not.
void DescribePartitioning(RelationData *relation, const PipelineDefinition &definition,
                          Target *target);

} // namespace pulse::store
