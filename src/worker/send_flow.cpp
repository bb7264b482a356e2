#include "worker/send_flow.hpp"

#include <algorithm>
#include <utility>

#include "base/clock.hpp"
#include "base/error_class.hpp"
#include "base/excerpt.hpp"
#include "base/fault.hpp"
#include "ingest/delivery_fault.hpp"
#include "store/time.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

using pg::State;

namespace {

constexpr int64_t kSecondUs = 1000000;
constexpr int kRoundRows = 1000;
constexpr int64_t kRoundBytes = 4 * 1024 * 1024;
constexpr int kRoundGrowth = 4;
constexpr int64_t kFullQueueUs = kSecondUs / 2;
constexpr int64_t kLookEveryUs = 5 * kSecondUs;   // for what no news told of
constexpr int64_t kSettleEveryUs = kSecondUs;     // while a round lasts
constexpr int64_t kStuckAfterUs = 5 * kSecondUs;  // without a report
constexpr int64_t kSingleForUs = 300 * kSecondUs; // after a batch was refused
constexpr int64_t kLastRoundUs = 30 * kSecondUs;  // of a flow that nobody wants any more
constexpr size_t kMaxUnsettled = 10 * kRoundRows; // a replay may hold letters for long

std::unique_ptr<SendSource>
SourceOf(const FlowKey &key)
{
    return key.is_outbox ? OutboxFor(key.topic) : LettersOf(key.pipeline);
}

} // namespace

SendFlow::SendFlow(uint32_t number, const FlowKey &key)
    : number_(number), key_(key), source_(SourceOf(key)),
      topic_backoff_(1000, 60000, static_cast<uint64_t>(MyProcPid) + number),
      passing_backoff_(100, 10000, static_cast<uint64_t>(MyProcPid) + number)
{
}

void
SendFlow::SetWanted(bool is_wanted)
{
    if (is_wanted_ && !is_wanted)
        unwanted_since_us_ = MonotonicUs();
    is_wanted_ = is_wanted;
}

bool
SendFlow::IsOverdue() const
{
    return !is_wanted_ && IsInFlight() && MonotonicUs() - unwanted_since_us_ > kLastRoundUs;
}

void
SendFlow::Leave()
{
    Show(State::kIdle, {});
}

void
SendFlow::Step(SendLinks *links, bool has_news)
{
    bool has_error = false;
    try {
        Advance(links, has_news);
    } catch (const pg::Error &error) {
        error_ = error;
        has_error = true;
    }
    if (has_error)
        WaitAfter({error_.sqlstate + " " + Excerpt(error_.message), Excerpt(error_.hint)},
                  ClassOf(error_.sqlstate) == ErrorClass::kEnvironment ? &passing_backoff_
                                                                       : &topic_backoff_);
}

void
SendFlow::Advance(SendLinks *links, bool has_news)
{
    const int64_t now_us = MonotonicUs();
    if (now_us < retry_at_us_)
        return;
    if (!outcomes_.IsEmpty() &&
        ((has_outcome_ && !IsInFlight()) || now_us - settled_at_us_ >= kSettleEveryUs))
        Settle();
    if (IsInFlight()) {
        NoteStuckLink();
        return;
    }
    EndRound();
    if (!is_wanted_ || now_us < retry_at_us_ || (now_us < look_at_us_ && !has_news) ||
        outcomes_.size() >= kMaxUnsettled)
        return;
    SendRound(links);
}

void
SendFlow::Settle()
{
    const auto delivered = static_cast<int64_t>(outcomes_.delivered.size());
    const auto refused = static_cast<int64_t>(outcomes_.refused.size());
    PULSE_FAULT("before_mark");
    source_->Settle(&outcomes_);
    PULSE_FAULT("after_mark");
    settled_at_us_ = MonotonicUs();
    has_outcome_ = false;
    const int64_t marked = delivered - static_cast<int64_t>(outcomes_.delivered.size());
    const int64_t postponed = refused - static_cast<int64_t>(outcomes_.refused.size());
    pg::CallPg([&] {
        pg::LockShared();
        if (pg::SendSlot *slot =
                pg::FindSend(key_.is_outbox, key_.pipeline.c_str(), key_.topic.c_str(), true)) {
            slot->sent_count += marked;
            slot->refused_count += postponed;
            if (marked > 0)
                slot->last_sent_at = GetCurrentTimestamp();
        }
        pg::UnlockShared();
    });
}

// ---- a round ----

