// Set-returning functions behind the stat views, and ingest_horizon(): they read shared memory
// only, never the broker. Regime: PG.
#include "pg/queue_depth.hpp"
#include "pg/session_writer.hpp"
#include "pg/shmem.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

namespace {

constexpr int64 kLasting = 10000000; // TimestampTz: trouble is shown then

double
Percentile(const pg::ProcessSlot &slot, double share)
{
    int count = Min(slot.commit_next, pg::kCommitRing);
    if (count == 0)
        return -1;
    int32 sorted[pg::kCommitRing];
    memcpy(sorted, slot.commit_us, sizeof(int32) * count);
    qsort(sorted, count, sizeof(int32), [](const void *left, const void *right) {
        int32 a = *static_cast<const int32 *>(left);
        int32 b = *static_cast<const int32 *>(right);
        return (a > b) - (a < b);
    });
    int rank = static_cast<int>(share * (count - 1) + 0.5);
    return sorted[rank] / 1000.0;
}

void
CopySlot(void *target, const void *source, Size bytes)
{
    pg::LockSharedForRead();
    memcpy(target, source, bytes);
    pg::UnlockShared();
}

struct Trouble {
    const char *reason; // null = none
    const char *hint;
    TimestampTz since;
};

// Not what passes within seconds.
Trouble
CoordinatorTrouble()
{
    if (pg::shared == nullptr)
        return {};
    pg::ProcessSlot *slot = static_cast<pg::ProcessSlot *>(palloc(sizeof(pg::ProcessSlot)));
    CopySlot(slot, &pg::shared->processes[0], sizeof(*slot));
    const TimestampTz now = GetCurrentTimestamp();
    if (slot->pid != 0 && slot->expected_by != 0 && now > slot->expected_by)
        return {psprintf("the coordinator, process %d, does not move", slot->pid),
                "New partitions, commands and retention wait for it; workers go on with what they "
                "have. Should it be stopped, SIGCONT; pg_terminate_backend() starts another one.",
                slot->expected_by};
    if (slot->state == pg::State::kRetrying && now - slot->state_since > kLasting)
        return {psprintf("the coordinator does not get on: %s", slot->reason),
                "New partitions, commands and retention wait for it; workers go on with what they "
                "have. It tries again by itself.",
                slot->state_since};
    return {};
}

// Of most slots.
constexpr auto kIsUsed = [](const auto &slot) { return slot.is_used; };

// A row of a result, column after column.
class Row {
  public:
    void Text(const char *text) { Add(CStringGetTextDatum(text)); }
    void TextOrNull(const char *text) { text[0] == '\0' ? AddNull() : Text(text); }
    void Number(int64 number) { Add(Int64GetDatum(number)); }
    void NumberOrNull(int64 number) { number < 0 ? AddNull() : Number(number); }
    void Index(int32 number) { Add(Int32GetDatum(number)); }
    void PidOrNull(int32 pid) { pid == 0 ? AddNull() : Index(pid); }
    void Real(double number) { Add(Float8GetDatum(number)); }
    void RealOrNull(double number) { number < 0 ? AddNull() : Real(number); }
    void Boolean(bool is_true) { Add(BoolGetDatum(is_true)); }
    void TimeOrNull(int64 timestamp)
    {
        timestamp == 0 ? AddNull() : Add(TimestampTzGetDatum(timestamp));
    }
    void AddNull()
    {
        values_[count_] = static_cast<Datum>(0);
        nulls_[count_++] = true;
    }

    void PutInto(ReturnSetInfo *result)
    {
        Assert(count_ == result->setDesc->natts);
        tuplestore_putvalues(result->setResult, result->setDesc, values_, nulls_);
    }
    HeapTuple Form(TupleDesc descriptor)
    {
        Assert(count_ == descriptor->natts);
        return heap_form_tuple(descriptor, values_, nulls_);
    }

  private:
    static constexpr int kMaxValues = 24;

    void Add(Datum value)
    {
        values_[count_] = value;
        nulls_[count_++] = false;
    }

