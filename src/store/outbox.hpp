// pulse.outbox: records that pulse.produce() left, on their way to Kafka. Regime: PG, inside a
// transaction.
#pragma once

#include "store/outgoing.hpp"

namespace pulse::store {

// Topics that rows wait for; palloc'd. Returns their number.
int ReadOutboxTopics(char ***topics);

// Visits rows that wait for the topic in the order of their ids, then those that Kafka refused and
// whose time to be tried again has come. Not those in except. Returns how many were visited.
int TakeOutboxRows(const char *topic, const int64_t *except, int except_count,
                   const TakeLimits &limits, VisitOutgoing visit, void *argument);

void MarkSent(const int64_t *ids, const int64_t *partitions, const int64_t *offsets, int count);
// Kafka refused the row itself: it waits a minute, then twice as long each time, up to an hour.
void PostponeOutboxRow(int64_t id, const char *reason);

// Committed rows not sent, as of now in any isolation level (own: those of this transaction, which
// are none of them); reads all of them.
int64_t CountOutbox(int64_t own);

// Deletes rows that were sent more than seven days ago, for a tenth of a second; locked ones stay.
// True when there may be more.
bool PruneOutbox();

} // namespace pulse::store
