#include "store/simulations.hpp"

#include "pg/spi.hpp"

namespace pulse::store {

namespace {

pg::Statement begin_simulation = {
    "SELECT run_id, events, users, COALESCE(rate, 0),"
    " (EXTRACT(epoch FROM start_at) * 1000)::bigint,"
    " (EXTRACT(epoch FROM duration) * 1000)::bigint, seed, topic"
    " FROM pulse._begin_simulation($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    kSimulateArguments,
    {INT8OID, INT4OID, FLOAT8OID, INTERVALOID, TIMESTAMPTZOID, INT8OID, FLOAT8OID, FLOAT8OID,
     FLOAT8OID, FLOAT8OID, FLOAT8OID, TEXTOID},
    nullptr};

pg::Statement note_simulation = {
    "SELECT pulse._note_simulation($1, $2, $3)", 3, {INT8OID, INT8OID, BOOLOID}, nullptr};

pg::Statement write_truth = {"SELECT pulse._write_truth($1, $2, $3::pg_catalog.json)",
                             3,
                             {INT8OID, TEXTOID, TEXTOID},
                             nullptr};

} // namespace

void
BeginSimulation(const Datum *arguments, const bool *is_null, SimulationRow *row)
{
    char nulls[kSimulateArguments];
    for (int i = 0; i < kSimulateArguments; i++)
        nulls[i] = is_null[i] ? 'n' : ' ';
    (void)pg::Execute(&begin_simulation, arguments, nulls);
    bool is_null_column = false;
    row->run_id = pg::GetInt64(0, 1);
    row->events = pg::GetInt64(0, 2);
    row->users = pg::GetInt32(0, 3);
    row->rate = DatumGetFloat8(pg::GetDatum(0, 4, &is_null_column));
    row->start_ms = pg::GetInt64(0, 5);
    row->duration_ms = pg::GetInt64(0, 6);
    row->seed = pg::GetInt64(0, 7);
    strlcpy(row->topic, pg::GetText(0, 8), sizeof(row->topic));
}

void
NoteSimulation(int64_t run_id, int64_t records_sent, bool is_finished)
{
    Datum arguments[3] = {Int64GetDatum(run_id), Int64GetDatum(records_sent),
                          BoolGetDatum(is_finished)};
    (void)pg::Execute(&note_simulation, arguments);
}

void
WriteTruth(int64_t run_id, const char *table, const char *json)
{
    Datum arguments[3] = {Int64GetDatum(run_id), CStringGetTextDatum(table),
                          CStringGetTextDatum(json)};
    (void)pg::Execute(&write_truth, arguments);
}

} // namespace pulse::store
