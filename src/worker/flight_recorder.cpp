#include "worker/flight_recorder.hpp"

#include <csignal>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error_class.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

Flight nowhere; // remembers nothing

} // namespace

Flight *my_flight = &nowhere;

namespace {

// A base backup leaves this directory out. Another layout needs another number.
constexpr char kPath[] = PG_STAT_TMP_DIR "/pulse.flights.1";
constexpr int kFlights = pg::kMaxProcesses;
constexpr int kUnclearDeathsUntilAlone = 2;
constexpr uint32_t kRecordsAlone = 10000;
// A worker that came so far died of something else than the one before.
constexpr int64_t kFarRecords = 100000;

emit_log_hook_type previous_log_hook = nullptr;

// ---- ends that are no crash ----

void
EndFlight(int, Datum)
{
    my_flight->has_ended = 1;
}

// The server ends all processes because one of them crashed, or stops at once.
void
Quit(SIGNAL_ARGS)
{
    my_flight->has_ended = 1;
    _exit(2); // as SignalHandlerForCrashExit()
}

void
WatchForPanic(ErrorData *error)
{
    if (error->elevel == PANIC &&
        ClassOf(unpack_sql_state(error->sqlerrcode)) == ErrorClass::kEnvironment)
        my_flight->has_ended = 1;
    if (previous_log_hook != nullptr)
        previous_log_hook(error);
}

// ---- the file ----

// Null when there is no room for it.
Flight *
MapFile()
{
    constexpr size_t kBytes = sizeof(Flight) * kFlights;
    int file = open(kPath, O_RDWR | O_CREAT | O_CLOEXEC, pg_file_create_mode);
    if (file < 0)
        return nullptr;
    void *memory = MAP_FAILED;
    // With its blocks in place a full disk can't raise SIGBUS later.
    int error = posix_fallocate(file, 0, kBytes);
    if (error == 0) {
        memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        error = errno;
    }
    close(file);
    errno = error;
    return memory == MAP_FAILED ? nullptr : static_cast<Flight *>(memory);
}

// After a power failure the file may hold anything.
bool
IsSane(const FlightMark &mark)
{
    return mark.topic_length >= 0 &&
           mark.topic_length <= static_cast<int32_t>(sizeof(mark.topic)) && mark.next_offset >= 0;
}

bool
IsSane(const Flight &flight)
{
    return IsSane(flight.decoding) && IsSane(flight.writing) && IsSane(flight.suspects[0].record) &&
           IsSane(flight.suspects[1].record) &&
           memchr(flight.pipeline, '\0', sizeof(flight.pipeline)) != nullptr;
}

bool
IsOver(const Flight &flight)
{
    return flight.has_ended != 0 || kill(flight.pid, 0) != 0;
}

// This worker's flight before; else a free one, else one that is over. Null when all fly.
Flight *
FindFlight(Flight *flights, const char *pipeline, int worker_index)
{
    Flight *spare = nullptr;
    auto rank = [](const Flight &flight) {
        return flight.is_used == 0 ? 3 : !IsOver(flight) ? 0 : flight.has_ended != 0 ? 2 : 1;
    };
    for (int i = 0; i < kFlights; i++) {
        Flight *flight = &flights[i];
        if (!IsSane(*flight))
            memset(flight, 0, sizeof(*flight));
        if (flight->is_used != 0 && flight->worker_index == worker_index &&
            strncmp(flight->pipeline, pipeline, sizeof(flight->pipeline)) == 0)
            return flight;
        if (rank(*flight) > (spare == nullptr ? 0 : rank(*spare)))
            spare = flight;
    }
    if (spare == nullptr)
        return nullptr;
    memset(spare, 0, sizeof(*spare));
    strlcpy(spare->pipeline, pipeline, sizeof(spare->pipeline));
    spare->worker_index = worker_index;
    spare->has_ended = 1;
    return spare;
}

// ---- how the flight before ended ----

void
Suspicion(Suspect *suspect, const FlightMark &mark)
{
    int deaths = suspect->record.IsSame(mark) ? suspect->deaths : 0;
    suspect->record = mark;
    suspect->deaths = mark.IsSet() ? deaths + 1 : 0;
    if (mark.IsSet())
        ereport(LOG, (errmsg("the pulse worker before died at the record at offset %lld of "
                             "partition %d of topic \"%.*s\" (%d in a row)",
                             static_cast<long long>(mark.kafka_offset()), mark.partition,
                             mark.topic_length, mark.topic, suspect->deaths)));
}

void
JudgeDeath(Flight *flight)
{
    Suspicion(&flight->suspects[0], flight->decoding);
    Suspicion(&flight->suspects[1], flight->writing);
    // One that is decoded is in flight for a microsecond: three times is no accident. What was
    // being written meanwhile is.
    if (flight->suspects[0].deaths > 1)
        flight->suspects[1] = {};
    bool is_unclear = flight->records_writing > 0 && !flight->writing.IsSet();
    if (!is_unclear || flight->records_committed >= kFarRecords)
        flight->unclear_deaths = 0;
    if (is_unclear && ++flight->unclear_deaths >= kUnclearDeathsUntilAlone) {
        flight->unclear_deaths = 0;
        flight->alone_left = Max(kRecordsAlone, flight->records_writing);
        ereport(LOG, (errmsg("pulse writes the next %u records one by one, because its worker "
                             "died while it wrote several",
                             flight->alone_left)));
    }
}

} // namespace

