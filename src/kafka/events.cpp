// Bounded record of a client's errors and log lines; see events.hpp. Called by kafka::Consumer and
// kafka::Producer, whose C callbacks add and whose Poll() takes out. Regime: C++.
#include "kafka/events.hpp"

#include <utility>

namespace pulse::kafka {

namespace {

// Later ones are dropped rather than earlier ones: the first error is usually the cause.
bool
Append(std::deque<ClientEvent> *events, size_t limit, ClientEvent *event)
{
    if (events->size() >= limit)
        return false;
    events->push_back(std::move(*event));
    return true;
}

} // namespace

void
ClientEvents::AddError(int code, const char *name, const char *text, bool is_fatal) noexcept
{
    try {
        ClientEvent event;
        event.error_code = code;
        event.name = name != nullptr ? name : "";
        event.text = text != nullptr ? text : "";
        event.is_fatal = is_fatal;
        event.severity = is_fatal ? 2 : 3;
        // A fatal error ends the client and comes once: never the one to be dropped.
        if (!Append(&errors_, is_fatal ? 2 * kMaxErrors : kMaxErrors, &event))
            ++dropped_errors_;
    } catch (...) {
        ++dropped_errors_;
    }
}

void
ClientEvents::AddLog(int severity, const char *facility, const char *text) noexcept
{
    try {
        ClientEvent event;
        event.is_log = true;
        event.name = facility != nullptr ? facility : "";
        event.text = text != nullptr ? text : "";
        event.severity = severity;
        if (!Append(&logs_, kMaxLogs, &event))
            ++dropped_logs_;
    } catch (...) {
        ++dropped_logs_;
    }
}

bool
ClientEvents::empty() const
{
    return errors_.empty() && logs_.empty() && dropped_errors_ == 0 && dropped_logs_ == 0;
}

bool
ClientEvents::Pop(ClientEvent *event)
{
    for (std::deque<ClientEvent> *events : {&errors_, &logs_}) {
        if (!events->empty()) {
            *event = std::move(events->front());
            events->pop_front();
            return true;
        }
    }
    if (dropped_errors_ == 0 && dropped_logs_ == 0)
        return false;
    *event = ClientEvent();
    event->is_log = true;
    event->name = "DROPPED";
    event->severity = 4;
    event->text = std::to_string(dropped_errors_) + " errors and " + std::to_string(dropped_logs_) +
                  " log lines of the Kafka client were dropped: too many at once";
    dropped_errors_ = 0;
    dropped_logs_ = 0;
    return true;
}

} // namespace pulse::kafka
