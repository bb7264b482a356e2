// One run of the simulator: takes records from the generator when they are due, sends them, keeps
// the truth. Driven in small steps by pulse.simulate(), which waits and serves interrupts in
// between. Regime: C++, one thread; never waits for the broker.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "kafka/producer.hpp"
#include "sim/generator.hpp"
#include "sim/truth.hpp"

namespace pulse::sqlapi {

struct SimulationOptions {
    sim::Model model;
    sim::Rules rules;
    std::string topic;
    double rate = 0; // events a second of real time; 0 = as fast as possible
};

class Simulation {
  public:
    static Result<std::unique_ptr<Simulation>> Create(const kafka::Config &config,
                                                      SimulationOptions options);

    struct Progress {
        bool is_done = false; // every record was delivered
        int64_t records = 0;  // handed to librdkafka
        int64_t events = 0;   // of these, good and distinct
        int wait_ms = 0;      // nothing to do before that, or before wakeup_fd()
    };
    // Some milliseconds of work. An error is final: a record that could not be delivered.
    Result<Progress> Step();

    int wakeup_fd() const { return producer_->wakeup_fd(); }
    void ClearWakeup() { producer_->ClearWakeup(); }

    // After the last Step(): the truth as JSON arrays of at most max_rows objects, one table after
    // the other. False when there is no more.
    struct TruthRows {
        const char *table = nullptr; // in schema sim
        std::string json;
    };
    bool NextTruth(int max_rows, TruthRows *rows);

    const sim::Truth &truth() const { return truth_; }

  private:
    using Clock = std::chrono::steady_clock;

    Simulation(SimulationOptions options, std::unique_ptr<kafka::Producer> producer);
    Status SendDue(int *wait_ms);
    Status ReadReports();
    int64_t DueInMs(int64_t arrival_ms) const;
    void AppendSession(const sim::Session &session, std::string *json);
    void AppendDay(int32_t number, const sim::Day &day, std::string *json);
    void AppendFunnel(int32_t number, const sim::Day &day, std::string *json);

    const SimulationOptions options_;
    std::unique_ptr<kafka::Producer> producer_;
    sim::Generator generator_;
    sim::Truth truth_;
    Clock::time_point began_at_;
    sim::Record record_;
    bool has_record_ = false;
    bool is_exhausted_ = false;
    bool is_settled_ = false;
    size_t next_session_ = 0;
    int next_table_ = 0;
    std::string key_, value_, scratch_;
    std::vector<kafka::DeliveryReport> reports_;
};

} // namespace pulse::sqlapi
