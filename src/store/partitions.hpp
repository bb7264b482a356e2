// Partitions of managed targets (range by one timestamptz column), made on demand before the batch
// transaction: CREATE TABLE + ATTACH, so the parent is never locked exclusively. Regime: PG.
#pragma once

#include <cstdint>

#include "store/target.hpp"

namespace pulse::store {

// Makes the partition that holds timestamp (PostgreSQL's microseconds) unless it is there: then
// false. To be called in a transaction of its own, for locks are held to its end; a short
// lock_timeout applies. Errors: 55P03 when the parent is locked (ANALYZE, VACUUM, CREATE INDEX
// CONCURRENTLY hold up ATTACH), 42P07 never.
bool EnsurePartition(const Target &target, int64_t timestamp);

// Whether that table is the target or a leaf of it. A partition that has partitions itself is not:
// what is missing there is the user's to make.
bool IsPartOf(const Target &target, const char *schema, const char *table);

} // namespace pulse::store
