// What each spoiler changes is found by its position in the text that AppendValue() writes.
#include "sim/spoiler.hpp"

namespace pulse::sim {

namespace {

constexpr size_t kNesting = 200;
constexpr size_t kLongUserId = 1100; // bytes; a user_id may have 1000

// Writes good with the first `old_text` replaced.
void
Replace(std::string_view good, std::string_view old_text, std::string_view new_text,
        std::string *bad)
{
    size_t at = good.find(old_text);
    bad->append(good.substr(0, at));
    bad->append(new_text);
    bad->append(good.substr(at + old_text.size()));
}

// Puts text before the last brace.
void
AddMember(std::string_view good, std::string_view member, std::string *bad)
{
    bad->append(good.substr(0, good.size() - 1));
    bad->append(member);
    bad->push_back('}');
}

void
SetYear(std::string_view good, std::string_view year, std::string *bad)
{
    constexpr std::string_view kBefore = "\"event_timestamp\":\"";
    size_t at = good.find(kBefore) + kBefore.size();
    bad->append(good.substr(0, at));
    bad->append(year);
    bad->append(good.substr(at + 4));
}

} // namespace

// Years that are leap years, so that 29 February stays a date.
constinit const Spoiler kSpoilerTable[kSpoilers] = {
    {"syntax",
     [](std::string_view good, std::string *bad) { bad->append(good.substr(0, good.size() - 1)); }},
    {"encoding",
     [](std::string_view good, std::string *bad) {
         Replace(good, "\"user_id\":\"", "\"user_id\":\"\xff\xfe", bad);
     }},
    {"nul",
     [](std::string_view good, std::string *bad) {
         Replace(good, "\"user_id\":\"", "\"user_id\":\"\\u0000", bad);
     }},
    {"surrogate",
     [](std::string_view good, std::string *bad) {
         Replace(good, "\"user_id\":\"", "\"user_id\":\"\\udc00", bad);
     }},
    {"depth",
     [](std::string_view good, std::string *bad) {
         AddMember(good, ",\"deep\":" + std::string(kNesting, '[') + std::string(kNesting, ']'),
                   bad);
     }},
    {"number",
     [](std::string_view good, std::string *bad) { AddMember(good, ",\"huge\":1e400000", bad); }},
    {"dup_key", [](std::string_view good,
                   std::string *bad) { AddMember(good, ",\"user_id\":\"somebody else\"", bad); }},
    {"not_object",
     [](std::string_view good, std::string *bad) {
         bad->push_back('[');
         bad->append(good);
         bad->push_back(']');
     }},
    {"empty", [](std::string_view, std::string *) {}},
    {"tombstone", [](std::string_view, std::string *) {}, true},
    {"schema_framed_payload", // the frame of a schema registry: 0, a schema's id, then not JSON
     [](std::string_view, std::string *bad) {
         bad->append(std::string_view("\0\0\0\0\x07\x0a\x02\x04", 8));
     }},
    {"missing_field", [](std::string_view good,
                         std::string *bad) { Replace(good, "\"user_id\"", "\"user\"", bad); }},
    {"type",
     [](std::string_view good, std::string *bad) {
         Replace(good, "\"funnel_step_index\":", "\"funnel_step_index\":\"first\",\"was\":", bad);
     }},
    {"time",
     [](std::string_view good, std::string *bad) {
         Replace(good, "\"event_timestamp\":\"", "\"event_timestamp\":\"about ", bad);
     }},
    {"too_old", [](std::string_view good, std::string *bad) { SetYear(good, "1996", bad); }},
    {"too_long",
     [](std::string_view good, std::string *bad) {
         Replace(good, "\"user_id\":\"", "\"user_id\":\"" + std::string(kLongUserId, 'u'), bad);
     }},
};

} // namespace pulse::sim
