// A worker: owns a share of a pipeline's partitions, takes batches from its reader thread and
// writes them. It holds no transaction while it waits. src/README.md draws its states. Regime: C++
// with doors; PostgreSQL calls pulse_worker_main.
#include <algorithm>
#include <memory>

#include "base/clock.hpp"
#include "base/error_class.hpp"
#include "base/excerpt.hpp"
#include "base/fault.hpp"
#include "ingest/backoff.hpp"
#include "ingest/reader.hpp"
#include "pg/guc.hpp"
#include "pg/wait.hpp"
#include "pg/xact.hpp"
#include "store/pipelines.hpp"
#include "store/time.hpp"
#include "store/writer.hpp"
#include "worker/batch_state.hpp"
#include "worker/batch_transaction.hpp"
#include "worker/config.hpp"
#include "worker/flight_recorder.hpp"
#include "worker/group_mirror.hpp"
#include "worker/process.hpp"
#include "worker/publish.hpp"
#include "worker/quarantine.hpp"
#include "worker/status.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

// Set by relcache invalidations of the target or a partition of it: look at it again before the
// next batch.
volatile bool is_target_stale = false;
const store::Target *watched_target = nullptr;

void
TargetChanged(Datum, Oid relation)
{
    if (!OidIsValid(relation) ||
        (watched_target != nullptr && store::IsMember(*watched_target, relation)))
        is_target_stale = true;
}

std::string
Describe(const pg::Error &error)
{
    std::string text = error.sqlstate + " " + Excerpt(error.message);
    return error.detail.empty() ? text : text + " (" + Excerpt(error.detail) + ")";
}

class Worker {
  public:
    void Run()
    {
        while (!MustExit()) {
            try {
                Step();
            } catch (const pg::Error &error) {
                error_ = error;
                has_error_ = true;
            }
            if (!std::exchange(has_error_, false))
                continue;
            try {
                Recover();
            } catch (const pg::Error &) {
                // Cancelled while it waited: MustExit() knows whether to leave.
            }
        }
        PULSE_FAULT("before_exit");
        SetPhase(Phase::kExiting);
    }

  private:
    bool MustExit()
    {
        if (pg::ReloadIfAsked() && reader_ != nullptr && ReaderFingerprint() != fingerprint_)
            return true;
        if (reader_ != nullptr && secrets_.HaveChanged())
            return true;
        // The launcher starts us again at once with the new definition.
        return !my_slot->is_wanted ||
               (definition_version_ != 0 && my_slot->definition_version != definition_version_);
    }

    // With a record under suspicion nobody waits long for a lock: the try ends with an error, which
    // acquits it, and no kill from outside finds it at work.
    void SetPatience(bool is_patient)
    {
        if (std::exchange(is_patient_, is_patient) == is_patient)
            return;
        pg::CallPg([&] {
            SetConfigOption("lock_timeout", is_patient ? kLockTimeout : "1ms", PGC_SUSET,
                            PGC_S_OVERRIDE);
        });
    }

    void Step()
    {
        Beat();
        pg::CheckInterrupts();
        if (!is_loaded_ || is_target_stale)
            LoadPipeline();
        if (!is_loaded_)
            return; // dropped meanwhile
        if (assignment_version_ != my_slot->assignment_version)
            TakePartitions();
        ServeNotices();
        if (batch_ == nullptr) {
            batch_ = reader_->Take();
            done_ = 0;
        }
        if (batch_ == nullptr) {
            WaitForBatch();
            return;
        }
        PULSE_FAULT("after_poll");
        WriteSome();
    }

    // ---- what to do ----

