// What a worker was doing when it died. It costs a store per record: the record being decoded, the
// record being written and the size of the transaction are kept in a small mapped file below the
// data directory, which outlives a crash of the process and of the server. The next worker of that
// pipeline and index reads it, so that a record that kills its worker is found and set aside
// instead of being read for ever. Who was ended by others (SIGQUIT because another process crashed,
// termination, a PANIC for want of disk space) is not a suspect's fault. Regime: PG.
#pragma once

#include <cstdint>

#include "base/flight_mark.hpp"
#include "pg/shmem.hpp"

namespace pulse::worker {

// A record that was in flight when its worker died is set aside after so many deaths in a row.
// Two would do for a record that is decoded, which takes a microsecond; one that is written may
// take its time while somebody kills workers from outside.
constexpr int kDeathsUntilQuarantine = 3;

struct Suspect {
    FlightMark record;
    int32_t deaths; // in a row with this record in flight
};

// One worker's. All zeros = free.
struct Flight {
    int32_t is_used;
    int32_t has_ended; // by itself or by others: no crash
    int32_t pid;
    int32_t worker_index;
    char pipeline[pg::kNameBytes];

    FlightMark decoding;      // the reader thread's
    FlightMark writing;       // the backend's, where one record is known to be at work
    uint32_t records_writing; // of the transaction under way
    uint32_t alone_left;      // so many records are written one by one, to find the one that kills
    int32_t unclear_deaths;   // in a row, in a transaction of several records at none of them
    int64_t records_committed;
    Suspect suspects[2]; // of the last death: [0] was being decoded, [1] written
};

// This process's; one that is forgotten before StartFlight() and where there is no file.
extern Flight *my_flight;

// Takes over what the worker before left and judges how it ended. To be called once, before
// anything is read.
void StartFlight(const char *pipeline, int worker_index);

// The records [begin, end) are about to be written in one transaction; a single one is known.
void NoteWriting(uint32_t count);
void NoteWritten(); // or given up

// One more death while it is written would condemn a record: it must not be found waiting for a
// lock.
bool IsCloseToQuarantine();

// How many records the next transaction may hold: one while the culprit is looked for.
uint32_t AllowedInFlight();
void NoteCommitted(uint32_t count);
// A partition is committed up to next_offset: a suspect before it has been acquitted.
void NotePassed(const char *topic, int32_t partition, int64_t next_offset);

} // namespace pulse::worker
