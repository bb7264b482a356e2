#include "pg/outbox_depth.hpp"

#include "pg/shmem.hpp"
#include "pg/prelude.hpp"

namespace pulse::pg {

namespace {

constexpr int64_t kCountEvery = 3000000; // TimestampTz

// Rows that this transaction has written, by subtransaction: ROLLBACK TO takes its own back.
struct Share {
    SubTransactionId owner;
    int64_t rows;
};

Share *shares = nullptr; // in TopTransactionContext
int share_count = 0;
int share_room = 0;

int64_t
MyRows()
{
    int64_t rows = 0;
    for (int i = 0; i < share_count; i++)
        rows += shares[i].rows;
    return rows;
}

void
Add(SubTransactionId owner, int64_t rows)
{
    for (int i = 0; i < share_count; i++) {
        if (shares[i].owner == owner) {
            shares[i].rows += rows;
            return;
        }
    }
    if (share_count == share_room) {
        int room = Max(8, 2 * share_room);
        Share *larger =
            static_cast<Share *>(MemoryContextAlloc(TopTransactionContext, sizeof(Share) * room));
        if (share_count > 0)
            memcpy(larger, shares, sizeof(Share) * share_count);
        shares = larger;
        share_room = room;
    }
    shares[share_count++] = {owner, rows};
}

void
SubTransactionEnds(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *)
{
    if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
        return;
    for (int i = share_count - 1; i >= 0; i--) {
        if (shares[i].owner != mine)
            continue;
        int64_t rows = shares[i].rows;
        shares[i] = shares[--share_count];
        if (event == SUBXACT_EVENT_COMMIT_SUB)
            Add(parent, rows); // there is room: one has just gone
    }
}

void
TransactionEnds(XactEvent event, void *)
{
    if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
        return;
    int64_t rows = MyRows();
    shares = nullptr;
    share_count = share_room = 0;
    if (rows == 0 || event != XACT_EVENT_COMMIT)
        return;
    LockShared();
    shared->outbox_depth += rows;
    UnlockShared();
    WakeSender();
}

} // namespace

OutboxDepth
GetOutboxDepth()
{
    LockSharedForRead();
    int64_t this_second = GetCurrentTimestamp() / 1000000;
    bool is_recent = this_second - shared->outbox_second <= 2;
    OutboxDepth depth = {shared->is_outbox_counted, Max(shared->outbox_depth, 0), 0,
                         is_recent ? shared->outbox_per_second : 0};
    UnlockShared();
    depth.mine = MyRows();
    return depth;
}

bool
BeginOutboxCount(OutboxCount *count)
{
    int64_t now = GetCurrentTimestamp();
    LockShared();
    int64_t age = now - shared->outbox_counted_at;
    bool is_due = !shared->is_outbox_counted || age < 0 || age >= kCountEvery;
    if (is_due)
        shared->outbox_counted_at = now;
    *count = {shared->outbox_depth};
    UnlockShared();
    return is_due;
}

void
EndOutboxCount(const OutboxCount &count, int64_t rows)
{
    LockShared();
    // What was committed meanwhile may be in both. Too many rather than too few: who is refused
    // counts again.
    shared->outbox_depth = rows + Max(shared->outbox_depth - count.depth_before, 0);
    shared->is_outbox_counted = true;
    UnlockShared();
}

void
CountOutgoing()
{
    static bool is_hooked = false;
    if (!is_hooked) {
        RegisterXactCallback(TransactionEnds, nullptr);
        RegisterSubXactCallback(SubTransactionEnds, nullptr);
        is_hooked = true;
    }
    Add(GetCurrentSubTransactionId(), 1);
}

void
NoteOutboxSent(int64_t rows)
{
    LockShared();
    // May be below 0 for a moment: a row is visible before its transaction is counted.
    shared->outbox_depth -= rows;
    int64_t second = GetCurrentTimestamp() / 1000000;
    if (second != shared->outbox_second) {
        shared->outbox_per_second = static_cast<double>(shared->outbox_sent);
        shared->outbox_second = second;
        shared->outbox_sent = 0;
    }
    shared->outbox_sent += rows;
    if (shared->outbox_per_second < static_cast<double>(shared->outbox_sent))
        shared->outbox_per_second = static_cast<double>(shared->outbox_sent);
    UnlockShared();
}

void
LookAtOutbox(bool has_rows, int64_t news)
{
    static int64_t seen_news = -1;
    static int64_t seen_depth = 0;
    LockShared();
    // Nothing waits at two looks in a row, and nothing was committed in between.
    if (!has_rows && news == seen_news && shared->outbox_depth == seen_depth) {
        shared->outbox_depth = 0;
        shared->is_outbox_counted = true;
    }
    seen_news = has_rows ? -1 : news;
    seen_depth = shared->outbox_depth;
    UnlockShared();
}

} // namespace pulse::pg
