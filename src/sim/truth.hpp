// The true answers about a stream, found from the records that were sent and independently of any
// SQL: sessions, the funnel, active users, late events, rejects. Add() every record, then Settle()
// once. Keeps 32 bytes per event. Regime: C++, pure.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "sim/event.hpp"
#include "sim/generator.hpp"

namespace pulse::sim {

// The rules, as the dbt project has them by default.
struct Rules {
    int64_t late_after_ms = 5 * 60 * 1000;        // late: arrived more than this after it happened
    int64_t session_gap_ms = 30 * 60 * 1000;      // a longer silence begins a new session
    int64_t max_session_ms = 24 * 60 * 60 * 1000; // a visit that never ends is cut into parts
};

struct Session {
    User user;
    int64_t start_ms = 0;
    int64_t end_ms = 0;
    int32_t events = 0;
    int32_t page_views = 0;
    Page landing_page;
    Page exit_page;
    uint8_t referrer = kReferrers - 1; // of the first event that has one
    uint8_t device = 0;
    uint8_t ordered_steps = 0; // steps of the funnel taken in order, whatever lies between them
    bool is_bounce = false;    // one page view and nothing else
    bool is_converted = false; // has a payment
};

// By day (UTC) of the events; sessions and ordered steps by the day on which the session began.
struct Day {
    int64_t events = 0;
    int64_t late_events = 0;
    int64_t sessions = 0;
    int64_t active_users = 0;     // DAU
    int64_t active_users_7d = 0;  // WAU: in the seven days that end with this one
    int64_t active_users_30d = 0; // MAU
    int64_t step_users[kEventTypes] = {};
    int64_t ordered_step_users[kEventTypes] = {};
};

class Truth {
  public:
    explicit Truth(const Rules &rules) : rules_(rules) {}

    void Add(const Record &record);
    void Settle();

    int64_t records() const { return records_; }
    int64_t events() const { return static_cast<int64_t>(visits_.size()); }
    int64_t duplicates() const { return duplicates_; }
    int64_t late_events() const { return late_events_; }
    int64_t rejects() const;
    const int64_t *rejects_by_spoiler() const { return rejects_; }

    // After Settle(): in order of user and start; by number of days since 1970-01-01, from the
    // first to the last day that has events.
    const std::vector<Session> &sessions() const { return sessions_; }
    const std::map<int32_t, Day> &days() const { return days_; }

  private:
    struct Seen {
        int64_t event_ms;
        User user;
        Page page;
        EventType type;
        uint8_t referrer;
        uint8_t device;
        bool is_late;
    };

    void SettleUser(const Seen *first, const Seen *last);
    void CountActive(const std::vector<int32_t> &active_days, int32_t width, int64_t Day::*counter);

    const Rules rules_;
    std::vector<Seen> visits_;
    std::vector<Session> sessions_;
    std::map<int32_t, Day> days_;
    int64_t rejects_[kSpoilers] = {};
    int64_t records_ = 0;
    int64_t duplicates_ = 0;
    int64_t late_events_ = 0;
};

} // namespace pulse::sim
