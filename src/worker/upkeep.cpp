#include "worker/upkeep.hpp"

#include <string>
#include <vector>

#include "base/excerpt.hpp"
#include "base/fault.hpp"
#include "pg/wait.hpp"
#include "pg/xact.hpp"
#include "store/letter_retention.hpp"
#include "store/pipelines.hpp"
#include "store/retention.hpp"
#include "worker/expiry.hpp"
#include "worker/process.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

constexpr int64_t kSecond = 1000000; // TimestampTz
constexpr int64_t kEvery = 60 * kSecond;

// One at a time, also when a coordinator ended while its helper went on.
pg::Statement lock_upkeep = {
    "SELECT pg_catalog.pg_try_advisory_lock(1886743667, -1)", 0, {}, nullptr}; // "puls"

bool
IsAlone()
{
    bool is_alone = false;
    pg::InTransaction([&] { is_alone = pg::CallPg([] { return pg::IsTrue(&lock_upkeep); }); });
    return is_alone;
}

std::vector<std::string>
PipelineNames()
{
    std::vector<std::string> names;
    pg::InTransaction([&] {
        store::PipelineRow *rows = nullptr;
        int count = pg::CallPg([&] { return store::ReadPipelines(&rows); });
        for (int i = 0; i < count; i++)
            names.emplace_back(rows[i].name);
    });
    return names;
}

void
RunLetterRetention(const std::string &pipeline)
{
    pg::Error trouble;
    try {
        bool may_be_more = true;
        while (may_be_more) {
            pg::InTransaction([&] {
                may_be_more =
                    pg::CallPg([&] { return store::DropSettledLetters(pipeline.c_str()); });
                PULSE_FAULT("before_letters_expire");
            });
            pg::CheckInterrupts();
        }
    } catch (const pg::Error &error) {
        trouble = error;
        trouble.message = Excerpt(error.message);
    }
    if (!trouble.message.empty())
        pg::CallPg([&] {
            ereport(LOG,
                    (errmsg("pulse pipeline \"%s\": dead letters could not be deleted: %s %s",
                            pipeline.c_str(), trouble.sqlstate.c_str(), trouble.message.c_str())));
        });
}

void
RunUpkeep()
{
    if (!IsAlone())
        return;
    for (const std::string &pipeline : PipelineNames()) {
        DropExpiredPartitions(pipeline);
        RunLetterRetention(pipeline);
    }
}

// PG regime. Null when there is no free slot: again in a minute.
BackgroundWorkerHandle *
StartUpkeep()
{
    BackgroundWorker worker = {};
    worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
    worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
    worker.bgw_restart_time = BGW_NEVER_RESTART;
    strlcpy(worker.bgw_library_name, "pulse", BGW_MAXLEN);
    strlcpy(worker.bgw_function_name, "pulse_upkeep_main", BGW_MAXLEN);
    strlcpy(worker.bgw_type, "pulse upkeep", BGW_MAXLEN);
    strlcpy(worker.bgw_name, "pulse upkeep", BGW_MAXLEN);
    BackgroundWorkerHandle *handle = nullptr;
    MemoryContext outer = MemoryContextSwitchTo(TopMemoryContext);
    (void)RegisterDynamicBackgroundWorker(&worker, &handle);
    MemoryContextSwitchTo(outer);
    return handle;
}

} // namespace

void
Upkeep::Tick()
{
    int64_t now = GetCurrentTimestamp();
    if (started_at_ != 0 && now - started_at_ < kEvery)
        return;
    pid_t pid = 0;
    if (handle_ != nullptr && GetBackgroundWorkerPid(handle_, &pid) != BGWH_STOPPED)
        return;
    started_at_ = now;
    bool has_retention = false;
    bool is_wanted = false;
    pg::InTransaction([&] {
        has_retention = pg::CallPg([] { return store::WantsRetention(); });
        is_wanted = has_retention || pg::CallPg([] { return store::WantsLetterRetention(); });
    });
    if (!has_retention)
        ForgetExpiryTrouble();
    pg::CallPg([&] {
        if (handle_ != nullptr)
            pfree(handle_);
        handle_ = is_wanted ? StartUpkeep() : nullptr;
    });
}

} // namespace pulse::worker

extern "C" PGDLLEXPORT void
pulse_upkeep_main(Datum)
{
    using namespace pulse;
    pg::CallCpp([] {
        worker::StartHelper();
        worker::RunUpkeep();
    });
    proc_exit(0);
}
