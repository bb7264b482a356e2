// Which records of a range of offsets are rows of the target: one pass over it, as the role that
// writes it. Regime: PG, inside a transaction of its own.
#pragma once

#include <cstdint>

#include "store/target.hpp"

namespace pulse::store {

// True when rows carry the topic, partition and offset of their record.
bool HasCoordinates(const Target &target);

struct OffsetSpan {
    const char *const *topics;
    int topic_count;
    int64_t begin;
    int64_t end;
};

using RowVisitor = void (*)(const char *topic, int32_t partition, int64_t kafka_offset,
                            void *argument);

// Calls visit for each row of these topics and offsets. A sequential scan unless the table has an
// index on them. Raises 42501 when row-level security would hide rows from the role.
void VisitRows(const Target &target, unsigned int role, const OffsetSpan &span, RowVisitor visit,
               void *argument);

} // namespace pulse::store
