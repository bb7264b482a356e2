// Retention: whole partitions of a target, older than pulse.retention, are dropped, and the ledger
// says how many rows went. Regime: PG, each inside a transaction of its own.
#pragma once

#include <cstdint>

#include "store/target.hpp"

namespace pulse::store {

// Some pipeline has a retention: worth a look.
bool WantsRetention();

struct ExpiredPartition {
    unsigned int leaf; // Oid
    int64_t upper;     // TimestampTz; its rows are all older
};

// What is in the way of retention, in words.
struct Obstacle {
    const char *reason; // palloc'd; null = nothing
    const char *hint;
};

// Why nothing of the pipeline's target is ever dropped.
Obstacle WhyNothingExpires(const PipelineDefinition &definition, const Target &target);

// Another pipeline of the same target that has a retention; palloc'd, null = none.
const char *SharerWithRetention(const char *pipeline);

// The pipeline's partitions that lie before now - retention as a whole, oldest first; palloc'd. Its
// settings lie over the process's until the transaction ends. Target and definition are filled.
// *keep_from: what begins here or later is kept; -infinity without a retention. *obstacle: what is
// in the way of all that is not found but should go.
int FindExpired(const char *pipeline, PipelineDefinition *definition, Target *target,
                ExpiredPartition **found, int64_t *keep_from, Obstacle *obstacle);

// Who has the partition or its table locked, by process id, the oldest transaction first; palloc'd.
const char *HoldersOf(unsigned int leaf);

// When nothing older is left: from now on older events are rejected (too_old), so that nothing that
// was counted and dropped is counted again when it is read again.
void KeepFrom(const PipelineDefinition &definition, const Target &target, int64_t keep_from);

// Counts the rows into pulse.offsets, notes the border in pulse.pipelines and drops the partition;
// its number of rows. False when it was detached meanwhile. Raises 55P03 while somebody uses the
// table.
bool DropExpired(const PipelineDefinition &definition, const Target &target,
                 const ExpiredPartition &expired, int64_t *rows);

} // namespace pulse::store