void
SendFlow::SendRound(SendLinks *links)
{
    const int64_t now_us = MonotonicUs();
    const auto sending =
        now_us < single_until_us_ ? kafka::Sending::kSingly : kafka::Sending::kOrdered;
    // Nobody connects to look whether there is something to send.
    if (!links->IsOpen(key_.connection, sending) && !HasWaiting()) {
        BeIdle();
        return;
    }
    auto link = links->Get(key_.connection, sending);
    if (!link.ok()) {
        WaitAfter({link.message(), ingest::DeliveryHint(link.message())}, &topic_backoff_);
        return;
    }
    link_ = link.value();
    ids_.clear();
    must_stop_ = false;
    ids_.reserve(kRoundRows);
    const store::TakeLimits limits = {round_rows_, kRoundBytes};
    reported_at_us_ = now_us;
    if (outcomes_.IsEmpty())
        settled_at_us_ = now_us;
    const int visited = source_->Take(
        outcomes_, limits,
        [](const store::OutgoingRow &row, void *flow) {
            return static_cast<SendFlow *>(flow)->Hand(row);
        },
        this);
    PULSE_FAULT("after_send");
    if (visited == 0 && outcomes_.IsEmpty()) {
        BeIdle();
        return;
    }
    link_->used_at_us = WallClockUs();
    // What is left when the round is full comes next; else news or the clock tell.
    look_at_us_ = visited > 0 ? 0 : now_us + kLookEveryUs;
    is_idle_ = false;
    if (visited > 0 && ids_.empty() && !has_outcome_ && !must_stop_) {
        look_at_us_ = now_us + kFullQueueUs;
        is_in_trouble_ = true;
        Publish(State::kRetrying, {"records for other topics, which the brokers do not take, fill "
                                   "the queue",
                                   "pulse.stat_sender says which."});
    }
    if (!is_in_trouble_)
        Publish(State::kRunning, {});
}

bool
SendFlow::HasWaiting()
{
    return source_->Take(
               outcomes_, {1, 0}, [](const store::OutgoingRow &, void *) { return false; },
               nullptr) > 0;
}

void
SendFlow::BeIdle()
{
    look_at_us_ = MonotonicUs() + kLookEveryUs;
    is_idle_ = true;
    is_in_trouble_ = false;
    link_ = nullptr;
    Publish(State::kIdle, {});
}

// Called from within PostgreSQL's frames: nothing may be thrown. False when the round is over.
bool
SendFlow::Hand(const store::OutgoingRow &row) noexcept
{
    try {
        std::string reason;
        kafka::OutgoingRecord record = RecordOf(row);
        switch (link_->producer->Produce(record, &reason)) {
        case kafka::Producer::Outcome::kQueued:
            ids_.push_back(row.id);
            open_count_++;
            return true;
        case kafka::Producer::Outcome::kRefused:
            TakeFailure(row.id, true, reason);
            return !must_stop_;
        case kafka::Producer::Outcome::kQueueFull:
        case kafka::Producer::Outcome::kFatal: // found by whoever polls the link
            return false;
        }
    } catch (...) { // no memory: the round ends here
    }
    return false;
}

kafka::OutgoingRecord
SendFlow::RecordOf(const store::OutgoingRow &row) const
{
    kafka::OutgoingRecord record;
    record.topic = key_.topic;
    record.key = row.key;
    record.value = row.value;
    record.timestamp_ms = row.timestamp_ms;
    record.id = (static_cast<uint64_t>(number_) << 32) | ids_.size();
    record.headers.reserve(static_cast<size_t>(row.header_count));
    for (int i = 0; i < row.header_count; i++)
        record.headers.push_back({row.headers[i].key, row.headers[i].value});
    return record;
}

void
SendFlow::TakeReport(SendLink *link, const kafka::DeliveryReport &report)
{
    const size_t index = report.id & UINT32_MAX;
    if (link != link_ || index >= ids_.size())
        return;
    open_count_--;
    reported_at_us_ = MonotonicUs();
    if (!report.is_delivered) {
        TakeFailure(ids_[index], link->sending == kafka::Sending::kSingly,
                    report.error_text + " (" + report.error_name + ")");
        return;
    }
    outcomes_.delivered.push_back({ids_[index], report.partition, report.offset});
    has_outcome_ = true;
    topic_backoff_.Reset();
    passing_backoff_.Reset();
    if (std::exchange(is_in_trouble_, false))
        Publish(State::kRunning, {});
}

// is_alone: it was in no batch with others, so the error is its own.
void
SendFlow::TakeFailure(int64_t id, bool is_alone, const std::string &error)
{
    switch (ingest::FaultOf(error)) {
    case ingest::DeliveryFault::kRecord:
        single_until_us_ = MonotonicUs() + kSingleForUs;
        if (!is_alone)
            break;
        outcomes_.refused.push_back({id, error});
        has_outcome_ = true;
        break;
    case ingest::DeliveryFault::kTopic:
        single_until_us_ = MonotonicUs() + kSingleForUs; // else it takes others' connection along
        topic_trouble_ = error;
        must_stop_ = true;
        break;
    case ingest::DeliveryFault::kPassing:
        passing_trouble_ = error;
        break;
    }
}