    void LoadPipeline()
    {
        is_loaded_ = false; // until all of it is: an error may leave the target half described
        bool exists = false;
        pg::InTransaction([&] {
            exists = pg::CallPg([&] {
                if (!store::LoadPipeline(my_slot->pipeline, store::Scope::kProcess,
                                         &pipeline_.definition))
                    return false;
                // What came until here is seen below; what comes from here on may be not.
                is_target_stale = false;
                watched_target = &pipeline_.target;
                store::LoadTarget(pipeline_.definition, store::Scope::kProcess, &pipeline_.target);
                store::ForgetInsertPlans();
                pipeline_.role = store::WriterRole(pipeline_.definition);
                store::CheckRowSecurity(pipeline_.target, pipeline_.role);
                pipeline_.may_use_leaf =
                    pipeline_.target.may_use_leaf &&
                    (pipeline_.role == pipeline_.target.owner || superuser_arg(pipeline_.role));
                return true;
            });
        });
        if (!exists) {
            my_slot->is_wanted = false; // dropped meanwhile
            return;
        }
        definition_version_ = pipeline_.definition.version;
        pipeline_.slot = my_slot->worker_index;
        pipeline_.leaves.clear();
        auto mapping = MappingOf(pipeline_.target);
        // The same columns as before (an ANALYZE, a new partition): what was decoded stays good.
        if (pipeline_.mapping == nullptr || *pipeline_.mapping != *mapping)
            pipeline_.mapping = std::move(mapping);
        if (reader_ == nullptr)
            StartReader();
        else
            reader_->SetMapping(pipeline_.mapping);
        is_loaded_ = true;
    }

    void StartReader()
    {
        secrets_.Note(); // before they are read: at worst they are read once too often
        auto config = ConnectionConfig(CurrentConnection(), "pulse-" + std::to_string(MyProcPid));
        if (!config.ok())
            Raise(ERRCODE_INVALID_PARAMETER_VALUE, config.message());
        ingest::ReaderOptions options = CurrentReaderOptions(std::move(config.value()));
        options.decoding = &my_flight->decoding;
        auto reader = ingest::Reader::Start(options, pipeline_.mapping);
        if (!reader.ok())
            Raise(ERRCODE_CONNECTION_FAILURE, reader.message());
        reader_ = std::move(reader.value());
        fingerprint_ = ReaderFingerprint();
        LeaveWithoutCleanup();
        assignment_version_ = 0;
    }

    [[noreturn]] static void Raise(int sqlstate, const std::string &message)
    {
        pg::Error error;
        error.sqlstate = unpack_sql_state(sqlstate);
        error.message = message;
        throw error;
    }

    void TakePartitions()
    {
        int64_t version = my_slot->assignment_version;
        batch_.reset();
        std::vector<store::OwnedPartition> taken(pg::kMaxPartitions);
        int count = 0;
        pg::InTransaction([&] {
            count = pg::CallPg([&] {
                // claim_all (test builds): as if the others were not there.
                return store::TakePartitions(my_slot->pipeline,
                                             pg::guc_claim_all ? 0 : my_slot->worker_rank,
                                             pg::guc_claim_all ? 1 : my_slot->worker_count,
                                             taken.data(), static_cast<int>(taken.size()));
            });
        });
        taken.resize(static_cast<size_t>(count));
        pipeline_.partitions = std::move(taken);
        pipeline_.earlier_rows.Forget();
        std::vector<PartitionOffset> list;
        for (const store::OwnedPartition &partition : pipeline_.partitions)
            list.push_back(
                {partition.topic, partition.partition, partition.next_offset, partition.last});
        reader_->Assign(std::move(list), SetAsideRecords(pipeline_));
        pg::CallPg([this] { PublishPartitions(pipeline_.partitions); });
        assignment_version_ = version;
    }

    void ServeNotices()
    {
        for (const ingest::Notice &notice : reader_->TakeNotices()) {
            if (notice.kind == ingest::Notice::Kind::kFailed)
                pg::CallPg([&] {
                    // The launcher starts us again, with a new thread.
                    ereport(FATAL, (errcode(ERRCODE_INTERNAL_ERROR),
                                    errmsg("pulse reader thread ended: %s", notice.text.c_str())));
                });
            if (notice.kind == ingest::Notice::Kind::kClientError)
                continue; // the coordinator watches the broker and reports once per pipeline
            const bool is_back = notice.kind == ingest::Notice::Kind::kPartitionBack;
            pg::CallPg([&] { is_back ? PublishBack(notice) : PublishTrouble(notice); });
        }
    }

    // ---- one batch ----

    void WaitForBatch()
    {
        SetPhase(Phase::kWaiting);
        my_slot->failure_count = 0; // it came this far: no reason to start it slowly next time
        my_slot->queue_records = 0;
        int64_t now = GetCurrentTimestamp();
        mirror_.Flush(reader_.get(), now);
        FlushLog(&log_, my_slot->pipeline, pipeline_.slot, last_commit_at_, now);
        if (now - last_commit_at_ > 1000000)
            SetState(State::kIdle, "", "", 0);
        pg::CallPg([] { pgstat_report_activity(STATE_IDLE, nullptr); });
        pg::Wait(reader_->fd(), mirror_.IsEmpty() ? 1000 : 200);
    }

