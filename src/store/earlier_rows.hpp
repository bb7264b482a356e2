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

struct EarlierRow {
    const char *topic;
    int32_t partition;
    int64_t kafka_offset;
    int32_t topic_epoch;  // 0 when the target has no such column
    int64_t timestamp_ms; // of its record; -1 = none
};

// A topic made again has its offsets again. What tells rows of its earlier records from those of
// the present ones.
enum class EpochSource : uint8_t { kColumn, kTimestamp, kNothing };
EpochSource EpochSourceOf(const Target &target);

using RowVisitor = void (*)(const EarlierRow &row, void *argument);

// Calls visit for each row of these topics and offsets. A sequential scan unless the table has an
// index on them. Raises 42501 when row-level security would hide rows from the role.
void VisitRows(const Target &target, unsigned int role, const OffsetSpan &span, RowVisitor visit,
               void *argument);

} // namespace pulse::store
