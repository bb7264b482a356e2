#include "sqlapi/simulation.hpp"

#include <algorithm>

namespace pulse::sqlapi {

namespace {

constexpr auto kStep = std::chrono::milliseconds(20);
constexpr int kMaxWaitMs = 1000;
constexpr int kFullQueueWaitMs = 10;
constexpr int kRecordsPerLook = 256; // at the clock and the reports

void
AppendField(std::string_view name, std::string_view json_value, std::string *json)
{
    json->push_back(json->back() == '{' ? ' ' : ',');
    json->push_back('"');
    json->append(name);
    json->append("\":");
    json->append(json_value);
}

void
AppendField(std::string_view name, int64_t number, std::string *json)
{
    AppendField(name, std::string_view(std::to_string(number)), json);
}

// Text without anything to escape.
void
AppendText(std::string_view name, std::string_view text, std::string *json)
{
    AppendField(name, std::string_view("\"" + std::string(text) + "\""), json);
}

void
AppendPage(std::string_view name, sim::Page page, std::string *json)
{
    std::string url;
    sim::AppendPageUrl(page, &url);
    AppendText(name, url, json);
}

} // namespace

Result<std::unique_ptr<Simulation>>
Simulation::Create(const kafka::Config &config, SimulationOptions options)
{
    auto producer = kafka::Producer::Create(config);
    if (!producer.ok())
        return Status::Error(producer.message());
    return std::unique_ptr<Simulation>(
        new Simulation(std::move(options), std::move(producer.value())));
}

Simulation::Simulation(SimulationOptions options, std::unique_ptr<kafka::Producer> producer)
    : options_(std::move(options)), producer_(std::move(producer)), generator_(options_.model),
      truth_(options_.rules), began_at_(Clock::now())
{
}

Result<Simulation::Progress>
Simulation::Step()
{
    Progress progress;
    if (Status status = SendDue(&progress.wait_ms); !status.ok())
        return status;
    if (Status status = ReadReports(); !status.ok())
        return status;
    progress.records = truth_.records();
    progress.events = truth_.events();
    progress.is_done = is_exhausted_ && producer_->outstanding() == 0;
    return progress;
}

// Sends until nothing is due, the queue is full, or a step's time is over.
Status
Simulation::SendDue(int *wait_ms)
{
    const Clock::time_point until = Clock::now() + kStep;
    for (int sent = 0;; sent++) {
        if (sent % kRecordsPerLook == kRecordsPerLook - 1) {
            if (Status status = ReadReports(); !status.ok())
                return status;
            if (Clock::now() >= until)
                return Status::Ok();
        }
        if (!has_record_) {
            has_record_ = generator_.Next(&record_);
            is_exhausted_ = !has_record_;
        }
        if (is_exhausted_) {
            *wait_ms = kMaxWaitMs; // for delivery reports
            return Status::Ok();
        }
        if (const int64_t due_in_ms = DueInMs(record_.arrival_ms); due_in_ms > 0) {
            *wait_ms = static_cast<int>(std::min<int64_t>(due_in_ms, kMaxWaitMs));
            return Status::Ok();
        }
        const bool has_value = sim::Render(record_, &key_, &value_, &scratch_);
        kafka::OutgoingRecord outgoing;
        outgoing.topic = options_.topic;
        outgoing.key = key_;
        outgoing.value = has_value ? std::string_view(value_) : std::string_view();
        outgoing.timestamp_ms = record_.arrival_ms;
        std::string reason;
        switch (producer_->Produce(outgoing, &reason)) {
        case kafka::Producer::Outcome::kQueued:
            truth_.Add(record_);
            has_record_ = false;
            break;
        case kafka::Producer::Outcome::kQueueFull: // until reports are read
            if (Status status = ReadReports(); !status.ok())
                return status;
            if (reports_.empty())
                *wait_ms = kFullQueueWaitMs;
            if (reports_.empty() || Clock::now() >= until)
                return Status::Ok();
            break;
        case kafka::Producer::Outcome::kRefused:
        case kafka::Producer::Outcome::kFatal:
            return Status::Error(reason);
        }
    }
}

Status
Simulation::ReadReports()
{
    reports_.clear();
    producer_->Poll(0, &reports_);
    for (const kafka::DeliveryReport &report : reports_)
        if (!report.is_delivered)
            return Status::Error(report.error_text + " (" + report.error_name + ")");
    for (kafka::ClientEvent event; producer_->PopEvent(&event);)
        continue; // what stays wrong comes as a delivery report
    std::string fatal = producer_->FatalError();
    return fatal.empty() ? Status::Ok() : Status::Error(fatal);
}

// Stream time is stretched so that the events come at the rate asked for.
int64_t
Simulation::DueInMs(int64_t arrival_ms) const
{
    if (options_.rate <= 0)
        return 0;
    const sim::Model &model = options_.model;
    const double share =
        static_cast<double>(arrival_ms - model.start_ms) / static_cast<double>(model.duration_ms);
    const double due_ms = share * static_cast<double>(model.events) / options_.rate * 1000;
    const auto passed =
        std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began_at_).count();
    return static_cast<int64_t>(due_ms) - passed;
}

