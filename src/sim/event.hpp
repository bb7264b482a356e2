// One event of the simulated shop and its bytes. An Event is small and holds numbers only: what
// they stand for (pages, referrers, devices, campaigns) is in event.cpp. Regime: C++.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pulse::sim {

enum class EventType : uint8_t { kPageView, kProductView, kAddToCart, kCheckout, kPayment };
constexpr int kEventTypes = 5;

enum class PageKind : uint8_t { kHome, kCategory, kProduct, kSale, kCart, kCheckout, kThanks };

struct Page {
    PageKind kind = PageKind::kHome;
    uint32_t number = 0; // of the category or product; 0 for the others

    bool operator==(const Page &) const = default;
};

constexpr uint32_t kCategories = 8;
constexpr uint32_t kProducts = 2000;
constexpr uint8_t kReferrers = 7; // the last stands for none
constexpr uint8_t kDevices = 3;
constexpr uint8_t kCampaigns = 5; // the last stands for none

struct User {
    uint32_t number = 0;
    bool is_bot = false;

    auto operator<=>(const User &) const = default;
};

struct Event {
    int64_t event_ms = 0; // event_timestamp, milliseconds since 1970-01-01 UTC
    uint64_t id_high = 0; // event_id
    uint64_t id_low = 0;
    User user;
    Page page;
    EventType type = EventType::kPageView; // its number is funnel_step_index
    uint8_t referrer = 0;
    uint8_t device = 0;
    uint8_t campaign = 0;
    uint8_t quantity = 0; // 0: nothing in the cart
    uint32_t product = 0; // what the visitor is looking at; its category is product % kCategories
    uint32_t price_cents = 0;
};

std::string_view NameOf(EventType type);
std::string_view DeviceName(uint8_t device);
std::string_view ReferrerUrl(uint8_t referrer); // empty for none
void AppendUserId(User user, std::string *text);
void AppendPageUrl(Page page, std::string *text);

// The record's key (the user, so that one user's events share a partition) and value (a JSON object
// whose first fields are event_id, user_id and event_timestamp).
void AppendKey(const Event &event, std::string *text);
void AppendValue(const Event &event, std::string *text);

} // namespace pulse::sim
