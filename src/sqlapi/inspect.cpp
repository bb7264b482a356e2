// Set-returning functions behind the stat views, and ingest_horizon(): they read shared memory
// only, never the broker. Regime: PG.
#include "pg/queue_depth.hpp"
#include "pg/session_writer.hpp"
#include "pg/shmem.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

namespace {

Datum
TextOrNull(const char *text, bool *is_null)
{
    *is_null = text[0] == '\0';
    return *is_null ? static_cast<Datum>(0) : CStringGetTextDatum(text);
}

Datum
TimeOrNull(int64 timestamp, bool *is_null)
{
    *is_null = timestamp == 0;
    return TimestampTzGetDatum(timestamp);
}

Datum
NumberOrNull(int64 number, bool *is_null)
{
    *is_null = number < 0;
    return Int64GetDatum(number);
}

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

} // namespace

} // namespace pulse::sqlapi

using namespace pulse;
using namespace pulse::sqlapi;

PULSE_SQL_FUNCTION(pulse_stat_workers)
{
    InitMaterializedSRF(fcinfo, 0);
    ReturnSetInfo *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
    if (pg::shared == nullptr)
        return static_cast<Datum>(0);
    TimestampTz now = GetCurrentTimestamp();
    pg::ProcessSlot *slot = static_cast<pg::ProcessSlot *>(palloc(sizeof(pg::ProcessSlot)));
    for (const pg::ProcessSlot &shared_slot : pg::shared->processes) {
        CopySlot(slot, &shared_slot, sizeof(*slot));
        if (slot->kind != pg::ProcessKind::kWorker || (slot->pid == 0 && !slot->is_wanted))
            continue;
        Datum values[22];
        bool nulls[22] = {};
        int i = 0;
        values[i++] = CStringGetTextDatum(slot->pipeline);
        values[i++] = Int32GetDatum(slot->worker_index);
        nulls[i] = slot->pid == 0;
        values[i++] = Int32GetDatum(slot->pid);
        values[i++] = CStringGetTextDatum(pg::StateName(slot->state));
        values[i] = TextOrNull(slot->reason, &nulls[i]), i++;
        values[i] = TextOrNull(slot->hint, &nulls[i]), i++;
        values[i] = TimeOrNull(slot->state_since, &nulls[i]), i++;
        values[i] = TimeOrNull(slot->next_retry_at, &nulls[i]), i++;
        values[i++] = CStringGetTextDatum(pg::PhaseName(slot->phase));
        values[i] = TimeOrNull(slot->started_at, &nulls[i]), i++;
        values[i] = TimeOrNull(slot->last_commit_at, &nulls[i]), i++;
        values[i++] = Int64GetDatum(slot->batch_count);
        values[i++] = Int64GetDatum(slot->record_count);
        values[i++] = Int64GetDatum(slot->row_count);
        values[i++] = Int64GetDatum(slot->duplicate_count);
        values[i++] = Int64GetDatum(slot->reject_count);
        values[i++] = Int64GetDatum(slot->queue_records);
        double p50 = Percentile(*slot, 0.5);
        double p99 = Percentile(*slot, 0.99);
        nulls[i] = p50 < 0;
        values[i++] = Float8GetDatum(p50);
        nulls[i] = p99 < 0;
        values[i++] = Float8GetDatum(p99);
        values[i++] = Float8GetDatum(pg::RecordsPerSecond(*slot, now));
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
    return static_cast<Datum>(0);
}

PULSE_SQL_FUNCTION(pulse_stat_pipelines)
{
    InitMaterializedSRF(fcinfo, 0);
    ReturnSetInfo *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
    if (pg::shared == nullptr)
        return static_cast<Datum>(0);
    pg::PipelineSlot slot;
    for (const pg::PipelineSlot &shared_slot : pg::shared->pipelines) {
        CopySlot(&slot, &shared_slot, sizeof(slot));
        if (!slot.is_used)
            continue;
        Datum values[5];
        bool nulls[5] = {};
        values[0] = CStringGetTextDatum(slot.name);
        values[1] = CStringGetTextDatum(pg::StateName(slot.state));
        values[2] = TextOrNull(slot.reason, &nulls[2]);
        values[3] = TextOrNull(slot.hint, &nulls[3]);
        values[4] = TimeOrNull(slot.state_since, &nulls[4]);
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
    return static_cast<Datum>(0);
}

PULSE_SQL_FUNCTION(pulse_stat_partitions)
{
    InitMaterializedSRF(fcinfo, 0);
    ReturnSetInfo *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
    if (pg::shared == nullptr)
        return static_cast<Datum>(0);
    pg::PartitionSlot slot;
    for (const pg::PartitionSlot &shared_slot : pg::shared->partitions) {
        if (!shared_slot.is_used)
            continue;
        CopySlot(&slot, &shared_slot, sizeof(slot));
        if (!slot.is_used)
            continue;
        Datum values[13];
        bool nulls[13] = {};
        int i = 0;
        values[i++] = CStringGetTextDatum(slot.pipeline);
        values[i++] = CStringGetTextDatum(slot.topic);
        values[i++] = Int32GetDatum(slot.partition);
        values[i] = NumberOrNull(slot.next_offset, &nulls[i]), i++;
        values[i] = NumberOrNull(slot.low, &nulls[i]), i++;
        values[i] = NumberOrNull(slot.high, &nulls[i]), i++;
        values[i] = TimeOrNull(slot.watermarks_at, &nulls[i]), i++;
        values[i] = TimeOrNull(slot.last_kafka_timestamp, &nulls[i]), i++;
        values[i] = TimeOrNull(slot.caught_up_at, &nulls[i]), i++;
        values[i++] = CStringGetTextDatum(pg::StateName(slot.state));
        values[i] = TextOrNull(slot.reason, &nulls[i]), i++;
        nulls[i] = slot.worker_pid == 0;
        values[i++] = Int32GetDatum(slot.worker_pid);
        nulls[i] = slot.arrivals_per_second < 0;
        values[i++] = Float8GetDatum(slot.arrivals_per_second);
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
    return static_cast<Datum>(0);
}

PULSE_SQL_FUNCTION(pulse_stat_replays)
{
    InitMaterializedSRF(fcinfo, 0);
    ReturnSetInfo *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
    if (pg::shared == nullptr)
        return static_cast<Datum>(0);
    pg::ReplaySlot slot;
    for (const pg::ReplaySlot &shared_slot : pg::shared->replays) {
        CopySlot(&slot, &shared_slot, sizeof(slot));
        if (slot.pid == 0)
            continue;
        Datum values[9];
        bool nulls[9] = {};
        values[0] = Int32GetDatum(slot.pid);
        values[1] = TextOrNull(slot.pipeline, &nulls[1]);
        values[2] = BoolGetDatum(slot.is_dry_run);
        values[3] = Int64GetDatum(slot.due);
        values[4] = Int64GetDatum(slot.replayed);
        values[5] = Int64GetDatum(slot.duplicates);
        values[6] = Int64GetDatum(slot.failed);
        values[7] = TimeOrNull(slot.started_at, &nulls[7]);
        values[8] = TimeOrNull(slot.last_step_at, &nulls[8]);
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
    return static_cast<Datum>(0);
}

PULSE_SQL_FUNCTION(pulse_stat_stages)
{
    InitMaterializedSRF(fcinfo, 0);
    ReturnSetInfo *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
    if (pg::shared == nullptr)
        return static_cast<Datum>(0);
    pg::StageSlot slot;
    for (const pg::StageSlot &shared_slot : pg::shared->stages) {
        CopySlot(&slot, &shared_slot, sizeof(slot));
        if (slot.pipeline[0] == '\0')
            break;
        Datum values[7] = {CStringGetTextDatum(slot.pipeline),
                           CStringGetTextDatum(slot.stage),
                           Int64GetDatum(slot.runs),
                           Int64GetDatum(slot.records_in),
                           Int64GetDatum(slot.records_out),
                           Int64GetDatum(slot.refused),
                           Float8GetDatum(static_cast<double>(slot.spent_us) / 1000.0)};
        bool nulls[7] = {};
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
    return static_cast<Datum>(0);
}

PULSE_SQL_FUNCTION(pulse_stat_sends)
{
    InitMaterializedSRF(fcinfo, 0);
    ReturnSetInfo *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
    if (pg::shared == nullptr)
        return static_cast<Datum>(0);
    int32 pid = pg::shared->processes[pg::kSenderSlot].pid;
    pg::SendSlot slot;
    for (const pg::SendSlot &shared_slot : pg::shared->sends) {
        CopySlot(&slot, &shared_slot, sizeof(slot));
        if (!slot.is_used)
            continue;
        Datum values[13];
        bool nulls[13] = {};
        int i = 0;
        values[i++] = CStringGetTextDatum(slot.is_outbox ? "produce" : "dead letters");
        values[i] = TextOrNull(slot.pipeline, &nulls[i]), i++;
        values[i++] = CStringGetTextDatum(slot.topic);
        nulls[i] = pid == 0;
        values[i++] = Int32GetDatum(pid);
        values[i++] = CStringGetTextDatum(pg::StateName(slot.state));
        values[i] = TextOrNull(slot.reason, &nulls[i]), i++;
        values[i] = TextOrNull(slot.hint, &nulls[i]), i++;
        values[i] = TimeOrNull(slot.state_since, &nulls[i]), i++;
        values[i] = TimeOrNull(slot.next_retry_at, &nulls[i]), i++;
        values[i++] = Int64GetDatum(slot.sent_count);
        values[i++] = Int64GetDatum(slot.refused_count);
        values[i++] = Int64GetDatum(slot.in_flight);
        values[i] = TimeOrNull(slot.last_sent_at, &nulls[i]), i++;
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
    return static_cast<Datum>(0);
}

// One row. What is wrong with the process itself: no streams are known before it has run.
PULSE_SQL_FUNCTION(pulse_sender_trouble)
{
    TupleDesc descriptor = nullptr;
    if (get_call_result_type(fcinfo, nullptr, &descriptor) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    Datum values[4] = {};
    bool nulls[4] = {true, true, true, true};
    if (pg::shared != nullptr) {
        pg::ProcessSlot *slot = static_cast<pg::ProcessSlot *>(palloc(sizeof(pg::ProcessSlot)));
        CopySlot(slot, &pg::shared->processes[pg::kSenderSlot], sizeof(*slot));
        if (slot->is_wanted && slot->reason[0] != '\0') {
            values[0] = TextOrNull(pg::StateName(slot->state), &nulls[0]);
            values[1] = TextOrNull(slot->reason, &nulls[1]);
            values[2] = TextOrNull(slot->hint, &nulls[2]);
            values[3] = TimeOrNull(slot->state_since, &nulls[3]);
        }
    }
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(descriptor, values, nulls)));
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
