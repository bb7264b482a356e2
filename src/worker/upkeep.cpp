#include "worker/upkeep.hpp"

#include <memory>
#include <string>
#include <vector>

#include "base/fault.hpp"
#include "pg/wait.hpp"
#include "pg/xact.hpp"
#include "store/letter_retention.hpp"
#include "store/pipelines.hpp"
#include "store/retention.hpp"
#include "worker/process.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

constexpr int64_t kSecond = 1000000; // TimestampTz
constexpr int64_t kEvery = 60 * kSecond;
constexpr int kAttempts = 5; // each holds batches up for lock_timeout at most
constexpr long kAttemptMs = 1000;

// One at a time, also when a coordinator ended while its helper went on.
pg::Statement lock_upkeep = {
    "SELECT pg_catalog.pg_try_advisory_lock(1886743667, -1)", 0, {}, nullptr}; // "puls"

bool
IsAlone()
{
    bool is_alone = false;
    pg::InTransaction([&] {
        is_alone = pg::CallPg([] {
            bool is_free = false;
            pg::InSpi([&] {
                bool is_null = false;
                is_free =
                    pg::Execute(&lock_upkeep) == 1 && DatumGetBool(pg::GetDatum(0, 1, &is_null));
            });
            return is_free;
        });
    });
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

class Retention {
  public:
    explicit Retention(const std::string &pipeline) : pipeline_(pipeline) {}

    void Run()
    {
        while (DropOldest())
            pg::CheckInterrupts();
    }

  private:
    // True when one was dropped. Oldest first: what is older than retained_from is all gone.
    bool DropOldest()
    {
        bool has_dropped = false;
        pg::InTransaction([&] {
            has_dropped = pg::CallPg([this] { return DropOldestHere(); });
            PULSE_FAULT("before_expiry_commits");
        });
        return has_dropped;
    }

    // PG regime.
    bool DropOldestHere()
    {
        store::ExpiredPartition *found = nullptr;
        int64_t keep_from = 0;
        int count =
            store::FindExpired(pipeline_.c_str(), &definition_, target_.get(), &found, &keep_from);
        if (count == 0) {
            if (!TIMESTAMP_IS_NOBEGIN(keep_from))
                store::KeepFrom(definition_, *target_, keep_from);
            return false;
        }
        const char *name = get_rel_name(found[0].leaf);
        int64_t rows = 0;
        if (!store::DropExpired(definition_, *target_, found[0], &rows))
            return true; // detached meanwhile: look again
        ereport(LOG, (errmsg("pulse pipeline \"%s\": dropped partition %s with %lld rows, which is "
                             "older than the retention",
                             pipeline_.c_str(), name, static_cast<long long>(rows))));
        return true;
    }

    const std::string pipeline_;
    store::PipelineDefinition definition_;
    std::unique_ptr<store::Target> target_ = std::make_unique<store::Target>();
};

// 55P03: somebody uses the table, often one of our own workers for a moment.
void
RunRetention(const std::string &pipeline)
{
    pg::Error trouble;
    for (int attempt = 0; attempt < kAttempts; attempt++) {
        trouble = pg::Error();
        try {
            Retention(pipeline).Run();
        } catch (const pg::Error &error) {
            trouble = error;
        }
        pg::CheckInterrupts();
        if (trouble.sqlstate != "55P03")
            break;
        pg::Wait(-1, kAttemptMs);
    }
    if (trouble.message.empty() || trouble.sqlstate == "55P03")
        return;
    pg::CallPg([&] {
        ereport(LOG, (errmsg("pulse pipeline \"%s\": retention could not drop a partition: %s %s",
                             pipeline.c_str(), trouble.sqlstate.c_str(), trouble.message.c_str())));
    });
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
            });
            pg::CheckInterrupts();
        }
    } catch (const pg::Error &error) {
        trouble = error;
    }
    if (trouble.message.empty())
        return;
    pg::CallPg([&] {
        ereport(LOG, (errmsg("pulse pipeline \"%s\": dead letters could not be deleted: %s %s",
                             pipeline.c_str(), trouble.sqlstate.c_str(), trouble.message.c_str())));
    });
}

void
RunUpkeep()
{
    if (!IsAlone())
        return;
    for (const std::string &pipeline : PipelineNames()) {
        RunRetention(pipeline);
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
    bool is_wanted = false;
    pg::InTransaction([&] {
        is_wanted =
            pg::CallPg([] { return store::WantsRetention() || store::WantsLetterRetention(); });
    });
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
