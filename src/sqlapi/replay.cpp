// CALL pulse.dlq_replay() and pulse.dlq_replay_as(): dead letters come back in the caller's
// session, in steps that are committed one by one outside a transaction block. Regime: PG and
// doors.
#include <algorithm>
#include <chrono>

#include "pg/replay_progress.hpp"
#include "pg/wait.hpp"
#include "pg/xact.hpp"
#include "sqlapi/kafka_client.hpp"
#include "worker/replay.hpp"
#include "pg/spi.hpp"

namespace pulse::sqlapi {

namespace {

constexpr int kMaxLetters = 1000; // a step
constexpr int kMinLetters = 64;
constexpr int kMaxTries = 20;
constexpr auto kTellEvery = std::chrono::seconds(5);

class Replay {
  public:
    Replay(const worker::ReplayRequest &request, int64_t max_letters)
        : request_(request), letters_left_(max_letters)
    {
    }

    void Run(const char *pipeline)
    {
        request_.pipeline = pipeline;
        pg::CallPg([this] {
            EnsurePortalSnapshotExists();
            if (!store::HoldPipeline(request_.pipeline))
                return; // the first step says so
            const int64_t due = store::CountLetters(request_.pipeline, request_.filter);
            pg::AddDueLetters(request_.pipeline, std::min(due, letters_left_));
        });
        int64_t after_id = INT64_MIN;
        int limit = kMaxLetters;
        while (letters_left_ > 0) {
            worker::ReplayStep step =
                Try(after_id, static_cast<int>(std::min<int64_t>(limit, letters_left_)));
            if (request_.may_commit)
                pg::CallPg([] { SPI_commit(); });
            pg::CheckInterrupts();
            if (step.must_commit)
                continue;
            if (step.taken == 0)
                return;
            Add(step);
            after_id = step.last_id;
            // The rest was locked and decoded for nothing.
            limit =
                step.settled < step.taken ? std::max(kMinLetters, 2 * step.settled) : kMaxLetters;
        }
    }

    bool IsDone() const { return letters_left_ <= 0; }
    const store::ReplayCounts &counts() const { return counts_; }

  private:
    // Workers lock rows before letters, so a deadlock with one that reads a letter's record again
    // is possible; somebody may hold the target for a moment, or have dropped a partition just now.
    static bool IsPassing(const pg::Error &error)
    {
        return error.sqlstate.starts_with("40") || error.sqlstate == "55P03" ||
               (error.sqlstate == "23514" && error.constraint.empty());
    }

    worker::ReplayStep Try(int64_t after_id, int limit)
    {
        for (int tries = 1;; tries++) {
            std::string reason;
            try {
                pg::CallPg([] { EnsurePortalSnapshotExists(); });
                return worker::ReplaySome(request_, after_id, limit);
            } catch (pg::Error &error) {
                if (!request_.may_commit || !IsPassing(error) || tries == kMaxTries) {
                    if (error.detail.empty())
                        error.detail = SoFar();
                    throw;
                }
            }
            pg::CallPg([] { SPI_rollback(); });
            pg::Wait(-1, std::min(tries * 50, 500));
        }
    }

    void Add(const worker::ReplayStep &step)
    {
        letters_left_ -= step.settled;
        counts_.replayed += step.counts.replayed;
        counts_.duplicates += step.counts.duplicates;
        counts_.failed += step.counts.failed;
        pg::CallPg([&] {
            pg::AddReplayProgress(step.counts.replayed, step.counts.duplicates, step.counts.failed);
        });
        const auto now = std::chrono::steady_clock::now();
        if (now - told_at_ < kTellEvery)
            return;
        told_at_ = now;
        pg::CallPg([this] {
            ereport(NOTICE, (errmsg("%lld dead letters replayed, %lld duplicates, %lld failed",
                                    static_cast<long long>(counts_.replayed),
                                    static_cast<long long>(counts_.duplicates),
                                    static_cast<long long>(counts_.failed))));
        });
    }

    std::string SoFar() const
    {
        const int64_t letters = counts_.replayed + counts_.duplicates + counts_.failed;
        if (letters == 0 || request_.is_dry_run || !request_.may_commit)
            return "Nothing was changed.";
        return std::to_string(letters) + " dead letters before it are done with and stay so.";
    }

