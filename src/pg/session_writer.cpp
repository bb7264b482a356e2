#include "pg/session_writer.hpp"

#include "pg/shmem.hpp"
#include "pg/prelude.hpp"

namespace pulse::pg {

namespace {

int my_writer = -1; // index in Shared::writers

// Called when others see the transaction's rows, or never will.
void
TransactionEnds(XactEvent event, void *)
{
    if (my_writer < 0)
        return;
    switch (event) {
    case XACT_EVENT_PRE_PREPARE:
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("cannot PREPARE a transaction that has written events"),
                        errhint("Others read up to pulse.ingest_horizon(), which would not wait "
                                "for it.")));
        break;
    case XACT_EVENT_COMMIT:
    case XACT_EVENT_ABORT:
        LockShared();
        shared->writers[my_writer] = {};
        UnlockShared();
        my_writer = -1;
        break;
    default:
        break;
    }
}

} // namespace

int
RegisterSessionWriter()
{
    static bool is_hooked = false;
    if (my_writer >= 0)
        return my_writer;
    RequireSharedMemory();
    if (!is_hooked) {
        RegisterXactCallback(TransactionEnds, nullptr);
        is_hooked = true;
    }
    LockShared();
    for (int i = 0; i < kMaxWriters && my_writer < 0; i++)
        if (shared->writers[i].since == 0)
            my_writer = i;
    if (my_writer >= 0)
        // Under the lock: a horizon taken before is not later than this.
        shared->writers[my_writer] = {MyProcPid, GetCurrentTimestamp()};
    UnlockShared();
    if (my_writer < 0)
        ereport(ERROR, (errcode(ERRCODE_TOO_MANY_CONNECTIONS),
                        errmsg("%d sessions are writing events already", kMaxWriters),
                        errhint("Try again when one of their transactions is done.")));
    return my_writer;
}

int64_t
OldestSessionWriter(int64_t until)
{
    for (const WriterSlot &writer : shared->writers)
        if (writer.since != 0 && writer.since < until)
            until = writer.since;
    return until;
}

} // namespace pulse::pg
