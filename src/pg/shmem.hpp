// Shared memory: what the processes of pulse tell each other and what the stat views show. Numbers
// and fixed strings only, never a process pointer (W7). Everything is guarded by one LWLock, taken
// for microseconds; it is empty after a crash restart and rebuilt from the tables.
// Regime: PG. Includes no server header, so C++ code may read the structs.
#pragma once

#include <cstdint>

struct LWLock;

namespace pulse::pg {

constexpr int kMaxPipelines = 64;
constexpr int kMaxProcesses = 129;             // the coordinator, 127 workers, the sender
constexpr int kSenderSlot = kMaxProcesses - 1; // the last to get a background worker
constexpr int kMaxSends = 128;
constexpr int kMaxPartitions = 4096;
constexpr int kMaxCommands = 32;
constexpr int kMaxWriters = 64;
constexpr int kMaxReplays = 32;
constexpr int kMaxStageSlots = 512;
constexpr int kNameBytes = 64;   // NAMEDATALEN
constexpr int kTopicBytes = 250; // Kafka's limit is 249
constexpr int kReasonBytes = 400;
constexpr int kTroubleBytes = 160;
constexpr int kCommitRing = 128;
constexpr int kRateSeconds = 60;

// product.md section 7.
enum class State : int32_t {
    kStarting,
    kRunning,
    kIdle,
    kPaused,
    kRetrying,
    kStopped,
    kFailed,
    kOffsetLost,
    kTopicChanged,
    kQuarantined,
};
const char *StateName(State state);
// Of a log line about it: WARNING where somebody must act, LOG where it goes on by itself.
int LogLevel(State state);

enum class Phase : int32_t { kStarting, kWaiting, kWriting, kRetrying, kExiting };
const char *PhaseName(Phase phase);

enum class ProcessKind : int32_t { kNone, kCoordinator, kWorker, kSender };

// Wanted by the coordinator (the coordinator's own slot: by the launcher), started by the launcher.
// The sender's: wanted by the coordinator when there is something to send, until it idles.
struct ProcessSlot {
    ProcessKind kind;
    bool is_wanted; // false: finish the batch in flight and exit
    int32_t pid;    // 0 = not running
    int32_t worker_index;
    int32_t worker_rank;  // which share of the partitions it has, -1 = none
    int32_t worker_count; // that share them
    char pipeline[kNameBytes];
    int64_t definition_version; // pulse.pipelines.version to run with
    int64_t assignment_version; // changes when partitions come or go
    int32_t failure_count;      // consecutive starts that ended badly; paces restarts
    int64_t next_start_at;      // TimestampTz
    bool is_starved;            // the server had no background worker slot for it

