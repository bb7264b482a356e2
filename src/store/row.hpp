// One record of a batch as the values of a row. Called by the batch's set-returning function
// (writer.cpp). Regime: PG. Errors: what a type's input function or a domain says; then
// job->current_column is the column.
#pragma once

#include <cstdint>

#include "store/writer.hpp"

namespace pulse::store {

struct RowBuilder;

RowBuilder *NewRowBuilder(const Target &target); // palloc'd

// Makes room for the record, in the context of the builder.
void ReserveRow(RowBuilder *builder, const InsertJob &job, const ingest::Record &record);

// values (Datums) and nulls have one entry a column of the target. They point into the builder, the
// batch and the current context, until the next call.
void BuildRow(RowBuilder *builder, InsertJob *job, const ingest::Record &record, uintptr_t *values,
              bool *nulls);

// Headers as a jsonb Datum, [{"key": "...", "value": "..."}]; what isn't UTF-8 appears as key_hex
// and value_hex. 0 for no headers.
uintptr_t HeadersDatum(std::string_view headers);

} // namespace pulse::store
