// What librdkafka's callbacks have to say, kept until the owner of the client asks. Bounded: a
// storm of log lines can't take memory and can't push errors out; what is dropped is counted and
// told.
//
// With log.queue=true and the log queue forwarded, error_cb and log_cb run inside the owner's poll
// call, on its thread, so there is no lock here. Regime: C++; AddError and AddLog never throw, as
// they are called through C. This header does not include rdkafka.h.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

namespace pulse::kafka {

struct ClientEvent {
    bool is_log = false;
    int error_code = 0;
    std::string name; // error name, or a log line's facility
    std::string text;
    bool is_fatal = false;
    int severity = 6; // log lines: syslog's
};

class ClientEvents {
  public:
    static constexpr size_t kMaxErrors = 64;
    static constexpr size_t kMaxLogs = 256;

    void AddError(int code, const char *name, const char *text, bool is_fatal) noexcept;
    void AddLog(int severity, const char *facility, const char *text) noexcept;

    bool empty() const;
    // The oldest error, else the oldest log line, else a line about what was dropped; false if
    // none.
    bool Pop(ClientEvent *event);

  private:
    std::deque<ClientEvent> errors_;
    std::deque<ClientEvent> logs_;
    uint64_t dropped_errors_ = 0;
    uint64_t dropped_logs_ = 0;
};

} // namespace pulse::kafka
