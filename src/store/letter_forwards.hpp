// raw.dlq as the outbox of the dead-letter topic: which letters wait to be forwarded, what they
// carry there, and what became of them. Regime: PG, inside a transaction.
#pragma once

#include "store/outgoing.hpp"

namespace pulse::store {

// A pipeline whose letters are forwarded. Strings are palloc'd.
struct ForwardingPipeline {
    char *name;
    char *topics; // it reads, newline separated
    char *dlq_topic;
    char *brokers;
    char *kafka_options;
    char *secrets_file;
};

// Those with a dlq_topic. Returns the number of rows in *pipelines.
int ReadForwardingPipelines(ForwardingPipeline **pipelines);

// Visits letters of the pipeline that wait, as the records they were with what is wrong with them
// in further headers: those never tried in the order of their ids, then those whose time to be
// tried again has come. Not those in except. Returns how many were visited.
int TakeWaitingLetters(const char *pipeline, const int64_t *except, int except_count,
                       const TakeLimits &limits, VisitOutgoing visit, void *argument);

// First in a transaction that marks or postpones letters; until its end.
void LockLetterMarks();

// They are in the dead-letter topic. Those that somebody else has locked are not waited for, but
// written to left (room for count); returns their number.
int MarkForwarded(const int64_t *ids, int count, int64_t *left);

// Kafka refused the letter itself: it waits a minute, then twice as long each time, up to an hour.
// False when somebody else has locked it.
bool PostponeLetter(int64_t dlq_id, const char *reason);

// Whoever picks letters with SKIP LOCKED must not pass over those that are being marked: between
// the two none is. ReleaseLetterMarks() may come after the locks are taken, long before the commit.
void HoldLetterMarks();
void ReleaseLetterMarks();

} // namespace pulse::store
