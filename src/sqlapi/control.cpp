// SQL functions that ask the coordinator for something and wait for it: pause, resume, stop, seek,
// accept_gap, skip, wait_until_caught_up.
// Regime: PG, through the doors of PULSE_SQL_FUNCTION.
#include "pg/guc.hpp"
#include "pg/shmem.hpp"
#include "pg/wait.hpp"
#include "sqlapi/arguments.hpp"
#include "sqlapi/definition_checks.hpp"
#include "store/positions.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

namespace {

// The coordinator may be starting; without one nobody would ever answer.
void
RequireCoordinator()
{
    pg::RequireSharedMemory();
    if (RecoveryInProgress())
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                 errmsg("pulse is idle: this server is a standby"), errhint("Ask the primary.")));
    TimestampTz deadline = GetCurrentTimestamp() + 10 * 1000000LL;
    // A name means a pipeline of the one database where pulse runs, not of this one.
    bool is_elsewhere = !pg::IsHome();
    while (is_elsewhere || pg::shared->processes[0].pid == 0) {
        const char *reason = pg::guc_brokers[0] == '\0'
                                 ? "pulse.brokers is not set"
                                 : "no process of pulse runs in this database";
        if (pg::guc_brokers[0] == '\0' || is_elsewhere || GetCurrentTimestamp() > deadline)
            ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                            errmsg("pulse is idle: %s", reason),
                            errhint("Set pulse.brokers, and pulse.database to this database.")));
        pg::WakeLauncher();
        pg::WaitInCall(50);
    }
}

struct Request {
    pg::CommandKind kind;
    const char *pipeline;
    const char *topic;    // null = all
    int32 partition;      // -1 = all
    const char *argument; // null = none
};

int
PostCommand(const Request &request)
{
    pg::Command *free_command = nullptr;
    const char *caller =
        GetUserNameFromId(GetUserId(), false); // reads the catalog: not under the lock
    pg::LockShared();
    for (pg::Command &command : pg::shared->commands)
        if (command.status == pg::CommandStatus::kFree && free_command == nullptr)
            free_command = &command;
    if (free_command != nullptr) {
        memset(static_cast<void *>(free_command), 0, sizeof(*free_command));
        free_command->id = ++pg::shared->last_command_id;
        free_command->kind = request.kind;
        free_command->caller_pid = MyProcPid;
        pg::CopyText(free_command->pipeline, pg::kNameBytes, request.pipeline);
        pg::CopyText(free_command->topic, pg::kTopicBytes,
                     request.topic == nullptr ? "" : request.topic);
        free_command->partition = request.partition;
        pg::CopyText(free_command->argument, sizeof(free_command->argument),
                     request.argument == nullptr ? "" : request.argument);
        pg::CopyText(free_command->caller, pg::kNameBytes, caller);
        free_command->status = pg::CommandStatus::kPending;
    }
    pg::UnlockShared();
    if (free_command == nullptr)
        ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                        errmsg("too many pulse commands are waiting"), errhint("Try again.")));
    return static_cast<int>(free_command - pg::shared->commands);
}

bool
IsDone(int index)
{
    pg::LockSharedForRead();
    bool is_done = pg::shared->commands[index].status == pg::CommandStatus::kDone;
    pg::UnlockShared();
    return is_done;
}

// PG regime; an interrupt or timeout raises, and the caller then abandons the command.
void
AwaitCommand(int index)
{
    while (!IsDone(index)) {
        if (pg::shared->processes[0].pid == 0)
            RequireCoordinator();
        pg::WaitInCall(100);
    }
}

// Regime: door.
void
Ask(const Request &request)
{
    int index = pg::CallPg([&] {
        RequireCoordinator();
        int posted = PostCommand(request);
        pg::WakeCoordinator();
        return posted;
    });
    pg::Command *command = &pg::shared->commands[index];
    try {
        pg::CallPg([&] { AwaitCommand(index); });
    } catch (...) {
        command->is_abandoned = true; // the coordinator frees it
        throw;
    }
    pg::Error answer;
    answer.sqlstate = command->sqlstate;
    answer.message = command->message;
    answer.hint = command->hint;
    command->status = pg::CommandStatus::kFree;
    if (answer.sqlstate != "00000")
        throw answer;
}

void
AskFromSql(const Request &request)
{
    pg::CallCpp([&] { Ask(request); });
}

// The ends of the pipeline's partitions as they are now, by slot; -1 for slots of others. False
// when there is no partition yet or an end is not known.
bool
TakeMarks(const char *pipeline, int64 *marks)
{
    bool is_known = true;
    int partitions = 0;
    pg::LockSharedForRead();
    for (int i = 0; i < pg::kMaxPartitions; i++) {
        const pg::PartitionSlot &slot = pg::shared->partitions[i];
        bool is_ours = slot.is_used && strcmp(slot.pipeline, pipeline) == 0;
        marks[i] = is_ours ? slot.high : -1;
        partitions += is_ours ? 1 : 0;
        is_known = is_known && (!is_ours || slot.high >= 0);
    }
    pg::UnlockShared();
    return is_known && partitions > 0;
}