    State state;
    int64_t state_since;
    int64_t next_retry_at;
    char reason[kReasonBytes];
    char hint[kReasonBytes];
    Phase phase;
    int64_t started_at;
    int64_t expected_by; // TimestampTz; a worker that says nothing until then does not move
    int64_t last_commit_at;
    int64_t writer_since; // TimestampTz of the batch being written, 0 = none: ingest_horizon()
    int64_t batch_count, record_count, row_count, duplicate_count, reject_count;
    int64_t queue_records;          // read but not committed
    int32_t commit_us[kCommitRing]; // duration of the last batches, from begin to commit
    int32_t commit_next;
    int64_t rate_second[kRateSeconds];
    int64_t rate_rows[kRateSeconds];
};

// What the sender forwards: the dead letters of a pipeline, or produced records for a topic.
struct SendSlot {
    bool is_used;
    bool is_outbox;
    char pipeline[kNameBytes]; // of dead letters
    char topic[kTopicBytes];
    State state;
    int64_t state_since;
    int64_t next_retry_at;
    char reason[kReasonBytes];
    char hint[kReasonBytes];
    int64_t sent_count, refused_count; // since the server started
    int64_t in_flight;                 // handed to librdkafka, not reported
    int64_t last_sent_at;
};

struct PipelineSlot {
    bool is_used;
    char name[kNameBytes];
    State state; // kRunning: look at the workers
    int64_t state_since;
    char reason[kReasonBytes];
    char hint[kReasonBytes];
    int32_t unseen_partitions; // that there is no slot for: they are not read
    // Written by the upkeep process.
    int64_t expiry_held_since; // TimestampTz; a partition that should go is in use, 0 = none
    int64_t expiry_since;      // retention cannot do its work, 0 = it can
    char expiry_reason[kReasonBytes];
    char expiry_hint[kReasonBytes];
    // Partitions that workers made for its target (partition_budget.hpp).
    int64_t budget_from; // TimestampTz of the first of this hour, 0 = none
    int32_t budget_spent;
};

struct PartitionSlot {
    bool is_used;
    char pipeline[kNameBytes];
    char topic[kTopicBytes];
    int32_t partition;
    int64_t next_offset; // committed; -1 = unknown
    int64_t low, high;   // -1 = unknown
    int64_t watermarks_at;
    int64_t watched_at;           // when the coordinator last looked, 0 = never
    int64_t watched_high;         // and what high was then
    double arrivals_per_second;   // between its last two looks; -1 = unknown
    int64_t last_kafka_timestamp; // TimestampTz of the last committed record, 0 = none
    int64_t caught_up_at;         // when next_offset last equalled high, 0 = never
    int64_t lost_offset;          // kOffsetLost, kTopicChanged, kQuarantined: where reading stopped
    bool is_judged;               // kOffsetLost: the coordinator has asked where the log begins
    State state;                  // as its worker says
    char reason[kReasonBytes];
    char trouble[kTroubleBytes]; // why the coordinator could not ask about it, empty = it could
    int32_t worker_pid;
};

enum class CommandKind : int32_t { kPause, kResume, kStop, kSeek, kAcceptGap, kSkip, kWatermarks };
enum class CommandStatus : int32_t { kFree, kPending, kRunning, kDone };

// A request of a backend, carried out by the coordinator in a transaction of its own, so that the
// caller's ROLLBACK does not undo it.
struct Command {
    CommandStatus status;
    int64_t id;
    CommandKind kind;
    int32_t caller_pid;
    bool is_abandoned; // the caller no longer waits
    char pipeline[kNameBytes];
    char topic[kTopicBytes]; // empty = all
    int32_t partition;       // -1 = all
    char argument[128];
    char caller[kNameBytes]; // role
    char sqlstate[6];        // "00000" when it worked
    char message[kReasonBytes];
    char hint[kReasonBytes];
};

// A session that writes rows of events (session_writer.hpp).
struct WriterSlot {
    int32_t pid;
    int64_t since; // TimestampTz, 0 = free
};

// A CALL of pulse.dlq_replay that runs (replay_progress.hpp).
struct ReplaySlot {
    int32_t pid; // 0 = free
    char pipeline[kNameBytes];
    bool is_dry_run;
    int64_t started_at, last_step_at; // TimestampTz; 0 = no step yet
    int64_t due, replayed, duplicates, failed;
};

// A stage of a pipeline (stage_stats.hpp); kept when it is dropped.
struct StageSlot {
    char pipeline[kNameBytes]; // empty = free
    char stage[kNameBytes];
    int64_t runs, records_in, records_out, refused, spent_us;
};

struct Shared {
    LWLock *lock;
    int32_t launcher_pid;
    bool extension_seen;     // the coordinator found the extension at its last look
    int64_t probe_requested; // raised by CREATE EXTENSION
    int64_t last_command_id;
    ProcessSlot processes[kMaxProcesses]; // [0] is the coordinator
    PipelineSlot pipelines[kMaxPipelines];
    PartitionSlot partitions[kMaxPartitions];
    Command commands[kMaxCommands];
    WriterSlot writers[kMaxWriters];
    ReplaySlot replays[kMaxReplays];
    SendSlot sends[kMaxSends];
    StageSlot stages[kMaxStageSlots];
    int64_t outgoing_news; // raised by commits that leave something for the sender
    // See outbox_depth.hpp.
    bool is_outbox_counted;
    int64_t outbox_counted_at; // TimestampTz
    int64_t outbox_depth;
    int64_t outbox_second; // of the last rows sent, and how many in that second
    int64_t outbox_sent;
    double outbox_per_second;
};

extern Shared *shared; // null when the library was not preloaded

void RequestSharedMemory(); // from _PG_init
void RequireSharedMemory(); // raises 55000 with a hint when not preloaded

void LockShared();
void LockSharedForRead();
void UnlockShared();

// All below need the lock.
PipelineSlot *FindPipeline(const char *name, bool create);
PartitionSlot *FindPartition(const char *pipeline, const char *topic, int32_t partition,
                             bool create);
SendSlot *FindSend(bool is_outbox, const char *pipeline, const char *topic, bool create);
void SetPipelineState(PipelineSlot *slot, State state, const char *reason, const char *hint);
void CopyText(char *target, int size, const char *text);
// Nothing but what the coordinator found keeps it from being read.
bool IsInTrouble(const PartitionSlot &slot);

// A sender begins: what an earlier one was at is not under way any more. Takes the lock.
void ResetSends();

// Wakes a pulse process (its latch); harmless when it is gone. Not under the lock.
void WakeProcess(int32_t pid);
void WakeLauncher();
void WakeCoordinator();
// There is something new to send. When no sender runs, the coordinator looks at its next tick,
// within half a second, after WakeSender() at once: only where it is sure to want one then.
void TellSender();
void WakeSender();

} // namespace pulse::pg