    worker::ReplayRequest request_;
    int64_t letters_left_;
    store::ReplayCounts counts_{};
    std::chrono::steady_clock::time_point told_at_ = std::chrono::steady_clock::now();
};

// Of one pipeline, or of all that there are (null), as pulse.stat_replay shows it. Regime: door.
store::ReplayCounts
ReplayLetters(const worker::ReplayRequest &request, int64_t max_letters, const char *pipeline)
{
    Replay replay(request, max_letters);
    if (pipeline != nullptr) {
        replay.Run(pipeline);
        return replay.counts();
    }
    const char *next = "";
    while (!replay.IsDone()) {
        next = pg::CallPg([&]() -> const char * {
            EnsurePortalSnapshotExists();
            const char *name = store::NextPipeline(next);
            // It outlives the commits in between.
            return name == nullptr ? nullptr : MemoryContextStrdup(PortalContext, name);
        });
        if (next == nullptr)
            break;
        replay.Run(next);
    }
    return replay.counts();
}

store::ReplayCounts
ReplayWithProgress(const worker::ReplayRequest &request, int64_t max_letters, const char *pipeline)
{
    std::exception_ptr failure;
    store::ReplayCounts counts{};
    pg::CallPg([&] { pg::BeginReplayProgress(request.is_dry_run); });
    try {
        counts = ReplayLetters(request, max_letters, pipeline);
    } catch (...) {
        failure = std::current_exception();
    }
    pg::CallPg([] { pg::EndReplayProgress(); });
    if (failure)
        std::rethrow_exception(failure);
    return counts;
}

// PG regime. In memory that lives as long as the call.
store::LetterFilter
FilterOf(FunctionCallInfo fcinfo, int error_code, int ids, int since)
{
    store::LetterFilter filter{};
    if (!PG_ARGISNULL(error_code))
        filter.error_code = text_to_cstring(PG_GETARG_TEXT_PP(error_code));
    if (!PG_ARGISNULL(since)) {
        filter.since = PG_GETARG_TIMESTAMPTZ(since);
        filter.has_since = true;
    }
    if (PG_ARGISNULL(ids))
        return filter;
    Datum *elements = nullptr;
    bool *nulls = nullptr;
    deconstruct_array(PG_GETARG_ARRAYTYPE_P(ids), INT8OID, 8, true, TYPALIGN_DOUBLE, &elements,
                      &nulls, &filter.id_count);
    int64_t *list = static_cast<int64_t *>(palloc(sizeof(int64_t) * (filter.id_count + 1)));
    for (int i = 0; i < filter.id_count; i++)
        list[i] = nulls[i] ? -1 : DatumGetInt64(elements[i]);
    filter.ids = list;
    return filter;
}

// PG regime.
void
Connect(bool is_atomic)
{
    if (SPI_connect_ext(is_atomic ? 0 : SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
        elog(ERROR, "SPI_connect failed");
}

void
Disconnect()
{
    if (SPI_finish() != SPI_OK_FINISH)
        elog(ERROR, "SPI_finish failed");
}

TupleDesc
ResultOf(FunctionCallInfo fcinfo)
{
    TupleDesc descriptor = nullptr;
    if (get_call_result_type(fcinfo, nullptr, &descriptor) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    return BlessTupleDesc(descriptor);
}

} // namespace

} // namespace pulse::sqlapi

using namespace pulse;

// dlq_replay(pipeline, max_letters, error_code, ids, since, dry_run, INOUT replayed,
// INOUT duplicates, INOUT failed)
PULSE_SQL_FUNCTION(pulse_dlq_replay)
{
    TupleDesc descriptor = sqlapi::ResultOf(fcinfo);
    const char *pipeline = PG_ARGISNULL(0) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(0));
    const int64_t max_letters = PG_ARGISNULL(1) ? INT64_MAX : PG_GETARG_INT64(1);
    if (max_letters < 1)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("max_letters must be at least 1")));
    const bool is_atomic = fcinfo->context == nullptr || !IsA(fcinfo->context, CallContext) ||
                           castNode(CallContext, fcinfo->context)->atomic;
    worker::ReplayRequest request{};
    request.filter = sqlapi::FilterOf(fcinfo, 2, 3, 4);
    request.is_dry_run = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
    request.may_commit = !is_atomic;
    if (is_atomic && !request.is_dry_run)
        ereport(NOTICE, (errmsg("letters are replayed in this transaction, all or none"),
                         errhint("Outside a transaction block every step is committed.")));

    sqlapi::Connect(is_atomic);
    const store::ReplayCounts counts =
        pg::CallCpp([&] { return sqlapi::ReplayWithProgress(request, max_letters, pipeline); });
    sqlapi::Disconnect();

    Datum values[3] = {Int64GetDatum(counts.replayed), Int64GetDatum(counts.duplicates),
                       Int64GetDatum(counts.failed)};
    bool nulls[3] = {};
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(descriptor, values, nulls)));
}

// _dlq_replay_one(dlq_id, pipeline) -> 'replayed', 'duplicate', 'failed', or null: nothing to do
PULSE_SQL_FUNCTION(pulse_dlq_replay_one)
{
    const int64_t id = PG_GETARG_INT64(0);
    const char *pipeline = text_to_cstring(PG_GETARG_TEXT_PP(1));
    worker::ReplayRequest request{};
    request.filter.ids = &id;
    request.filter.id_count = 1;
    sqlapi::Connect(true);
    const store::ReplayCounts counts = pg::CallCpp([&] {
        sqlapi::Replay replay(request, 1);
        replay.Run(pipeline);
        return replay.counts();
    });
    sqlapi::Disconnect();
    if (counts.replayed + counts.duplicates + counts.failed == 0)
        PG_RETURN_NULL();
    PG_RETURN_TEXT_P(cstring_to_text(counts.replayed > 0     ? "replayed"
                                     : counts.duplicates > 0 ? "duplicate"
                                                             : "failed"));
}
