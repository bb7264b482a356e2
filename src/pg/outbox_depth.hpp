// How many rows of pulse.outbox are committed and not sent: a counter in shared memory, so that
// nobody counts rows and no two transactions wait for each other over it. It is counted once after
// a start, and set right when the sender finds nothing waiting (two-phase commits and rows deleted
// by hand are not seen before). Regime: PG.
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
void SetOutboxDepth(int64_t rows);

// This transaction leaves one row more: counted, and the sender woken, when it commits.
void CountOutgoing();

void NoteOutboxSent(int64_t rows);
// What the sender sees when it looks; news: the value of Shared::outgoing_news before.
void LookAtOutbox(bool has_rows, int64_t news);

} // namespace pulse::pg