    void WriteSome()
    {
        if (batch_->mapping != pipeline_.mapping) {
            decode::Decoder decoder(pipeline_.mapping);
            batch_->mapping = pipeline_.mapping;
            batch_->DecodeAgain(decoder, WallClockUs(), &my_flight->writing);
        }
        uint32_t total = static_cast<uint32_t>(batch_->records.size());
        uint32_t end = std::min(total, done_ + std::min({write_limit_, AllowedInFlight(), total}));
        my_slot->queue_records = static_cast<int64_t>(reader_->QueuedRecords() + total - done_);
        pg::CallPg([&] {
            char activity[128];
            snprintf(activity, sizeof(activity), "pulse %s: writing %u records", my_slot->pipeline,
                     end - done_);
            pgstat_report_activity(STATE_RUNNING, activity);
        });
        SetPatience(!IsCloseToQuarantine());
        BatchResult result = WriteBatch(&pipeline_, *batch_, done_, end, &log_, &is_target_stale);
        switch (result.end) {
        case BatchEnd::kCommitted:
            Committed(result);
            break;
        case BatchEnd::kFenced:
            batch_.reset();
            assignment_version_ = 0;
            pg::CallPg([] {
                ereport(
                    LOG,
                    (errmsg(
                        "pulse pipeline \"%s\" worker %d was fenced, taking its partitions again",
                        my_slot->pipeline, my_slot->worker_index)));
            });
            pg::Wait(-1, backoff_.NextMs()); // the other owner may be about to leave
            break;
        case BatchEnd::kTripped:
            StopPipeline(result);
            break;
        case BatchEnd::kStale:
            break; // is_target_stale is set: the next step loads it again
        case BatchEnd::kUnsure:
            BeginSilence(); // should it fail, the next beat comes with the retry
            pipeline_.earlier_rows.Load(my_slot->pipeline, pipeline_.target, pipeline_.role,
                                        pipeline_.partitions);
            EndSilence();
            break;
        }
    }

    void Committed(const BatchResult &result)
    {
        backoff_.Reset();
        failed_backoff_.Reset();
        write_limit_ = write_limit_ > UINT32_MAX / 2 ? UINT32_MAX : write_limit_ * 2;
        done_ = result.reached;
        last_commit_at_ = result.committed_at;
        for (const ingest::Range &range : batch_->ranges)
            if (const store::OwnedPartition *owned = pipeline_.Find(range.topic, range.partition))
                mirror_.Note(*owned);
        pg::CallPg([&] { PublishCommit(pipeline_, *batch_, result); });
        if (done_ >= batch_->records.size())
            batch_.reset();
        SetState(State::kRunning, "", "", 0);
        mirror_.Flush(reader_.get(), last_commit_at_);
        pg::CallPg([] { pgstat_report_stat(false); });
    }

    // On the way out; the log is no reason to fail.
    void LeaveLog()
    {
        try {
            FlushLog(&log_, my_slot->pipeline, pipeline_.slot, last_commit_at_, PG_INT64_MAX);
        } catch (const pg::Error &) { // nothing more can be done for it
        }
    }

    // ---- when it goes wrong ----

    void StopPipeline(const BatchResult &result)
    {
        batch_.reset();
        assignment_version_ = 0; // whatever happens below, its records are read again
        std::string reason =
            "more than " + std::to_string(static_cast<int>(pg::guc_max_error_ratio * 100)) +
            " % of the last records were rejected, for example " + result.breaker_example;
        std::string hint =
            "Nothing of the last batch was written. Mend the producer or the table, then "
            "call pulse.resume('" +
            std::string(pipeline_.definition.name) +
            "'); with force => true it takes the rejects that are in the topics now for dead "
            "letters.";
        pg::InTransaction([&] {
            pg::CallPg([&] { StopInTable(my_slot->pipeline, reason.c_str(), hint.c_str()); });
        });
        SetState(State::kStopped, reason, hint, 0);
        my_slot->is_wanted = false;
        pg::CallPg([] { pg::WakeCoordinator(); });
    }