    int count_ = 0;
    Datum values_[kMaxValues];
    bool nulls_[kMaxValues];
};

// A row for every slot that is shown; none when pulse is not preloaded.
template <typename Slot, int N, typename P, typename F>
Datum
ShowSlots(FunctionCallInfo fcinfo, Slot (pg::Shared::*slots)[N], P is_shown, F fill)
{
    InitMaterializedSRF(fcinfo, 0);
    if (pg::shared == nullptr)
        return static_cast<Datum>(0);
    Slot *slot = static_cast<Slot *>(palloc(sizeof(Slot)));
    for (const Slot &shared_slot : pg::shared->*slots) {
        if (!is_shown(shared_slot)) // looked at without the lock: most are not
            continue;
        CopySlot(slot, &shared_slot, sizeof(Slot));
        if (!is_shown(*slot))
            continue;
        Row row;
        fill(*slot, &row);
        row.PutInto(reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo));
    }
    return static_cast<Datum>(0);
}

} // namespace

} // namespace pulse::sqlapi

using namespace pulse;
using namespace pulse::sqlapi;

PULSE_SQL_FUNCTION(pulse_stat_workers)
{
    TimestampTz now = GetCurrentTimestamp();
    auto is_worker = [](const pg::ProcessSlot &slot) {
        return slot.kind == pg::ProcessKind::kWorker && (slot.pid != 0 || slot.is_wanted);
    };
    return ShowSlots(fcinfo, &pg::Shared::processes, is_worker,
                     [now](const pg::ProcessSlot &slot, Row *row) {
                         row->Text(slot.pipeline);
                         row->Index(slot.worker_index);
                         row->PidOrNull(slot.pid);
                         row->Text(pg::StateName(slot.state));
                         row->TextOrNull(slot.reason);
                         row->TextOrNull(slot.hint);
                         row->TimeOrNull(slot.state_since);
                         row->TimeOrNull(slot.next_retry_at);
                         row->Text(pg::PhaseName(slot.phase));
                         row->TimeOrNull(slot.started_at);
                         row->TimeOrNull(slot.last_commit_at);
                         row->Number(slot.batch_count);
                         row->Number(slot.record_count);
                         row->Number(slot.row_count);
                         row->Number(slot.duplicate_count);
                         row->Number(slot.reject_count);
                         row->Number(slot.queue_records);
                         row->RealOrNull(Percentile(slot, 0.5));
                         row->RealOrNull(Percentile(slot, 0.99));
                         row->Real(pg::RecordsPerSecond(slot, now));
                     });
}

// Nobody looks after pipelines that are said to run when the coordinator does not.
PULSE_SQL_FUNCTION(pulse_stat_pipelines)
{
    const Trouble trouble = CoordinatorTrouble();
    auto fill = [&trouble](const pg::PipelineSlot &slot, Row *row) {
        const bool is_left_alone = trouble.reason != nullptr && slot.state == pg::State::kRunning;
        row->Text(slot.name);
        row->Text(pg::StateName(is_left_alone ? pg::State::kRetrying : slot.state));
        row->TextOrNull(is_left_alone ? trouble.reason : slot.reason);
        row->TextOrNull(is_left_alone ? trouble.hint : slot.hint);
        row->TimeOrNull(is_left_alone ? trouble.since : slot.state_since);
        row->TextOrNull(slot.expiry_reason);
        row->TextOrNull(slot.expiry_hint);
        row->TimeOrNull(slot.expiry_since);
    };
    return ShowSlots(fcinfo, &pg::Shared::pipelines, kIsUsed, fill);
}

PULSE_SQL_FUNCTION(pulse_stat_partitions)
{
    return ShowSlots(
        fcinfo, &pg::Shared::partitions, kIsUsed, [](const pg::PartitionSlot &slot, Row *row) {
            row->Text(slot.pipeline);
            row->Text(slot.topic);
            row->Index(slot.partition);
            row->NumberOrNull(slot.next_offset);
            row->NumberOrNull(slot.low);
            row->NumberOrNull(slot.high);
            row->TimeOrNull(slot.watermarks_at);
            row->TimeOrNull(slot.last_kafka_timestamp);
            row->TimeOrNull(slot.caught_up_at);
            bool is_in_trouble = pg::IsInTrouble(slot);
            row->Text(pg::StateName(is_in_trouble ? pg::State::kRetrying : slot.state));
            row->TextOrNull(is_in_trouble ? slot.trouble : slot.reason);
            row->PidOrNull(slot.worker_pid);
            row->RealOrNull(slot.arrivals_per_second);
        });
}