bool
HasReached(const char *pipeline, const int64 *marks)
{
    bool has_reached = true;
    pg::LockSharedForRead();
    for (int i = 0; i < pg::kMaxPartitions && has_reached; i++) {
        const pg::PartitionSlot &slot = pg::shared->partitions[i];
        has_reached = marks[i] < 0 || (slot.is_used && strcmp(slot.pipeline, pipeline) == 0 &&
                                       slot.next_offset >= marks[i]);
    }
    pg::UnlockShared();
    return has_reached;
}

bool
IsHalted(const char *pipeline, pg::State *state)
{
    bool is_halted = false;
    pg::LockSharedForRead();
    pg::PipelineSlot *slot = pg::FindPipeline(pipeline, false);
    if (slot != nullptr) {
        *state = slot->state;
        is_halted = slot->state == pg::State::kPaused || slot->state == pg::State::kStopped;
    }
    pg::UnlockShared();
    return is_halted;
}

int32
CheckPartition(int32 partition)
{
    if (partition < 0)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("partition %d does not exist", partition),
                        errhint("Partitions count from 0.")));
    return partition;
}

int32
PartitionArgument(FunctionCallInfo fcinfo, int index)
{
    if (PG_ARGISNULL(index))
        RefuseNull("partition");
    return CheckPartition(PG_GETARG_INT32(index));
}

} // namespace

} // namespace pulse::sqlapi

using namespace pulse;

PULSE_SQL_FUNCTION(pulse_pause)
{
    sqlapi::AskFromSql(
        {pg::CommandKind::kPause, sqlapi::TextArgument(fcinfo, 0, "name"), nullptr, -1, nullptr});
    PG_RETURN_VOID();
}

PULSE_SQL_FUNCTION(pulse_resume)
{
    if (PG_ARGISNULL(1))
        sqlapi::RefuseNull("force");
    sqlapi::AskFromSql({pg::CommandKind::kResume, sqlapi::TextArgument(fcinfo, 0, "name"), nullptr,
                        -1, PG_GETARG_BOOL(1) ? "force" : nullptr});
    PG_RETURN_VOID();
}

PULSE_SQL_FUNCTION(pulse_stop)
{
    sqlapi::AskFromSql(
        {pg::CommandKind::kStop, sqlapi::TextArgument(fcinfo, 0, "name"), nullptr, -1, nullptr});
    PG_RETURN_VOID();
}

PULSE_SQL_FUNCTION(pulse_seek)
{
    const char *pipeline = sqlapi::TextArgument(fcinfo, 0, "name");
    const char *position = sqlapi::TextArgument(fcinfo, 1, "to_position");
    ingest::Position parsed =
        sqlapi::CheckPosition("to_position", position); // before anything stops
    if (parsed.kind == ingest::Position::Kind::kAfterRows)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("\"after_rows\" is a start_position, not one to seek"),
                        errhint("Use earliest, latest, an offset, a timestamp, or -1 hour.")));
    char canonical[64];
    if (parsed.kind == ingest::Position::Kind::kTime) {
        // Absolute, so that "-1 hour" means one hour before the call.
        TimestampTz at = (parsed.value - 946684800000) * 1000;
        strlcpy(canonical, timestamptz_to_str(at), sizeof(canonical));
        position = canonical;
    }
    if (strlen(position) >= sizeof(pg::Command::argument))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("to_position is too long"),
                        errhint("Use earliest, latest, an offset, a timestamp, or -1 hour.")));
    // Commands say "all partitions" by -1; a caller says it by NULL.
    if (!PG_ARGISNULL(2))
        (void)sqlapi::CheckPartition(PG_GETARG_INT32(2));
    sqlapi::AskFromSql({pg::CommandKind::kSeek, pipeline,
                        PG_ARGISNULL(3) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(3)),
                        PG_ARGISNULL(2) ? -1 : PG_GETARG_INT32(2), position});
    PG_RETURN_VOID();
}

PULSE_SQL_FUNCTION(pulse_accept_gap)
{
    sqlapi::AskFromSql({pg::CommandKind::kAcceptGap, sqlapi::TextArgument(fcinfo, 0, "name"),
                        sqlapi::TextArgument(fcinfo, 1, "topic"),
                        sqlapi::PartitionArgument(fcinfo, 2), nullptr});
    PG_RETURN_VOID();
}

