#include "worker/process.hpp"

#include <unistd.h>

#include "pg/guc.hpp"
#include "pg/safe_settings.hpp"
#include "pg/wait.hpp"
#include "worker/status.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

int exit_code = 0;
bool has_cleaned_up = false;

void
SaveExitCode(int code, Datum)
{
    exit_code = code;
    has_cleaned_up = true;
}

// Somebody's plain exit() comes here before PostgreSQL has cleaned up: let that happen then.
void
ExitNow()
{
    if (has_cleaned_up)
        _exit(exit_code);
}

pg::Statement stop_pipeline = {
    "UPDATE pulse.pipelines SET desired_state = 'stopped', reason = $2, hint = $3,"
    " changed_at = pg_catalog.clock_timestamp() WHERE name = $1 AND desired_state = 'running'",
    3,
    {TEXTOID, TEXTOID, TEXTOID},
    nullptr};

// What a role or database may have set must not reach the batch transaction (W16).
void
SetSafeSession()
{
    const pg::SafeSetting settings[] = {
        {"session_replication_role", "origin"},
        {"default_transaction_read_only", "off"},
        {"default_transaction_isolation", "read committed"},
        {"lock_timeout", kLockTimeout},
        {"statement_timeout", "0"},
        {"idle_in_transaction_session_timeout", "0"},
        {"application_name", "pulse"},
        {"jit", "off"},
    };
    for (const pg::SafeSetting &setting : pg::kSafeSettings)
        SetConfigOption(setting.name, setting.value, PGC_SUSET, PGC_S_OVERRIDE);
    for (const pg::SafeSetting &setting : settings)
        SetConfigOption(setting.name, setting.value, PGC_SUSET, PGC_S_OVERRIDE);
}

void
Connect()
{
    BackgroundWorkerInitializeConnection(pg::guc_database, nullptr, 0);
    if (GetDatabaseEncoding() != PG_UTF8)
        ereport(FATAL, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("pulse needs a database with encoding UTF8")));
    SetSafeSession();
}

} // namespace

bool
StartProcess(int slot_index)
{
    pg::InstallSignalHandlers();
    return pg::CallPg([&] {
        if (!ClaimSlot(slot_index))
            return false;
        Connect();
        return true;
    });
}

void
StartHelper()
{
    pg::InstallSignalHandlers();
    pg::CallPg([] { Connect(); });
}

void
LeaveWithoutCleanup()
{
    static bool is_registered = false;
    if (is_registered)
        return;
    is_registered = true;
    pg::CallPg([] {
        on_proc_exit(SaveExitCode, static_cast<Datum>(0));
        if (atexit(ExitNow) != 0)
            elog(ERROR, "atexit failed");
    });
}

void
StopInTable(const char *pipeline, const char *reason, const char *hint)
{
    pg::InSpi([&] {
        Datum arguments[3] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(reason),
                              CStringGetTextDatum(hint)};
        (void)pg::Execute(&stop_pipeline, arguments);
    });
}

} // namespace pulse::worker
