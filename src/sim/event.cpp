#include "sim/event.hpp"

#include <charconv>
#include <chrono>

namespace pulse::sim {

namespace {

constexpr std::string_view kTypeNames[kEventTypes] = {"page_view", "product_view", "add_to_cart",
                                                      "checkout", "payment"};
constexpr std::string_view kDeviceNames[kDevices] = {"mobile", "desktop", "tablet"};
constexpr std::string_view kReferrerUrls[kReferrers] = {"https://www.google.com/",
                                                        "https://www.bing.com/search",
                                                        "https://news.example.org/reviews",
                                                        "https://social.example.net/feed",
                                                        "https://mail.example.net/newsletter",
                                                        "https://partner.example.com/offers",
                                                        ""};
constexpr std::string_view kCampaignNames[kCampaigns] = {"spring_sale", "newsletter", "retargeting",
                                                         "influencer", ""};
constexpr std::string_view kCategoryNames[kCategories] = {"shoes", "jackets", "bags",   "watches",
                                                          "books", "games",   "garden", "kitchen"};
constexpr std::string_view kShop = "https://shop.example.com";

void
AppendDigits(uint64_t number, int width, std::string *text)
{
    char digits[20];
    for (int i = width - 1; i >= 0; i--) {
        digits[i] = static_cast<char>('0' + number % 10);
        number /= 10;
    }
    text->append(digits, static_cast<size_t>(width));
}

void
AppendNumber(uint64_t number, std::string *text)
{
    char digits[20];
    auto [end, error] = std::to_chars(digits, digits + sizeof(digits), number);
    text->append(digits, end);
}

void
AppendHex(uint64_t number, int digits, std::string *text)
{
    for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4)
        text->push_back("0123456789abcdef"[(number >> shift) & 15]);
}

void
AppendUuid(uint64_t high, uint64_t low, std::string *text)
{
    AppendHex(high >> 32, 8, text);
    text->push_back('-');
    AppendHex(high >> 16, 4, text);
    text->push_back('-');
    AppendHex(high, 4, text);
    text->push_back('-');
    AppendHex(low >> 48, 4, text);
    text->push_back('-');
    AppendHex(low, 12, text);
}

// RFC 3339, milliseconds, UTC.
void
AppendTimestamp(int64_t unix_ms, std::string *text)
{
    using namespace std::chrono;
    const sys_time<milliseconds> instant{milliseconds(unix_ms)};
    const auto day = floor<days>(instant);
    const year_month_day date(day);
    const hh_mm_ss time(instant - day);
    AppendDigits(static_cast<uint64_t>(static_cast<int>(date.year())), 4, text);
    text->push_back('-');
    AppendDigits(static_cast<unsigned>(date.month()), 2, text);
    text->push_back('-');
    AppendDigits(static_cast<unsigned>(date.day()), 2, text);
    text->push_back('T');
    AppendDigits(static_cast<uint64_t>(time.hours().count()), 2, text);
    text->push_back(':');
    AppendDigits(static_cast<uint64_t>(time.minutes().count()), 2, text);
    text->push_back(':');
    AppendDigits(static_cast<uint64_t>(time.seconds().count()), 2, text);
    text->push_back('.');
    AppendDigits(static_cast<uint64_t>(time.subseconds().count()), 3, text);
    text->push_back('Z');
}

void
AppendProperties(const Event &event, std::string *text)
{
    text->append("\"properties\":{\"category\":\"");
    text->append(kCategoryNames[event.product % kCategories]);
    text->push_back('"');
    if (std::string_view campaign = kCampaignNames[event.campaign]; !campaign.empty()) {
        text->append(",\"campaign\":\"");
        text->append(campaign);
        text->push_back('"');
    }
    if (event.quantity > 0) {
        text->append(",\"quantity\":");
        AppendNumber(event.quantity, text);
        text->append(",\"price\":");
        AppendNumber(event.price_cents / 100, text);
        text->push_back('.');
        AppendDigits(event.price_cents % 100, 2, text);
        text->append(",\"currency\":\"EUR\"");
    }
    text->append(event.user.is_bot ? ",\"user_agent\":\"examplebot/1.0\"}" : "}");
}

} // namespace

std::string_view
NameOf(EventType type)
{
    return kTypeNames[static_cast<int>(type)];
}

std::string_view
DeviceName(uint8_t device)
{
    return kDeviceNames[device];
}

std::string_view
ReferrerUrl(uint8_t referrer)
{
    return kReferrerUrls[referrer];
}

void
AppendUserId(User user, std::string *text)
{
    text->append(user.is_bot ? "bot-" : "user-");
    AppendDigits(user.number, 6, text);
}

void
AppendPageUrl(Page page, std::string *text)
{
    text->append(kShop);
    switch (page.kind) {
    case PageKind::kHome:
        text->push_back('/');
        return;
    case PageKind::kCategory:
        text->push_back('/');
        text->append(kCategoryNames[page.number % kCategories]);
        return;
    case PageKind::kProduct:
        text->push_back('/');
        text->append(kCategoryNames[page.number % kCategories]);
        text->push_back('/');
        AppendDigits(page.number, 4, text);
        return;
    case PageKind::kSale:
        text->append("/sale");
        return;
    case PageKind::kCart:
        text->append("/cart");
        return;
    case PageKind::kCheckout:
        text->append("/checkout");
        return;
    case PageKind::kThanks:
        text->append("/thanks");
        return;
    }
}

void
AppendKey(const Event &event, std::string *text)
{
    AppendUserId(event.user, text);
}

void
AppendValue(const Event &event, std::string *text)
{
    text->append("{\"event_id\":\"");
    AppendUuid(event.id_high, event.id_low, text);
    text->append("\",\"user_id\":\"");
    AppendUserId(event.user, text);
    text->append("\",\"event_timestamp\":\"");
    AppendTimestamp(event.event_ms, text);
    text->append("\",\"event_type\":\"");
    text->append(NameOf(event.type));
    text->append("\",\"funnel_step_index\":");
    text->push_back(static_cast<char>('0' + static_cast<int>(event.type)));
    text->append(",\"page_url\":\"");
    AppendPageUrl(event.page, text);
    text->append("\",");
    if (std::string_view referrer = ReferrerUrl(event.referrer); !referrer.empty()) {
        text->append("\"referrer\":\"");
        text->append(referrer);
        text->append("\",");
    }
    text->append("\"device\":\"");
    text->append(DeviceName(event.device));
    text->append("\",");
    AppendProperties(event, text);
    text->push_back('}');
}

} // namespace pulse::sim
