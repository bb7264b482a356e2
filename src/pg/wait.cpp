#include "pg/wait.hpp"

#include "pg/boundary.hpp"
#include "pg/prelude.hpp"

namespace pulse::pg {

namespace {

// PG regime.
void
WaitForAny(int fd, long timeout_ms)
{
    int events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;
    if (fd >= 0)
        events |= WL_SOCKET_READABLE;
    (void)WaitLatchOrSocket(MyLatch, events, fd < 0 ? PGINVALID_SOCKET : fd, timeout_ms,
                            PG_WAIT_EXTENSION);
    ResetLatch(MyLatch);
    CHECK_FOR_INTERRUPTS();
}

} // namespace

void
InstallSignalHandlers()
{
    pqsignal(SIGTERM, die);
    pqsignal(SIGINT, StatementCancelHandler);
    pqsignal(SIGHUP, SignalHandlerForConfigReload);
    // Until here SIGHUP was ignored: a reload since our fork would be missed.
    ConfigReloadPending = true;
    BackgroundWorkerUnblockSignals();
}

void
Wait(int fd, long timeout_ms)
{
    CallPg([&] { WaitForAny(fd, timeout_ms); });
}

void
WaitInCall(long timeout_ms)
{
    WaitForAny(-1, timeout_ms);
}

void
CheckInterrupts()
{
    CallPg([] { CHECK_FOR_INTERRUPTS(); });
}

bool
ReloadIfAsked()
{
    return CallPg([] {
        if (!ConfigReloadPending)
            return false;
        ConfigReloadPending = false;
        ProcessConfigFile(PGC_SIGHUP);
        return true;
    });
}

} // namespace pulse::pg
