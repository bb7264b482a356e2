// The sender: forwards dead letters to their topics, and what pulse.produce() left. One per server;
// the coordinator wants it when something waits, and it ends when it has had nothing to do for a
// minute. It holds no transaction while it waits, takes no lock that a batch would wait for longer
// than for the marks of a round, and never waits for the broker. Regime: C++ with doors; PostgreSQL
// calls pulse_sender_main.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "ingest/topic_pattern.hpp"
#include "pg/guc.hpp"
#include "pg/outbox_depth.hpp"
#include "pg/wait.hpp"
#include "pg/xact.hpp"
#include "store/letter_forwards.hpp"
#include "store/outbox.hpp"
#include "store/pipelines.hpp"
#include "worker/process.hpp"
#include "worker/send_flow.hpp"
#include "worker/send_links.hpp"
#include "worker/status.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

constexpr int64_t kSecondUs = 1000000;
constexpr int64_t kReadEveryUs = kSecondUs;        // the tables that say what is sent where
constexpr int64_t kReadSoonestUs = kSecondUs / 20; // however many news there are
constexpr int64_t kCloseAfterUs = 30 * kSecondUs;
constexpr int64_t kLeaveAfterUs = 60 * kSecondUs;
constexpr int64_t kIdleMs = kReadEveryUs / 1000;

// Does the pipeline read the topic? Its letters would come back as records, and as letters again.
bool
Reads(const char *topics, const std::string &topic)
{
    std::string_view rest = topics;
    while (!rest.empty()) {
        std::string one(rest.substr(0, rest.find('\n')));
        rest.remove_prefix(std::min(rest.size(), one.size() + 1));
        if (one == topic)
            return true;
        if (!one.starts_with("^"))
            continue;
        auto pattern = ingest::TopicPattern::Compile(one);
        if (pattern.ok() && pattern.value().Matches(topic))
            return true;
    }
    return false;
}

class Sender {
  public:
    void Run()
    {
        busy_at_us_ = WallClockUs();
        pg::CallPg([] { pg::ResetSends(); });
        while (my_slot->is_wanted) {
            bool has_error = false;
            try {
                Step();
            } catch (const pg::Error &error) {
                trouble_ = error.sqlstate + " " + error.message;
                has_error = true;
            }
            if (has_error) {
                SetState(State::kRetrying, trouble_, "", 0);
                pg::Wait(-1, static_cast<long>(backoff_.NextMs()));
            }
        }
        SetPhase(Phase::kExiting);
    }

  private:
    void Step()
    {
        const bool is_reloaded = pg::ReloadIfAsked();
        pg::CheckInterrupts();
        const int64_t now_us = WallClockUs();
        const int64_t news = pg::shared->outgoing_news;
        bool has_news = news != seen_news_ || is_reloaded;
        if (std::abs(now_us - read_at_us_) >= (has_news ? kReadSoonestUs : kReadEveryUs)) {
            read_at_us_ = now_us;
            if (!ReadFlows())
                return;
            CloseStaleLinks();
            seen_news_ = news;
        } else {
            has_news = false; // not yet: many may come at once
        }
        TakeReports();
        for (auto &[key, flow] : flows_)
            flow->Step(&links_, has_news);
        if (MayLeave())
            return;
        backoff_.Reset();
        my_slot->failure_count = 0;
        SetState(State::kRunning, "", "", 0);
        pg::CallPg([] {
            pgstat_report_stat(false);
            pgstat_report_activity(STATE_IDLE, nullptr);
        });
        SetPhase(Phase::kWaiting);
        pg::Wait(links_.fd(), WaitMs());
    }

    // ---- what is to be sent where ----

    // False when the extension is gone.
    bool ReadFlows()
    {
        std::map<FlowKey, bool> wanted; // -> may be sent
        bool exists = false;
        pg::InTransaction([&] {
            exists = pg::CallPg([] { return store::ExtensionExists(); });
            if (!exists)
                return;
            if (pg::CallPg([] { return store::HaveLetters(); }))
                ReadPipelines(&wanted);
            ReadOutbox(&wanted);
        });
        if (!exists) {
            my_slot->is_wanted = false;
            return false;
        }
        for (auto &[key, flow] : flows_)
            flow->SetWanted(wanted.contains(key));
        DropUnwanted(wanted);
        for (const auto &[key, may_be_sent] : wanted) {
            if (!flows_.contains(key) && IsEnding(key))
                continue; // its connection has changed: the new one begins where the old one ends
            auto &flow = flows_[key];
            if (flow == nullptr)
                flow = std::make_unique<SendFlow>(next_number_++, key);
            if (!may_be_sent)
                flow->Forbid("pipeline \"" + key.pipeline + "\" reads that topic itself",
                             "Its letters would come back as records: set another dlq_topic, or "
                             "topics that do not match it.");
        }
        return true;
    }

    void DropUnwanted(const std::map<FlowKey, bool> &wanted)
    {
        for (auto &[key, flow] : flows_)
            if (flow->IsOverdue())
                Close(flow->link(), ""); // or the brokers that are gone would hold it for ever
        std::erase_if(flows_, [&](const auto &entry) {
            if (wanted.contains(entry.first) || entry.second->IsInFlight())
                return false;
            entry.second->Leave();
            return true;
        });
    }

