// The rows that pulse.simulate() leaves in schema sim. The rules are in sql/60_simulator.sql.
// Regime: PG, inside SPI and a transaction.
#pragma once

#include <cstdint>

#include "pg/prelude.hpp"

namespace pulse::store {

// A run as it will be: every argument filled in.
struct SimulationRow {
    int64_t run_id;
    int64_t events;
    int32_t users;
    double rate; // 0 = as fast as possible
    int64_t start_ms;
    int64_t duration_ms;
    int64_t seed;
    char topic[250];
};

constexpr int kSimulateArguments = 12;

// Checks the arguments of simulate(), in its order. Errors: 22023, 42501.
void BeginSimulation(const Datum *arguments, const bool *is_null, SimulationRow *row);
void NoteSimulation(int64_t run_id, int64_t records_sent, bool is_finished);
// JSON array of the rows of a table.
void WriteTruth(int64_t run_id, const char *table, const char *json);

} // namespace pulse::store
