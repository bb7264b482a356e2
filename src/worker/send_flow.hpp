// One stream of records from a table to a topic: the dead letters of a pipeline, or what
// pulse.produce() left for a topic. It goes in rounds: read what waits, hand it to librdkafka, take
// the delivery reports, note them in the table. Only one round is under way, so a record that waits
// is never sent beside itself, and after a restart at most one round is sent twice. Regime: C++
// with doors.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ingest/backoff.hpp"
#include "pg/boundary.hpp"
#include "pg/shmem.hpp"
#include "worker/config.hpp"
#include "worker/send_links.hpp"
#include "worker/send_source.hpp"

namespace pulse::worker {

struct FlowKey {
    bool is_outbox = false;
    std::string pipeline; // of dead letters
    std::string topic;    // they go to
    ConnectionSettings connection;

    auto operator<=>(const FlowKey &) const = default;
};

class SendFlow {
  public:
    SendFlow(uint32_t number, const FlowKey &key);

    // Whatever can be done without waiting. has_news: something was committed since.
    void Step(SendLinks *links, bool has_news);

    void TakeReport(SendLink *link, const kafka::DeliveryReport &report);
    // Its producer is closed, or dead for that reason: what was not reported is sent again.
    void LinkIsGone(const SendLink *link, const std::string &reason);
    // Unwanted: what is in flight is its last, and nothing is shown of it any more.
    void SetWanted(bool is_wanted);
    // Unwanted, and its last round takes longer than anyone should wait for.
    bool IsOverdue() const;
    // It goes: nothing is shown of it as being under way.
    void Leave();
    // Nothing is sent as long as the reason holds.
    void Forbid(const std::string &reason, const std::string &hint);

    bool IsInFlight() const { return open_count_ > 0; }
    bool IsInFlightOn(const SendLink *link) const { return IsInFlight() && link == link_; }
    uint32_t number() const { return number_; }
    SendLink *link() const { return link_; }
    // Nothing waits, as far as is known, and nothing is left to note.
    bool IsQuiet() const;
    // How long Step() has nothing to do, unless a report or news come.
    int64_t WaitMs() const;

    static uint32_t FlowOf(uint64_t record_id) { return static_cast<uint32_t>(record_id >> 32); }

  private:
    struct Trouble {
        std::string reason;
        std::string hint;
    };

    void Advance(SendLinks *links, bool has_news);
    void Settle();
    void SendRound(SendLinks *links);
    bool HasWaiting();
    void BeIdle();
    bool Hand(const store::OutgoingRow &row) noexcept;
    kafka::OutgoingRecord RecordOf(const store::OutgoingRow &row) const;
    void EndRound();
    void TakeFailure(int64_t id, bool is_alone, const std::string &error);
    void WaitAfter(const Trouble &trouble, ingest::Backoff *backoff);
    void NoteStuckLink();
    void Publish(pg::State state, const Trouble &trouble);
    void Show(pg::State state, const Trouble &trouble);

    const uint32_t number_;
    const FlowKey key_;
    const std::unique_ptr<SendSource> source_;

    SendLink *link_ = nullptr;    // of the round under way
    std::vector<int64_t> ids_;    // handed over in this round, by index
    size_t open_count_ = 0;       // of those, not reported
    bool must_stop_ = false;      // the round takes no more
    int round_rows_ = 1;          // grows while all goes well
    int64_t single_until_us_ = 0; // records travel alone until then
    SendOutcomes outcomes_;       // not noted in the table
    bool has_outcome_ = false;    // one that Settle() has not seen
    std::string topic_trouble_;   // of this round
    std::string passing_trouble_;

    int64_t look_at_us_ = 0;  // when to look for records without news
    int64_t retry_at_us_ = 0; // nothing before that
    int64_t settled_at_us_ = 0;
    int64_t reported_at_us_ = 0;
    ingest::Backoff topic_backoff_;
    ingest::Backoff passing_backoff_;
    bool is_wanted_ = true;
    int64_t unwanted_since_us_ = 0;
    bool is_idle_ = true; // nothing waited at the last look
    bool is_in_trouble_ = false;
    pg::Error error_;
};

} // namespace pulse::worker
