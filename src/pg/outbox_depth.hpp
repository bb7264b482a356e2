// How many rows of pulse.outbox are committed and not sent: a counter in shared memory, so that
// nobody counts rows and no two transactions wait for each other over it. It is counted after a
// start and before somebody is refused (every few seconds at most), and set right when the sender
// finds nothing waiting: two-phase commits and rows deleted by hand are not seen before.
// Regime: PG.
#pragma once

#include <cstdint>

namespace pulse::pg {

struct OutboxDepth {
    bool is_known;
    int64_t rows;           // committed
    int64_t mine;           // of this transaction
    double sent_per_second; // lately
};

OutboxDepth GetOutboxDepth();

// Who counts says so before (false: somebody has, a moment ago, and the counter is known), then
// what it saw: committed rows, in a snapshot taken in between.
struct OutboxCount {
    int64_t depth_before;
};
bool BeginOutboxCount(OutboxCount *count);
void EndOutboxCount(const OutboxCount &count, int64_t rows);

// This transaction leaves one row more: counted, and the sender woken, when it commits.
void CountOutgoing();

void NoteOutboxSent(int64_t rows);
// What the sender sees when it looks; news: the value of Shared::outgoing_news before.
void LookAtOutbox(bool has_rows, int64_t news);

} // namespace pulse::pg
