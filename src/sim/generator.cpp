#include "sim/generator.hpp"

#include <algorithm>

namespace pulse::sim {

namespace {

constexpr int64_t kSecondMs = 1000;
constexpr int64_t kMinuteMs = 60 * kSecondMs;
constexpr int64_t kHourMs = 60 * kMinuteMs;
constexpr int64_t kNsPerMs = 1'000'000;

// How long the shop has been open when the stream begins; less when that were too much work.
constexpr int64_t kWarmUpMs = 30 * kMinuteMs;
constexpr int64_t kMaxWarmUpEvents = 1'000'000;

constexpr int64_t kNetworkMs = 40; // from the visitor to Kafka
constexpr int64_t kLateAfterMs = 5 * kMinuteMs;
constexpr int64_t kMeanLatenessMs = 10 * kMinuteMs;
constexpr int64_t kMaxLatenessMs = 6 * kHourMs;
constexpr int64_t kMaxDisorderMs = 60 * kSecondMs;
constexpr int64_t kMinRepeatMs = 100;
constexpr int64_t kMaxRepeatMs = 30 * kSecondMs;

constexpr uint32_t kBots = 20;
constexpr int64_t kMinCrawl = 50;
constexpr int64_t kMaxCrawl = 250; // pages

// Visitors at the full hours of a day (UTC), in between on straight lines.
constexpr int64_t kHourWeights[24] = {22, 14, 9,  6,  5,  7,  14, 28, 45,  60, 70, 76,
                                      80, 78, 74, 72, 74, 80, 90, 98, 100, 92, 68, 40};
constexpr int64_t kPeakWeight = 100;

// After an event: the chance of each next one, in thousandths; the rest leaves.
constexpr int64_t kGoesOn[kEventTypes][kEventTypes] = {
    {200, 450, 0, 0, 0},   // page_view
    {130, 300, 220, 0, 0}, // product_view
    {100, 250, 0, 400, 0}, // add_to_cart
    {50, 0, 0, 0, 650},    // checkout
    {150, 0, 0, 0, 0},     // payment
};
constexpr uint32_t kDeepLinks = 40; // of a thousand visits: the first event is a product_view

// Before an event: seconds of thinking, on average.
constexpr int64_t kThinkMs[kEventTypes] = {20'000, 15'000, 35'000, 25'000, 60'000};
constexpr int64_t kMaxThinkMs = 10 * kMinuteMs;
// Of a thousand pauses: one within the session, and one that a session does not survive.
constexpr uint32_t kCoffees = 10;
constexpr uint32_t kLunches = 3;

// Events of an average visit, in thousandths: the fixed point of e[i] = 1 + sum of p[i][j] e[j].
constexpr int64_t
MeanVisit()
{
    int64_t mean[kEventTypes] = {};
    for (int round = 0; round < 200; round++)
        for (int i = 0; i < kEventTypes; i++) {
            int64_t sum = 0;
            for (int j = 0; j < kEventTypes; j++)
                sum += kGoesOn[i][j] * mean[j];
            mean[i] = 1000 + sum / 1000;
        }
    return (mean[0] * (1000 - kDeepLinks) + mean[1] * kDeepLinks) / 1000;
}

constexpr int64_t kMeanVisit = MeanVisit();
constexpr int64_t kMeanCrawl = (kMinCrawl + kMaxCrawl) * 1000 / 2;

// Thousandths of kPeakWeight's unit.
int64_t
WeightAt(int64_t unix_ms)
{
    int64_t of_day = ((unix_ms % (24 * kHourMs)) + 24 * kHourMs) % (24 * kHourMs);
    int64_t hour = of_day / kHourMs;
    int64_t past = of_day % kHourMs;
    int64_t from = kHourWeights[hour];
    int64_t to = kHourWeights[(hour + 1) % 24];
    return from * 1000 + (to - from) * 1000 * past / kHourMs;
}

// Mean weight of the stream's time, so that it has the rate that was asked for at any hour.
int64_t
MeanWeight(int64_t start_ms, int64_t duration_ms)
{
    constexpr int64_t kSamples = 480;
    int64_t sum = 0;
    for (int64_t i = 0; i < kSamples; i++)
        sum += WeightAt(start_ms + static_cast<int64_t>(static_cast<__int128>(duration_ms) *
                                                        (2 * i + 1) / (2 * kSamples)));
    return sum / kSamples;
}

// The share of visits that are crawls so that `share` of the events are theirs.
Share
BotVisits(Share share)
{
    const auto one = static_cast<unsigned __int128>(1) << 32;
    unsigned __int128 bots = share.threshold * static_cast<unsigned __int128>(kMeanVisit);
    unsigned __int128 people = (one - share.threshold) * static_cast<unsigned __int128>(kMeanCrawl);
    return {static_cast<uint64_t>(bots * one / (bots + people))};
}

// Events per visit, crawls included, in thousandths.
int64_t
MeanVisitWith(Share bot_visits)
{
    return kMeanVisit + static_cast<int64_t>((static_cast<__int128>(kMeanCrawl - kMeanVisit) *
                                              static_cast<int64_t>(bot_visits.threshold)) >>
                                             32);
}

} // namespace

bool
Generator::IsLater::operator()(const Visit &left, const Visit &right) const
{
    return left.next_ms != right.next_ms ? left.next_ms > right.next_ms
                                         : left.sequence > right.sequence;
}

bool
Generator::IsLater::operator()(const Pending &left, const Pending &right) const
{
    return left.record.arrival_ms != right.record.arrival_ms
               ? left.record.arrival_ms > right.record.arrival_ms
               : left.sequence > right.sequence;
}

Generator::Generator(const Model &model)
    : model_(model), shop_(model.seed, 1), mishaps_(model.seed, 2), late_(Share::Of(model.late)),
      out_of_order_(Share::Of(model.out_of_order)), duplicates_(Share::Of(model.duplicates)),
      malformed_(Share::Of(model.malformed)), bot_visits_(BotVisits(Share::Of(model.bots))),
      events_left_(model.events)
{
    last_ms_[0].resize(model.users, INT64_MIN);
    last_ms_[1].resize(kBots, INT64_MIN);
    is_visiting_.resize(model.users, 0);
    const int64_t events = std::max<int64_t>(model.events, 1);
    visit_interval_ns_ = static_cast<int64_t>(
        static_cast<__int128>(model.duration_ms) * kNsPerMs * MeanVisitWith(bot_visits_) / 1000 *
        MeanWeight(model.start_ms, model.duration_ms) / (kPeakWeight * 1000) / events);
    const auto affordable =
        static_cast<int64_t>(static_cast<__int128>(model.duration_ms) * kMaxWarmUpEvents / events);
    next_visit_ns_ = -std::min(kWarmUpMs, affordable) * kNsPerMs;
    ScheduleVisit();
}

bool
Generator::Next(Record *record)
{
    while (events_left_ > 0) {
        const int64_t visit_ms = model_.start_ms + next_visit_ns_ / kNsPerMs;
        const bool is_new = visits_.empty() || visit_ms <= visits_.top().next_ms;
        const int64_t now_ms = is_new ? visit_ms : visits_.top().next_ms;
        if (!pending_.empty() && pending_.top().record.arrival_ms <= now_ms + kNetworkMs) {
            *record = pending_.top().record;
            pending_.pop();
            if (record->spoiler == nullptr && !record->is_duplicate)
                events_left_--;
            return true;
        }
        if (is_new) {
            StartVisit(now_ms);
            ScheduleVisit();
        } else {
            GoOn(now_ms);
        }
    }
    return false;
}

// A Poisson process of varying rate, by thinning one of the peak's rate (Lewis and Shedler, 1979).
void
Generator::ScheduleVisit()
{
    int64_t weight = 0;
    do {
        next_visit_ns_ += shop_.Exponential(visit_interval_ns_);
        weight = WeightAt(model_.start_ms + next_visit_ns_ / kNsPerMs);
    } while (shop_.Below(kPeakWeight * 1000) >= weight);
}

void
Generator::StartVisit(int64_t now_ms)
{
    Visit visit = {};
    visit.next_ms = now_ms;
    visit.sequence = sequence_++;
    visit.product = shop_.Below(kProducts);
    if (shop_.Chance(bot_visits_)) {
        visit.user = {shop_.Below(kBots), true};
        visit.device = 1;
        visit.referrer = kReferrers - 1;
        visit.campaign = kCampaigns - 1;
        visit.pages_left = static_cast<uint16_t>(shop_.Between(kMinCrawl, kMaxCrawl));
        visits_.push(visit);
        return;
    }
    visit.user = ChooseUser();
    // Everybody has a device, and sometimes uses another.
    const uint32_t habit =
        shop_.Below(20) == 0 ? shop_.Below(10) : (visit.user.number * 2654435761U >> 8) % 10;
    visit.device = habit < 6 ? 0 : habit < 9 ? 1 : 2;
    visit.referrer = static_cast<uint8_t>(shop_.Below(kReferrers));
    const uint32_t campaign = shop_.Below(4 * (kCampaigns - 1));
    visit.campaign = static_cast<uint8_t>(std::min<uint32_t>(campaign, kCampaigns - 1));
    visit.type = shop_.Below(1000) < kDeepLinks ? EventType::kProductView : EventType::kPageView;
    visits_.push(visit);
}

// Some come often: the product of two uniform numbers prefers the low ones. Rather somebody who
// isn't in the shop; with too few users, somebody with a second window.
User
Generator::ChooseUser()
{
    uint32_t number = 0;
    for (int attempt = 0; attempt < 8; attempt++) {
        const uint64_t product =
            static_cast<uint64_t>(shop_.Below(1U << 16)) * shop_.Below(1U << 16);
        number = static_cast<uint32_t>((product * model_.users) >> 32);
        if (is_visiting_[number] == 0)
            break;
    }
    is_visiting_[number] = 1;
    return {number, false};
}

void
Generator::GoOn(int64_t now_ms)
{
    Visit visit = visits_.top();
    visits_.pop();
    Send(MakeEvent(visit, now_ms));
    if (ChooseNext(&visit))
        visits_.push(visit);
    else if (!visit.user.is_bot)
        is_visiting_[visit.user.number] = 0;
}

// The visit's next event and when; false when it is over.
bool
Generator::ChooseNext(Visit *visit)
{
    if (visit->user.is_bot) {
        visit->next_ms += shop_.Between(kSecondMs, 3 * kSecondMs);
        visit->product = shop_.Below(kProducts);
        return --visit->pages_left > 0;
    }
    int64_t left = shop_.Below(1000);
    int next = 0;
    for (const int64_t *chances = kGoesOn[static_cast<int>(visit->type)]; next < kEventTypes;
         next++) {
        left -= chances[next];
        if (left < 0)
            break;
    }
    if (next == kEventTypes)
        return false;
    visit->type = static_cast<EventType>(next);
    if (visit->type == EventType::kProductView && shop_.Below(3) > 0)
        visit->product = shop_.Below(kProducts);
    if (visit->type == EventType::kAddToCart)
        visit->quantity = static_cast<uint8_t>(1 + shop_.Below(3));
    const uint32_t pause = shop_.Below(1000);
    if (pause < kLunches)
        visit->next_ms += shop_.Between(31 * kMinuteMs, 45 * kMinuteMs);
    else if (pause < kLunches + kCoffees)
        visit->next_ms += shop_.Between(10 * kMinuteMs, 29 * kMinuteMs);
    else
        visit->next_ms +=
            kSecondMs + std::min(kMaxThinkMs, shop_.Exponential(kThinkMs[next] - kSecondMs));
    return true;
}

// No two events of a user happen in the same millisecond: their order is never a matter of taste.
Event
Generator::MakeEvent(const Visit &visit, int64_t now_ms)
{
    int64_t &last_ms = last_ms_[visit.user.is_bot ? 1 : 0][visit.user.number];
    last_ms = std::max(now_ms, last_ms + (last_ms == INT64_MIN ? 0 : 1));
    Event event;
    event.event_ms = last_ms;
    event.id_high = shop_.Next();
    event.id_low = shop_.Next();
    event.user = visit.user;
    event.page = ChoosePage(visit);
    event.type = visit.type;
    event.referrer = visit.referrer;
    event.device = visit.device;
    event.campaign = visit.campaign;
    event.quantity = visit.quantity;
    event.product = visit.product;
    event.price_cents = 499 + visit.product * 7 % 9500;
    return event;
}

Page
Generator::ChoosePage(const Visit &visit)
{
    switch (visit.type) {
    case EventType::kPageView: {
        const uint32_t choice = shop_.Below(100);
        if (visit.user.is_bot || choice < 25)
            return {PageKind::kProduct, visit.product};
        if (choice < 65)
            return {PageKind::kCategory, visit.product % kCategories};
        return {choice < 75 ? PageKind::kSale : PageKind::kHome, 0};
    }
    case EventType::kProductView:
        return {PageKind::kProduct, visit.product};
    case EventType::kAddToCart:
        return {PageKind::kCart, 0};
    case EventType::kCheckout:
        return {PageKind::kCheckout, 0};
    case EventType::kPayment:
        break;
    }
    return {PageKind::kThanks, 0};
}

// What happens to an event on its way, and beside it.
void
Generator::Send(const Event &event)
{
    int64_t delay_ms = kNetworkMs;
    if (mishaps_.Chance(late_))
        delay_ms += kLateAfterMs + kSecondMs +
                    std::min(kMaxLatenessMs, mishaps_.Exponential(kMeanLatenessMs));
    else if (mishaps_.Chance(out_of_order_))
        delay_ms += mishaps_.Between(kSecondMs, kMaxDisorderMs);
    const int64_t arrival_ms = event.event_ms + delay_ms;
    if (arrival_ms < model_.start_ms)
        return; // before the window
    Enqueue(arrival_ms, event, false, nullptr);
    if (mishaps_.Chance(duplicates_))
        Enqueue(arrival_ms + mishaps_.Between(kMinRepeatMs, kMaxRepeatMs), event, true, nullptr);
    if (mishaps_.Chance(malformed_))
        Enqueue(arrival_ms, event, false, &kSpoilerTable[next_spoiler_++ % kSpoilers]);
}

void
Generator::Enqueue(int64_t arrival_ms, const Event &event, bool is_duplicate,
                   const Spoiler *spoiler)
{
    pending_.push({sequence_++, {arrival_ms, event, is_duplicate, spoiler}});
}

bool
Render(const Record &record, std::string *key, std::string *value, std::string *scratch)
{
    key->clear();
    value->clear();
    AppendKey(record.event, key);
    if (record.spoiler == nullptr) {
        AppendValue(record.event, value);
        return true;
    }
    scratch->clear();
    AppendValue(record.event, scratch);
    record.spoiler->spoil(*scratch, value);
    return !record.spoiler->is_null;
}

} // namespace pulse::sim
