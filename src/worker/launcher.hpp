// The launcher: the only static process of pulse and the only one that starts others. It is
// connected to no database, so databases can be dropped, renamed and copied while pulse is idle.
#pragma once

namespace pulse::worker {

// From _PG_init, in the postmaster.
void RegisterLauncher();

} // namespace pulse::worker