void
StartFlight(const char *pipeline, int worker_index)
{
    Flight *flights = MapFile();
    if (flights == nullptr)
        ereport(LOG, (errcode_for_file_access(),
                      errmsg("could not map file \"%s\", pulse would not find a record that "
                             "crashes it: %m",
                             kPath)));
    pg::LockShared();
    Flight *flight = flights == nullptr ? nullptr : FindFlight(flights, pipeline, worker_index);
    if (flight != nullptr)
        my_flight = flight;
    bool was_crash = my_flight->is_used != 0 && my_flight->has_ended == 0;
    my_flight->is_used = 1;
    my_flight->pid = MyProcPid;
    pg::UnlockShared();
    if (was_crash)
        JudgeDeath(my_flight);
    my_flight->decoding.Clear();
    my_flight->writing.Clear();
    my_flight->records_writing = 0;
    my_flight->records_committed = 0;
    my_flight->has_ended = 0;
    on_proc_exit(EndFlight, static_cast<Datum>(0));
    pqsignal(SIGQUIT, Quit);
    previous_log_hook = emit_log_hook;
    emit_log_hook = WatchForPanic;
}

void
NoteWriting(uint32_t count)
{
    my_flight->records_writing = count;
}

void
NoteWritten()
{
    // It was worked on, whatever came of it, and did not kill.
    if (my_flight->writing.IsSame(my_flight->suspects[1].record))
        my_flight->suspects[1] = {};
    my_flight->writing.Clear();
    my_flight->records_writing = 0;
}

bool
IsCloseToQuarantine()
{
    return my_flight->suspects[1].deaths >= kDeathsUntilQuarantine - 1;
}

uint32_t
AllowedInFlight()
{
    return my_flight->alone_left > 0 ? 1 : UINT32_MAX;
}

void
NoteCommitted(uint32_t count)
{
    my_flight->records_committed += count;
    my_flight->alone_left -= Min(my_flight->alone_left, count);
}

void
NotePassed(const char *topic, int32_t partition, int64_t next_offset)
{
    for (Suspect &suspect : my_flight->suspects)
        if (suspect.record.IsSet() && suspect.record.partition == partition &&
            suspect.record.next_offset <= next_offset && suspect.record.topic_name() == topic)
            suspect = {};
}

} // namespace pulse::worker