    bool IsEnding(const FlowKey &wanted) const
    {
        return std::any_of(flows_.begin(), flows_.end(), [&](const auto &entry) {
            const FlowKey &key = entry.first;
            return key.is_outbox == wanted.is_outbox && key.pipeline == wanted.pipeline &&
                   key.topic == wanted.topic;
        });
    }

    static void ReadPipelines(std::map<FlowKey, bool> *wanted)
    {
        store::ForwardingPipeline *pipelines = nullptr;
        int count = pg::CallPg([&] { return store::ReadForwardingPipelines(&pipelines); });
        for (int i = 0; i < count; i++) {
            const store::ForwardingPipeline &found = pipelines[i];
            FlowKey key{false,
                        found.name,
                        found.dlq_topic,
                        {found.brokers, "", found.kafka_options, found.secrets_file}};
            (*wanted)[key] = !Reads(found.topics, key.topic);
        }
    }

    static void ReadOutbox(std::map<FlowKey, bool> *wanted)
    {
        char **topics = nullptr;
        int count = pg::CallPg([&] { return store::ReadOutboxTopics(&topics); });
        ConnectionSettings connection = CurrentConnection();
        connection.group_id.clear();
        for (int i = 0; i < count; i++)
            (*wanted)[{true, "", topics[i], connection}] = true;
        pg::CallPg([&] { pg::LookAtOutbox(count > 0, pg::shared->outgoing_news); });
    }

    // ---- connections ----

    void TakeReports()
    {
        std::vector<SendLink *> dead;
        for (const auto &link : links_.all()) {
            reports_.clear();
            links_.Poll(link.get(), &reports_);
            for (const kafka::DeliveryReport &report : reports_)
                for (auto &[key, flow] : flows_)
                    if (flow->number() == SendFlow::FlowOf(report.id))
                        flow->TakeReport(link.get(), report);
            if (!link->producer->FatalError().empty())
                dead.push_back(link.get());
        }
        for (SendLink *link : dead)
            Close(link, link->producer->FatalError());
    }

    void Close(SendLink *link, const std::string &reason)
    {
        for (auto &[key, flow] : flows_)
            flow->LinkIsGone(link, reason);
        links_.Close(link);
    }

    void CloseStaleLinks()
    {
        std::vector<SendLink *> stale;
        const int64_t now_us = WallClockUs();
        for (const auto &link : links_.all()) {
            bool is_used = std::any_of(flows_.begin(), flows_.end(), [&](const auto &flow) {
                return flow.second->IsInFlightOn(link.get());
            });
            if ((!is_used && std::abs(now_us - link->used_at_us) > kCloseAfterUs) ||
                links_.HaveSecretsChanged(*link))
                stale.push_back(link.get());
        }
        for (SendLink *link : stale)
            Close(link, "");
    }

    // ---- when there is nothing to do ----

    long WaitMs() const
    {
        int64_t wait_ms = kIdleMs;
        if (pg::shared->outgoing_news != seen_news_)
            wait_ms = kReadSoonestUs / 1000;
        for (const auto &[key, flow] : flows_)
            wait_ms = std::min(wait_ms, flow->WaitMs());
        return static_cast<long>(wait_ms);
    }

    // Nothing to send for a minute: the process ends, until the coordinator wants it again.
    bool MayLeave()
    {
        const int64_t now_us = WallClockUs();
        bool is_quiet = std::all_of(flows_.begin(), flows_.end(),
                                    [](const auto &flow) { return flow.second->IsQuiet(); });
        if (!is_quiet || now_us < busy_at_us_)
            busy_at_us_ = now_us;
        if (now_us - busy_at_us_ < kLeaveAfterUs)
            return false;
        return pg::CallPg([this] {
            pg::LockShared();
            bool may_leave = pg::shared->outgoing_news == seen_news_;
            if (may_leave)
                my_slot->is_wanted = false;
            pg::UnlockShared();
            return may_leave;
        });
    }

    SendLinks links_;
    std::map<FlowKey, std::unique_ptr<SendFlow>> flows_;
    uint32_t next_number_ = 1;
    std::vector<kafka::DeliveryReport> reports_;
    int64_t seen_news_ = -1;
    int64_t read_at_us_ = 0;
    int64_t busy_at_us_ = 0;
    ingest::Backoff backoff_{200, 10000, static_cast<uint64_t>(MyProcPid)};
    std::string trouble_;
};

// For what it reads again and again: planned while the tables were small, a plan would read all of
// them once they are large. And who has locked a table or a row holds up one flow, not all.
void
SetUpSession()
{
    for (const char *name : {"enable_seqscan", "enable_bitmapscan"})
        SetConfigOption(name, "off", PGC_SUSET, PGC_S_OVERRIDE);
    SetConfigOption("lock_timeout", "200ms", PGC_SUSET, PGC_S_OVERRIDE);
}

} // namespace

} // namespace pulse::worker

extern "C" PGDLLEXPORT void
pulse_sender_main(Datum argument)
{
    using namespace pulse;
    pg::CallCpp([&] {
        if (!worker::StartProcess(DatumGetInt32(argument)))
            return;
        pg::CallPg([] { worker::SetUpSession(); });
        worker::LeaveWithoutCleanup();
        auto *running = new worker::Sender; // never destroyed: see pulse_worker_main
        running->Run();
    });
    proc_exit(0);
}