    // Which record it is that alone takes too much time or memory: an operator may want to skip it.
    void NameRecord()
    {
        const std::string where = WhereOf(*batch_, batch_->records[done_]);
        if (!error_.message.starts_with(where))
            error_.message = where + ": " + error_.message;
    }

    // DROP EXTENSION took the tables away: nothing failed.
    static bool IsExtensionGone()
    {
        bool exists = true;
        try {
            pg::InTransaction(
                [&] { exists = pg::CallPg([] { return store::ExtensionExists(); }); });
        } catch (const pg::Error &) { // what went wrong before is told
        }
        return !exists;
    }

    void Recover()
    {
        if (!my_slot->is_wanted)
            return; // cancelled by stop()
        int64_t delay_ms = 0;
        State state = State::kRetrying;
        if (ClassOf(error_.sqlstate) == ErrorClass::kEnvironment || error_.sqlstate == "23514") {
            bool must_halve = error_.sqlstate.starts_with("53") || error_.sqlstate == "57014";
            uint32_t tried =
                batch_ == nullptr ? 0 : static_cast<uint32_t>(batch_->records.size()) - done_;
            if (must_halve && std::min(write_limit_, tried) == 1)
                NameRecord();
            else if (must_halve && tried > 1) {
                write_limit_ = std::min(write_limit_, tried) / 2;
                backoff_.Reset(); // half of it is another thing to try: no reason to wait longer
            }
            delay_ms = backoff_.NextMs();
        } else if (IsExtensionGone()) {
            my_slot->is_wanted = false;
            return;
        } else {
            state = State::kFailed;
            delay_ms = failed_backoff_.NextMs();
            is_target_stale = true; // look at the table again each time
        }
        SetPhase(Phase::kRetrying);
        SetState(state, Describe(error_), Excerpt(error_.hint), delay_ms);
        pg::CallPg([] { pgstat_report_activity(STATE_IDLE, "pulse: waiting to retry"); });
        int64_t until = GetCurrentTimestamp() + delay_ms * 1000;
        int64_t version = my_slot->definition_version;
        // resume() clears next_retry_at, alter_pipeline() makes another version.
        while (my_slot->is_wanted && my_slot->next_retry_at != 0 &&
               my_slot->definition_version == version && GetCurrentTimestamp() < until &&
               !ConfigReloadPending) {
            Beat();
            pg::Wait(-1, std::max<int64_t>(1, (until - GetCurrentTimestamp()) / 1000));
        }
    }

    PipelineState pipeline_{};
    bool is_loaded_ = false; // pipeline_ is whole and reader_ runs
    std::unique_ptr<ingest::Reader> reader_;
    std::string fingerprint_;
    SecretsWatch secrets_;
    int64_t definition_version_ = 0;
    int64_t assignment_version_ = 0;
    std::unique_ptr<ingest::Batch> batch_;
    bool is_patient_ = true;
    uint32_t done_ = 0;                 // records of batch_ that are committed
    uint32_t write_limit_ = UINT32_MAX; // records per transaction; halved when one is too much
    BatchLog log_;
    int64_t last_commit_at_ = 0;
    GroupMirror mirror_;
    ingest::Backoff backoff_{100, 10000, static_cast<uint64_t>(MyProcPid)};
    ingest::Backoff failed_backoff_{1000, 10000, static_cast<uint64_t>(MyProcPid)};
    pg::Error error_;
    bool has_error_ = false;
};

} // namespace

} // namespace pulse::worker

extern "C" PGDLLEXPORT void
pulse_worker_main(Datum argument)
{
    using namespace pulse;
    pg::CallCpp([&] {
        if (!worker::StartProcess(DatumGetInt32(argument)))
            return;
        pg::CallPg(
            [] { CacheRegisterRelcacheCallback(worker::TargetChanged, static_cast<Datum>(0)); });
        pg::CallPg(
            [] { worker::StartFlight(worker::my_slot->pipeline, worker::my_slot->worker_index); });
        // Owned by nobody on purpose: the process ends without unwinding, and the reader thread
        // must not lose what it works on (architecture.md section 5).
        auto *running = new worker::Worker;
        running->Run();
    });
    proc_exit(0);
}
