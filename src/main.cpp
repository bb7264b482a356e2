// The library: settings, shared memory, launcher. Nothing else happens at load time, and no
// librdkafka function is called in the postmaster: it must stay single-threaded.
#include "pg/guc.hpp"
#include "pg/shmem.hpp"
#include "worker/launcher.hpp"
#include "pg/prelude.hpp"

extern "C" {
PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
}

void
_PG_init(void)
{
    bool preloaded = process_shared_preload_libraries_in_progress;
    pulse::pg::DefineSettings(preloaded);
    if (!preloaded || IsBinaryUpgrade)
        return;
    pulse::pg::RequestSharedMemory();
    pulse::worker::RegisterLauncher();
}