PULSE_SQL_FUNCTION(pulse_skip)
{
    const char *pipeline = sqlapi::TextArgument(fcinfo, 0, "name");
    const char *topic = sqlapi::TextArgument(fcinfo, 1, "topic");
    int32 partition = sqlapi::PartitionArgument(fcinfo, 2);
    if (PG_ARGISNULL(3))
        sqlapi::RefuseNull("at_offset");
    int64 kafka_offset = PG_GETARG_INT64(3);
    // Here and not in the coordinator: it may take long, and others have commands, too.
    store::RowLook look = store::LookForRow(pipeline, topic, partition, kafka_offset);
    const char *argument = psprintf(INT64_FORMAT " " INT64_FORMAT " %d " INT64_FORMAT, kafka_offset,
                                    look.records, look.is_row ? 1 : 0, look.timestamp_ms);
    sqlapi::AskFromSql({pg::CommandKind::kSkip, pipeline, topic, partition, argument});
    PG_RETURN_VOID();
}

namespace {

void
RefuseUnseen(const char *pipeline)
{
    pg::LockSharedForRead();
    const pg::PipelineSlot *slot = pg::FindPipeline(pipeline, false);
    const int32 unseen = slot == nullptr ? 0 : slot->unseen_partitions;
    pg::UnlockShared();
    if (unseen > 0)
        ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("%d partitions of pipeline \"%s\" are not read", unseen, pipeline),
                        errhint("pulse.stat_pipeline has reason and hint.")));
}

} // namespace

// True when everything that was in the topics at the call is committed; false when time ran out.
PULSE_SQL_FUNCTION(pulse_wait_until_caught_up)
{
    const char *pipeline = sqlapi::TextArgument(fcinfo, 0, "name");
    if (PG_ARGISNULL(1))
        sqlapi::RefuseNull("timeout");
    TimestampTz deadline = DatumGetTimestampTz(DirectFunctionCall2(
        timestamptz_pl_interval, TimestampTzGetDatum(GetCurrentTimestamp()), PG_GETARG_DATUM(1)));
    int64 *marks = static_cast<int64 *>(palloc(sizeof(int64) * pg::kMaxPartitions));
    bool has_marks = false;
    for (;;) {
        pg::RequireSharedMemory();
        pg::State state = pg::State::kStarting;
        if (sqlapi::IsHalted(pipeline, &state))
            ereport(ERROR,
                    (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                     errmsg("pipeline \"%s\" is %s", pipeline, pg::StateName(state)),
                     errhint("Call pulse.resume(%s) first; pulse.stat_pipeline has the reason.",
                             quote_literal_cstr(pipeline))));
        if (!has_marks) {
            // Fresh high watermarks: what "caught up" means is fixed at the call.
            bool refreshed = pg::CallCpp([&] {
                try {
                    sqlapi::Ask({pg::CommandKind::kWatermarks, pipeline, nullptr, -1, nullptr});
                    return true;
                } catch (const pg::Error &error) {
                    if (!error.sqlstate.starts_with("08"))
                        throw;
                    return false; // the broker is away: until the deadline it may come back
                }
            });
            RefuseUnseen(pipeline);
            has_marks = refreshed && sqlapi::TakeMarks(pipeline, marks);
        }
        if (has_marks && sqlapi::HasReached(pipeline, marks))
            PG_RETURN_BOOL(true);
        if (GetCurrentTimestamp() >= deadline)
            PG_RETURN_BOOL(false);
        pg::WaitInCall(20);
    }
}

namespace {

bool is_wake_pending = false;

void
WakeAtCommit(XactEvent event, void *)
{
    if (event == XACT_EVENT_COMMIT && is_wake_pending) {
        pg::LockShared();
        pg::shared->probe_requested++;
        pg::UnlockShared();
        pg::WakeCoordinator();
        pg::WakeLauncher();
    }
    if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
        is_wake_pending = false;
}

} // namespace

// Tells launcher and coordinator, when this transaction commits, to look at the tables now. Called
// by the extension script and by the functions that change pulse.pipelines.
PULSE_SQL_FUNCTION(pulse_wake)
{
    static bool is_registered = false;
    if (pg::shared == nullptr) {
        ereport(WARNING, (errmsg("pulse is not in shared_preload_libraries: no pipeline will run"),
                          errhint("Add it there and restart the server.")));
        PG_RETURN_VOID();
    }
    if (!pg::IsHome())
        ereport(
            WARNING,
            (errmsg("pulse runs in database \"%s\" of this server: no pipeline of this one will",
                    pg::guc_database),
             errhint("pulse.database names it; a change takes a restart.")));
    if (!is_registered)
        RegisterXactCallback(WakeAtCommit, nullptr);
    is_registered = true;
    is_wake_pending = true;
    PG_RETURN_VOID();
}
