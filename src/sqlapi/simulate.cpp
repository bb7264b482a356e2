// CALL pulse.simulate(): drives one run of the simulator in the caller's backend. Between its steps
// interrupts are served; outside a transaction block progress is committed, so that others see it
// and no transaction is open for long. Regime: PG and doors.
#include "ingest/aside.hpp"
#include "pg/wait.hpp"
#include "sqlapi/kafka_client.hpp"
#include "sqlapi/simulation.hpp"
#include "store/simulations.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

namespace {

constexpr auto kNoteEvery = std::chrono::seconds(5);
constexpr int kTruthRows = 2000; // a statement
// As much as the queue's 32 MB hold: with less, a fast stream waits for every round trip.
constexpr int kQueueRecords = 100'000;

struct Shares {
    double late, duplicates, malformed, out_of_order, bots;
};

SimulationOptions
OptionsOf(const store::SimulationRow &run, const Shares &shares)
{
    SimulationOptions options;
    options.topic = run.topic;
    options.rate = run.rate;
    sim::Model &model = options.model;
    model.seed = static_cast<uint64_t>(run.seed);
    model.events = run.events;
    model.users = static_cast<uint32_t>(run.users);
    model.start_ms = run.start_ms;
    model.duration_ms = run.duration_ms;
    model.late = shares.late;
    model.out_of_order = shares.out_of_order;
    model.duplicates = shares.duplicates;
    model.malformed = shares.malformed;
    model.bots = shares.bots;
    return options;
}

// Commits what was written so far; inside a transaction block that is the caller's to do.
void
CommitUnless(bool is_atomic)
{
    if (!is_atomic)
        pg::CallPg([] { SPI_commit(); });
}

void
TellProgress(const store::SimulationRow &run, const Simulation::Progress &progress, bool is_atomic)
{
    pg::CallPg([&] {
        store::NoteSimulation(run.run_id, progress.records, false);
        ereport(NOTICE, (errmsg("%lld of %lld events sent", static_cast<long long>(progress.events),
                                static_cast<long long>(run.events))));
    });
    CommitUnless(is_atomic);
}

int64_t
Run(const store::SimulationRow &run, const Shares &shares, bool is_atomic)
{
    PrepareForKafka();
    kafka::Config config = SessionConfig();
    config.queue_records = kQueueRecords;
    auto created = Simulation::Create(config, OptionsOf(run, shares));
    if (!created.ok())
        Fail("08000", created.message());
    ingest::AsidePtr<Simulation> simulation(created.value().release());
    CommitUnless(is_atomic);
    auto noted_at = std::chrono::steady_clock::now();
    Simulation::Progress progress;
    while (!progress.is_done) {
        Result<Simulation::Progress> step = simulation->Step();
        if (!step.ok())
            Fail("08000", "a record could not be delivered: " + step.message(),
                 "pulse.test_connection() looks at brokers and topic.");
        progress = step.value();
        if (std::chrono::steady_clock::now() - noted_at >= kNoteEvery) {
            noted_at = std::chrono::steady_clock::now();
            TellProgress(run, progress, is_atomic);
        }
        if (progress.wait_ms > 0 && !progress.is_done)
            pg::Wait(simulation->wakeup_fd(), progress.wait_ms);
        else
            pg::CheckInterrupts();
        simulation->ClearWakeup();
    }
    for (Simulation::TruthRows rows; simulation->NextTruth(kTruthRows, &rows);) {
        pg::CallPg([&] { store::WriteTruth(run.run_id, rows.table, rows.json.c_str()); });
        pg::CheckInterrupts();
    }
    pg::CallPg([&] { store::NoteSimulation(run.run_id, progress.records, true); });
    CommitUnless(is_atomic);
    return progress.records;
}

} // namespace

} // namespace pulse::sqlapi

using namespace pulse;

// simulate(events, users, rate, duration, start_at, seed, late, duplicates, malformed,
// out_of_order, bots, topic, INOUT run_id, INOUT records)
PULSE_SQL_FUNCTION(pulse_simulate)
{
    constexpr int kFirstShare = 6;
    Datum arguments[store::kSimulateArguments];
    bool is_null[store::kSimulateArguments];
    for (int i = 0; i < store::kSimulateArguments; i++) {
        arguments[i] = PG_GETARG_DATUM(i);
        is_null[i] = PG_ARGISNULL(i);
    }
    TupleDesc descriptor = nullptr;
    if (get_call_result_type(fcinfo, nullptr, &descriptor) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    descriptor = BlessTupleDesc(descriptor);
    const bool is_atomic = fcinfo->context == nullptr || !IsA(fcinfo->context, CallContext) ||
                           castNode(CallContext, fcinfo->context)->atomic;

    store::SimulationRow run;
    if (SPI_connect_ext(is_atomic ? 0 : SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
        elog(ERROR, "SPI_connect failed");
    store::BeginSimulation(arguments, is_null, &run);
    auto share = [&](int i) { return DatumGetFloat8(arguments[kFirstShare + i]); };
    const sqlapi::Shares shares = {share(0), share(1), share(2), share(3), share(4)};
    const int64_t records = pg::CallCpp([&] { return sqlapi::Run(run, shares, is_atomic); });
    if (SPI_finish() != SPI_OK_FINISH)
        elog(ERROR, "SPI_finish failed");

    Datum values[2] = {Int64GetDatum(run.run_id), Int64GetDatum(records)};
    bool nulls[2] = {};
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(descriptor, values, nulls)));
}
