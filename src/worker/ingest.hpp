// pulse.ingest(): events that come from SQL instead of Kafka, through the path of a batch: decoded,
// inserted with the same isolation of bad rows, counted, rejects as dead letters. All in the
// transaction of the calling session; pulse.offsets is not touched, the ledger is pulse.ingests.
// Sessions never wait for each other or for workers but by equal events and missing partitions:
// each has rows of its own in the ledger and in the counters. Regime: C++ with doors.
#pragma once

#include <cstdint>
#include <string_view>

namespace pulse::worker {

struct IngestCounts {
    int64_t accepted = 0; // rows, duplicates, filtered by a trigger
    int64_t rejected = 0;
};

// events are JSON texts that live as long as the call. Errors, all of them with nothing done:
// pg::Error, 42704 no such pipeline, 53400 its workers are too far behind.
IngestCounts Ingest(const char *pipeline, const std::string_view *events, int count);

} // namespace pulse::worker
