// Fault points of test builds (base/fault.hpp). A spent action stays spent in its process until
// pulse.fault or pulse.fault_token changes, so that a retry can succeed. With pulse.fault_token set
// it fires once in all processes: whoever removes that file first.
#include "base/fault.hpp"

#ifdef PULSE_TESTING

#include <csignal>
#include <string>
#include <unistd.h>
#include <unordered_map>

#include "pg/guc.hpp"
#include "pg/prelude.hpp"

namespace pulse {

namespace {

struct Armed {
    std::string action;
    int passes_left;
};

// Heap-owned: no global constructor may run in the postmaster.
std::string *armed_from;
std::unordered_map<std::string, Armed> *armed;

void
Parse(const std::string &text)
{
    armed->clear();
    size_t begin = 0;
    while (begin < text.size()) {
        size_t end = std::min(text.find(',', begin), text.size());
        std::string item = text.substr(begin, end - begin);
        begin = end + 1;
        size_t colon = item.find(':');
        if (colon == std::string::npos)
            continue;
        size_t second = item.find(':', colon + 1);
        int passes = second == std::string::npos ? 1 : atoi(item.c_str() + second + 1);
        (*armed)[item.substr(0, colon)] = {
            item.substr(colon + 1, second == std::string::npos ? second : second - colon - 1),
            passes};
    }
}

} // namespace

void
HitFault(const char *point)
{
    if (armed == nullptr) {
        armed = new std::unordered_map<std::string, Armed>;
        armed_from = new std::string;
    }
    if (pg::guc_fault == nullptr)
        return;
    std::string setting = std::string(pg::guc_fault) + "\n" + pg::guc_fault_token;
    if (*armed_from != setting) {
        *armed_from = setting;
        Parse(pg::guc_fault);
    }
    auto entry = armed->find(point);
    if (entry == armed->end() || --entry->second.passes_left != 0)
        return;
    if (pg::guc_fault_token[0] != '\0' && unlink(pg::guc_fault_token) != 0)
        return;
    std::string action = entry->second.action;
    if (action == "kill")
        kill(getpid(), SIGKILL);
    if (action == "stop")
        kill(getpid(), SIGSTOP);
    bool is_fatal = action == "fatal";
    if (is_fatal || action == "error")
        pg::CallPg([&] {
            ereport(is_fatal ? FATAL : ERROR,
                    (errcode(ERRCODE_QUERY_CANCELED), errmsg("injected fault at %s", point)));
        });
}

} // namespace pulse

#endif
