// The only place where a pulse process sleeps: latch, a file descriptor and a timeout together.
// Signals only set flags and the latch (W3); the flags are looked at here and by PostgreSQL's own
// CHECK_FOR_INTERRUPTS. Regime: door (callable from C++; may end the process).
#pragma once

namespace pulse::pg {

// Installs die (SIGTERM), query cancel (SIGINT) and reload (SIGHUP) handlers and unblocks signals.
void InstallSignalHandlers();

// Waits until the latch is set, fd (>= 0) is readable or timeout_ms passed; serves interrupts.
void Wait(int fd, long timeout_ms);

// The same for SQL functions, which are PG regime: raises instead of throwing.
void WaitInCall(long timeout_ms);

// Serves interrupts without waiting. A pending query cancel arrives as pg::Error 57014.
void CheckInterrupts();

// True once after a SIGHUP; the configuration has then been read again.
bool ReloadIfAsked();

} // namespace pulse::pg
