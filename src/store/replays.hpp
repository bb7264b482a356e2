// Dead letters on their way back: which ones are due, what they hold, what became of them, and the
// ledger of it (pulse.replays). Regime: PG, inside a transaction.
#pragma once

#include <cstdint>
#include <string_view>

#include "store/dead_letters.hpp"
#include "store/stored_bytes.hpp"

namespace pulse::store {

// Which letters of a pipeline; null and 0 = any. Arrays live as long as the call.
struct LetterFilter {
    const int64_t *ids;
    int id_count;
    const char *error_code;
    int64_t since; // TimestampTz of first_seen_at
    bool has_since;
};

// A letter as the record it was. Views are valid during the visit.
struct StoredLetter {
    int64_t dlq_id;
    const char *topic; // empty: it came by ingest(), and partition is -1
    int32_t partition;
    int32_t topic_epoch;
    int64_t kafka_offset;
    int64_t timestamp_ms; // -1 = none
    std::string_view key;
    std::string_view value; // the corrected one where there is one
    const StoredHeader *headers;
    int header_count;
};

struct ReplayCounts {
    int64_t replayed; // rows inserted
    int64_t duplicates;
    int64_t failed;
};

// Keeps the pipeline from being dropped until the transaction ends. False when it does not exist.
bool HoldPipeline(const char *name);
// The name of the first pipeline behind that one, or null; palloc'd.
char *NextPipeline(const char *behind);

// How many letters are due now.
int64_t CountLetters(const char *pipeline, const LetterFilter &filter);
// Locks letters that are due, in the order of their ids, and visits them: up to limit letters and
// max_bytes of payload, but one at least. Letters that another replay holds are passed over.
void TakeLetters(const char *pipeline, const LetterFilter &filter, int64_t after_id, int limit,
                 int64_t max_bytes, void (*visit)(const StoredLetter &letter, void *argument),
                 void *argument);

// They are rows now, or were already.
void SettleLetters(const int64_t *ids, int count);
// Refused again: parked once that happened max_replays times.
void RefuseLetter(int64_t dlq_id, const LetterReason &reason, int max_replays);

void NoteReplay(const char *pipeline, const OwnedPartition &partition, const ReplayCounts &counts);

} // namespace pulse::store
