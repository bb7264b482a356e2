#include "pg/xact.hpp"

#include "pg/boundary.hpp"
#include "pg/prelude.hpp"

namespace pulse::pg::internal {

namespace {
MemoryContext outer_context = nullptr; // of the one transaction a process has at a time
}

void
BeginTransaction()
{
    CallPg([] {
        outer_context = CurrentMemoryContext;
        SetCurrentStatementStartTimestamp();
        StartTransactionCommand();
        // Settings of the database or role must not leak in (W16): these two decide correctness.
        XactIsoLevel = XACT_READ_COMMITTED;
        XactReadOnly = RecoveryInProgress();
        PushActiveSnapshot(GetTransactionSnapshot());
    });
}

void
CommitTransaction()
{
    CallPg([] {
        PopActiveSnapshot();
        CommitTransactionCommand();
        MemoryContextSwitchTo(outer_context);
    });
}

void
AbortTransaction()
{
    CallPg([] {
        AbortCurrentTransaction();
        MemoryContextSwitchTo(outer_context);
    });
}

SubTransactionFrame
BeginSubTransaction()
{
    return CallPg([] {
        SubTransactionFrame frame{CurrentMemoryContext, CurrentResourceOwner};
        BeginInternalSubTransaction(nullptr);
        MemoryContextSwitchTo(static_cast<MemoryContext>(frame.memory_context));
        return frame;
    });
}

void
ReleaseSubTransaction(SubTransactionFrame frame)
{
    CallPg([&] {
        ReleaseCurrentSubTransaction();
        MemoryContextSwitchTo(static_cast<MemoryContext>(frame.memory_context));
        CurrentResourceOwner = static_cast<ResourceOwner>(frame.resource_owner);
    });
}

void
RollbackSubTransaction(SubTransactionFrame frame)
{
    CallPg([&] {
        RollbackAndReleaseCurrentSubTransaction();
        MemoryContextSwitchTo(static_cast<MemoryContext>(frame.memory_context));
        CurrentResourceOwner = static_cast<ResourceOwner>(frame.resource_owner);
    });
}

} // namespace pulse::pg::internal
