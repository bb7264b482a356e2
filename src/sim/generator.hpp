// The simulated shop as a stream of records in the order in which they arrive at Kafka. Visitors
// come along a daily curve, walk the funnel page_view -> product_view -> add_to_cart -> checkout ->
// payment with think times, leave, and come back; bots crawl. Some events arrive late or out of
// order, some twice, and malformed records come in between. The same Model gives the same records,
// byte for byte, on every machine.
//
// The stream is a window on arrival times: the shop has been open for a while when it begins, so
// visits are under way, late events are already coming in, and the rate is even from the start.
// Regime: C++, pure; one thread.
#pragma once

#include <cstdint>
#include <queue>
#include <string>
#include <vector>

#include "sim/event.hpp"
#include "sim/random.hpp"
#include "sim/spoiler.hpp"

namespace pulse::sim {

constexpr uint32_t kMaxUsers = 10'000'000;

struct Model {
    uint64_t seed = 1;
    int64_t events = 0;      // good and distinct; duplicates and malformed records come on top
    uint32_t users = 10'000; // to choose visitors from
    int64_t start_ms = 0;    // when the first record arrives
    int64_t duration_ms = 0; // of arrivals, on average
    // Shares of events, 0 to 1.
    double late = 0;         // arriving more than 5 minutes after they happened
    double out_of_order = 0; // arriving up to a minute after they happened
    double duplicates = 0;   // sent once more within half a minute
    double malformed = 0;    // records that are no events, all codes of spoiler.hpp alike
    double bots = 0;         // events of crawlers
};

struct Record {
    int64_t arrival_ms = 0; // the Kafka record's timestamp
    Event event;
    bool is_duplicate = false;
    const Spoiler *spoiler = nullptr; // the record is malformed
};

class Generator {
  public:
    explicit Generator(const Model &model);
    Generator(const Generator &) = delete;
    Generator &operator=(const Generator &) = delete;

    // False when all events are out.
    bool Next(Record *record);

  private:
    struct Visit {
        int64_t next_ms;
        uint64_t sequence; // order among equals
        User user;
        EventType type; // of the next event
        uint8_t device, referrer, campaign, quantity;
        uint16_t pages_left; // of a crawl
        uint32_t product;
    };
    struct Pending {
        uint64_t sequence;
        Record record;
    };
    struct IsLater {
        bool operator()(const Visit &left, const Visit &right) const;
        bool operator()(const Pending &left, const Pending &right) const;
    };

    void ScheduleVisit();
    void StartVisit(int64_t now_ms);
    User ChooseUser();
    void GoOn(int64_t now_ms);
    bool ChooseNext(Visit *visit);
    Event MakeEvent(const Visit &visit, int64_t now_ms);
    Page ChoosePage(const Visit &visit);
    void Send(const Event &event);
    void Enqueue(int64_t arrival_ms, const Event &event, bool is_duplicate, const Spoiler *spoiler);

    const Model model_;
    // What goes wrong has numbers of its own: the visits stay the same whatever shares are set.
    Random shop_;
    Random mishaps_;
    Share late_, out_of_order_, duplicates_, malformed_, bot_visits_;
    int64_t visit_interval_ns_ = 0; // at the curve's peak
    int64_t next_visit_ns_ = 0;     // since start_ms
    int64_t events_left_ = 0;
    uint64_t sequence_ = 0;
    uint32_t next_spoiler_ = 0;
    std::vector<int64_t> last_ms_[2]; // of each user's and each bot's newest event
    std::vector<uint8_t> is_visiting_;
    std::priority_queue<Visit, std::vector<Visit>, IsLater> visits_;
    std::priority_queue<Pending, std::vector<Pending>, IsLater> pending_;
};

// The bytes of a record; false for a null value. Texts are overwritten, scratch is workspace.
bool Render(const Record &record, std::string *key, std::string *value, std::string *scratch);

} // namespace pulse::sim
