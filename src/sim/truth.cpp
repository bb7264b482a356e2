#include "sim/truth.hpp"

#include <algorithm>
#include <numeric>

namespace pulse::sim {

namespace {

constexpr int64_t kDayMs = 24 * 60 * 60 * 1000;

int32_t
DayOf(int64_t unix_ms)
{
    return static_cast<int32_t>(unix_ms / kDayMs - (unix_ms % kDayMs < 0 ? 1 : 0));
}

} // namespace

void
Truth::Add(const Record &record)
{
    records_++;
    if (record.spoiler != nullptr) {
        rejects_[record.spoiler - kSpoilerTable]++;
        return;
    }
    if (record.is_duplicate) {
        duplicates_++;
        return;
    }
    const Event &event = record.event;
    const bool is_late = record.arrival_ms - event.event_ms > rules_.late_after_ms;
    late_events_ += is_late ? 1 : 0;
    visits_.push_back({event.event_ms, event.user, event.page, event.type, event.referrer,
                       event.device, is_late});
}

int64_t
Truth::rejects() const
{
    return std::accumulate(std::begin(rejects_), std::end(rejects_), int64_t{0});
}

void
Truth::Settle()
{
    std::sort(visits_.begin(), visits_.end(), [](const Seen &left, const Seen &right) {
        return left.user != right.user ? left.user < right.user : left.event_ms < right.event_ms;
    });
    if (!visits_.empty()) { // days without events have active users of the days before
        auto [first, last] = std::minmax_element(
            visits_.begin(), visits_.end(),
            [](const Seen &left, const Seen &right) { return left.event_ms < right.event_ms; });
        for (int32_t day = DayOf(first->event_ms); day <= DayOf(last->event_ms); day++)
            days_[day] = {};
    }
    const Seen *end = visits_.data() + visits_.size();
    for (const Seen *first = visits_.data(); first != end;) {
        const Seen *last = first;
        while (last != end && last->user == first->user)
            last++;
        SettleUser(first, last);
        first = last;
    }
}

// One user's events, [first, last), in order of time.
void
Truth::SettleUser(const Seen *first, const Seen *last)
{
    std::vector<int32_t> active_days;
    struct Steps {
        int taken = 0;   // on that day, as bits
        int ordered = 0; // the most that a session which began on that day took in order
    };
    std::map<int32_t, Steps> steps_by_day;
    int64_t visit_start_ms = 0;
    Session *session = nullptr;
    for (const Seen *seen = first; seen != last; seen++) {
        const int32_t day = DayOf(seen->event_ms);
        const bool is_new_visit =
            seen == first || seen->event_ms - seen[-1].event_ms > rules_.session_gap_ms;
        if (is_new_visit)
            visit_start_ms = seen->event_ms;
        const int64_t part = (seen->event_ms - visit_start_ms) / rules_.max_session_ms;
        if (is_new_visit || part != (seen[-1].event_ms - visit_start_ms) / rules_.max_session_ms) {
            session = &sessions_.emplace_back();
            session->user = seen->user;
            session->start_ms = seen->event_ms;
            session->landing_page = seen->page;
            session->device = seen->device;
            days_[day].sessions++;
        }
        session->end_ms = seen->event_ms;
        session->exit_page = seen->page;
        session->events++;
        session->page_views += seen->type == EventType::kPageView ? 1 : 0;
        session->is_converted |= seen->type == EventType::kPayment;
        session->is_bounce = session->events == 1 && session->page_views == 1;
        if (session->referrer == kReferrers - 1)
            session->referrer = seen->referrer;
        const auto step = static_cast<uint8_t>(seen->type);
        if (step == session->ordered_steps)
            session->ordered_steps++;
        steps_by_day[day].taken |= 1 << step;
        int &ordered = steps_by_day[DayOf(session->start_ms)].ordered;
        ordered = std::max(ordered, static_cast<int>(session->ordered_steps));

        if (active_days.empty() || active_days.back() != day)
            active_days.push_back(day);
        days_[day].events++;
        days_[day].late_events += seen->is_late ? 1 : 0;
    }
    for (const auto &[day, steps] : steps_by_day)
        for (int step = 0; step < kEventTypes; step++) {
            days_[day].step_users[step] += (steps.taken >> step) & 1;
            days_[day].ordered_step_users[step] += steps.ordered > step ? 1 : 0;
        }
    CountActive(active_days, 1, &Day::active_users);
    CountActive(active_days, 7, &Day::active_users_7d);
    CountActive(active_days, 30, &Day::active_users_30d);
}

// An active day counts for itself and the width - 1 days after it, each day once.
void
Truth::CountActive(const std::vector<int32_t> &active_days, int32_t width, int64_t Day::*counter)
{
    const int32_t last_day = days_.rbegin()->first;
    int32_t next = INT32_MIN;
    for (int32_t active : active_days) {
        next = std::max(next, active);
        for (; next < active + width && next <= last_day; next++)
            days_[next].*counter += 1;
    }
}

} // namespace pulse::sim
