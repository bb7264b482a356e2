// What every pulse process with a database does first, and how it ends. Regime: door.
#pragma once

namespace pulse::worker {

// lock_timeout of an ordinary worker.
inline constexpr char kLockTimeout[] = "5s";

// Signals, connection to pulse.database as bootstrap superuser, safe session settings, slot. False
// when another process has the slot: nothing to do then.
bool StartProcess(int slot_index);

// The same for a process that does one thing and ends, and has no slot.
void StartHelper();

// From now on the process ends by _exit() right after PostgreSQL's own clean-up: librdkafka's
// threads are still running then, and OpenSSL's exit handlers must not pull the ground from under
// them (R8).
void LeaveWithoutCleanup();

// Marks a pipeline stopped, with the reason; PG regime, inside a transaction.
void StopInTable(const char *pipeline, const char *reason, const char *hint);

} // namespace pulse::worker