PULSE_SQL_FUNCTION(pulse_stat_replays)
{
    auto is_running = [](const pg::ReplaySlot &slot) { return slot.pid != 0; };
    return ShowSlots(fcinfo, &pg::Shared::replays, is_running,
                     [](const pg::ReplaySlot &slot, Row *row) {
                         row->Index(slot.pid);
                         row->TextOrNull(slot.pipeline);
                         row->Boolean(slot.is_dry_run);
                         row->Number(slot.due);
                         row->Number(slot.replayed);
                         row->Number(slot.duplicates);
                         row->Number(slot.failed);
                         row->TimeOrNull(slot.started_at);
                         row->TimeOrNull(slot.last_step_at);
                     });
}

PULSE_SQL_FUNCTION(pulse_stat_stages)
{
    auto is_known = [](const pg::StageSlot &slot) { return slot.pipeline[0] != '\0'; };
    return ShowSlots(fcinfo, &pg::Shared::stages, is_known,
                     [](const pg::StageSlot &slot, Row *row) {
                         row->Text(slot.pipeline);
                         row->Text(slot.stage);
                         row->Number(slot.runs);
                         row->Number(slot.records_in);
                         row->Number(slot.records_out);
                         row->Number(slot.refused);
                         row->Real(static_cast<double>(slot.spent_us) / 1000.0);
                     });
}

PULSE_SQL_FUNCTION(pulse_stat_sends)
{
    int32 pid = pg::shared == nullptr ? 0 : pg::shared->processes[pg::kSenderSlot].pid;
    return ShowSlots(fcinfo, &pg::Shared::sends, kIsUsed,
                     [pid](const pg::SendSlot &slot, Row *row) {
                         row->Text(slot.is_outbox ? "produce" : "dead letters");
                         row->TextOrNull(slot.pipeline);
                         row->Text(slot.topic);
                         row->PidOrNull(pid);
                         row->Text(pg::StateName(slot.state));
                         row->TextOrNull(slot.reason);
                         row->TextOrNull(slot.hint);
                         row->TimeOrNull(slot.state_since);
                         row->TimeOrNull(slot.next_retry_at);
                         row->Number(slot.sent_count);
                         row->Number(slot.refused_count);
                         row->Number(slot.in_flight);
                         row->TimeOrNull(slot.last_sent_at);
                     });
}

// One row. What is wrong with the process itself: no streams are known before it has run.
PULSE_SQL_FUNCTION(pulse_sender_trouble)
{
    TupleDesc descriptor = nullptr;
    if (get_call_result_type(fcinfo, nullptr, &descriptor) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    Row row;
    pg::ProcessSlot *slot = static_cast<pg::ProcessSlot *>(palloc0(sizeof(pg::ProcessSlot)));
    if (pg::shared != nullptr)
        CopySlot(slot, &pg::shared->processes[pg::kSenderSlot], sizeof(*slot));
    if (slot->is_wanted && slot->reason[0] != '\0') {
        row.Text(pg::StateName(slot->state));
        row.Text(slot->reason);
        row.TextOrNull(slot->hint);
        row.TimeOrNull(slot->state_since);
    } else {
        for (int i = 0; i < descriptor->natts; i++)
            row.AddNull();
    }
    PG_RETURN_DATUM(HeapTupleGetDatum(row.Form(descriptor)));
}

// Everything ingested before it is committed: the begin of the oldest batch being written, or now.
PULSE_SQL_FUNCTION(pulse_ingest_horizon)
{
    pg::RequireSharedMemory();
    if (RecoveryInProgress())
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("the ingest horizon is not known on a standby"),
                        errhint("Ask the primary.")));
    TimestampTz horizon = GetCurrentTimestamp();
    pg::LockSharedForRead();
    for (const pg::ProcessSlot &slot : pg::shared->processes)
        if (slot.writer_since != 0 && slot.writer_since < horizon)
            horizon = slot.writer_since;
    horizon = pg::OldestSessionWriter(horizon);
    pg::UnlockShared();
    PG_RETURN_TIMESTAMPTZ(horizon);
}
