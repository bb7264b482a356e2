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

// Rows not sent; reads all of them.
int64_t CountOutbox();

// Deletes some rows that were sent more than seven days ago. True when there may be more.
bool PruneOutbox();

} // namespace pulse::store