void
SendFlow::EndRound()
{
    // A round that gets stuck keeps its place in the producer's queue: a topic earns a large one.
    bool is_well = topic_trouble_.empty() && passing_trouble_.empty() && !is_in_trouble_;
    if (std::exchange(link_, nullptr) != nullptr)
        round_rows_ = is_well ? std::min(round_rows_ * kRoundGrowth, kRoundRows) : 1;
    if (!topic_trouble_.empty())
        WaitAfter({topic_trouble_, ingest::DeliveryHint(topic_trouble_)}, &topic_backoff_);
    else if (!passing_trouble_.empty())
        WaitAfter({passing_trouble_, ingest::DeliveryHint(passing_trouble_)}, &passing_backoff_);
    topic_trouble_.clear();
    passing_trouble_.clear();
}

// ---- trouble ----

void
SendFlow::LinkIsGone(const SendLink *link, const std::string &reason)
{
    if (link != link_)
        return;
    link_ = nullptr;
    open_count_ = 0;
    round_rows_ = 1;
    const bool is_refused_batch = reason.find("GAPLESS") != std::string::npos;
    if (is_refused_batch && reason.find(" " + key_.topic + " [") != std::string::npos)
        single_until_us_ = MonotonicUs() + kSingleForUs; // some record of it: which?
    else if (!is_refused_batch && !reason.empty() && topic_trouble_.empty())
        passing_trouble_ = reason;
}

void
SendFlow::Forbid(const std::string &reason, const std::string &hint)
{
    retry_at_us_ = MonotonicUs() + kLookEveryUs;
    is_idle_ = true; // no reason to stay
    Publish(State::kFailed, {reason, hint});
}

void
SendFlow::WaitAfter(const Trouble &trouble, ingest::Backoff *backoff)
{
    retry_at_us_ = MonotonicUs() + backoff->NextMs() * 1000;
    look_at_us_ = 0;
    is_idle_ = false;
    is_in_trouble_ = true;
    Publish(State::kRetrying, trouble);
}

// librdkafka tries for as long as it takes: what it says meanwhile is the reason.
void
SendFlow::NoteStuckLink()
{
    if (MonotonicUs() - reported_at_us_ < kStuckAfterUs)
        return;
    std::string reason = link_->trouble.empty() ? "the brokers do not answer" : link_->trouble;
    is_in_trouble_ = true;
    Publish(State::kRetrying, {reason, ingest::DeliveryHint(reason)});
}

bool
SendFlow::IsQuiet() const
{
    return is_idle_ && !IsInFlight() && outcomes_.IsEmpty();
}

int64_t
SendFlow::WaitMs() const
{
    if (IsInFlight() || !is_wanted_)
        return 500;
    int64_t due_us = look_at_us_;
    if (has_outcome_)
        due_us = 0;
    else if (outcomes_.size() >= kMaxUnsettled)
        due_us = settled_at_us_ + kSettleEveryUs;
    else if (!outcomes_.IsEmpty())
        due_us = std::min(due_us, settled_at_us_ + kSettleEveryUs);
    due_us = std::max(due_us, retry_at_us_);
    return std::clamp<int64_t>((due_us - MonotonicUs() + 999) / 1000, 0, 5000);
}

void
SendFlow::Publish(State state, const Trouble &trouble)
{
    if (is_wanted_) // else another one shows what becomes of its records
        Show(state, trouble);
}

void
SendFlow::Show(State state, const Trouble &trouble)
{
    pg::CallPg([&] {
        TimestampTz now = GetCurrentTimestamp();
        const char *who = key_.is_outbox ? "produced records" : key_.pipeline.c_str();
        pg::LockShared();
        pg::SendSlot *slot =
            pg::FindSend(key_.is_outbox, key_.pipeline.c_str(), key_.topic.c_str(), true);
        bool has_changed = slot != nullptr && slot->state != state;
        bool was_in_trouble = slot != nullptr && slot->state >= State::kRetrying;
        if (slot != nullptr) {
            if (has_changed)
                slot->state_since = now;
            slot->state = state;
            slot->in_flight = static_cast<int64_t>(open_count_);
            slot->next_retry_at = retry_at_us_ > MonotonicUs() && state == State::kRetrying
                                      ? now + (retry_at_us_ - MonotonicUs())
                                      : 0;
            pg::CopyText(slot->reason, pg::kReasonBytes, trouble.reason.c_str());
            pg::CopyText(slot->hint, pg::kReasonBytes, trouble.hint.c_str());
        }
        pg::UnlockShared();
        if (!has_changed || (state < State::kRetrying && !was_in_trouble))
            return;
        if (state >= State::kRetrying)
            ereport(LOG, (errmsg("pulse sender: %s to topic \"%s\": %s", who, key_.topic.c_str(),
                                 trouble.reason.c_str()),
                          trouble.hint.empty() ? 0 : errhint("%s", trouble.hint.c_str())));
        else
            ereport(LOG, (errmsg("pulse sender: %s to topic \"%s\": sent again", who,
                                 key_.topic.c_str())));
    });
}

} // namespace pulse::worker