bool
Simulation::NextTruth(int max_rows, TruthRows *rows)
{
    if (!is_settled_) {
        truth_.Settle();
        is_settled_ = true;
    }
    rows->json = "[";
    auto separate = [&] {
        if (rows->json.size() > 1)
            rows->json.push_back(',');
    };
    if (next_session_ < truth_.sessions().size()) {
        rows->table = "sessions";
        const size_t end =
            std::min(truth_.sessions().size(), next_session_ + static_cast<size_t>(max_rows));
        for (; next_session_ < end; next_session_++) {
            separate();
            AppendSession(truth_.sessions()[next_session_], &rows->json);
        }
    } else if (next_table_ == 0) {
        next_table_ = 1;
        rows->table = "days";
        for (const auto &[number, day] : truth_.days()) {
            separate();
            AppendDay(number, day, &rows->json);
        }
    } else if (next_table_ == 1) {
        next_table_ = 2;
        rows->table = "funnel_daily";
        for (const auto &[number, day] : truth_.days()) {
            separate();
            AppendFunnel(number, day, &rows->json);
        }
    } else if (next_table_ == 2) {
        next_table_ = 3;
        rows->table = "rejects";
        for (int i = 0; i < sim::kSpoilers; i++) {
            if (truth_.rejects_by_spoiler()[i] == 0)
                continue;
            separate();
            rows->json.push_back('{');
            AppendText("error_code", sim::kSpoilerTable[i].error_code, &rows->json);
            AppendField("count", truth_.rejects_by_spoiler()[i], &rows->json);
            rows->json.push_back('}');
        }
    } else {
        return false;
    }
    rows->json.push_back(']');
    return true;
}

// Times as milliseconds and days as numbers since 1970; the SQL makes timestamps and dates of them.
void
Simulation::AppendSession(const sim::Session &session, std::string *json)
{
    json->push_back('{');
    std::string user;
    sim::AppendUserId(session.user, &user);
    AppendText("user_id", user, json);
    AppendField("started_ms", session.start_ms, json);
    AppendField("ended_ms", session.end_ms, json);
    AppendField("events", session.events, json);
    AppendField("page_views", session.page_views, json);
    AppendPage("landing_page", session.landing_page, json);
    AppendPage("exit_page", session.exit_page, json);
    if (std::string_view referrer = sim::ReferrerUrl(session.referrer); !referrer.empty())
        AppendText("referrer", referrer, json);
    AppendText("device", sim::DeviceName(session.device), json);
    AppendField("ordered_steps", session.ordered_steps, json);
    AppendField("is_bounce", session.is_bounce ? "true" : "false", json);
    AppendField("is_converted", session.is_converted ? "true" : "false", json);
    json->push_back('}');
}

void
Simulation::AppendDay(int32_t number, const sim::Day &day, std::string *json)
{
    json->push_back('{');
    AppendField("day", number, json);
    AppendField("events", day.events, json);
    AppendField("late_events", day.late_events, json);
    AppendField("sessions", day.sessions, json);
    AppendField("active_users", day.active_users, json);
    AppendField("active_users_7d", day.active_users_7d, json);
    AppendField("active_users_30d", day.active_users_30d, json);
    json->push_back('}');
}

void
Simulation::AppendFunnel(int32_t number, const sim::Day &day, std::string *json)
{
    for (int step = 0; step < sim::kEventTypes; step++) {
        json->append(step == 0 ? "{" : ",{");
        AppendField("day", number, json);
        AppendField("step", step, json);
        AppendText("event_type", sim::NameOf(static_cast<sim::EventType>(step)), json);
        AppendField("users", day.step_users[step], json);
        AppendField("ordered_users", day.ordered_step_users[step], json);
        json->push_back('}');
    }
}

} // namespace pulse::sqlapi
