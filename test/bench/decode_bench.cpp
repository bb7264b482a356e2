// How many events per second one core decodes: a clickstream event of about 330 bytes into the
// columns of raw.events, by the processor's time, for machines that others use too. Prints figures,
// judges nothing; never part of a test.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "decode/decoder.hpp"

// In steady state a record must not cost an allocation; the arena's chunks are the batch's. Not
// inline: g++ takes the inlined pair of new and free() for a mistake.
static size_t allocations = 0;

[[gnu::noinline]] void *
operator new(size_t bytes)
{
    allocations++;
    if (void *block = std::malloc(bytes))
        return block;
    throw std::bad_alloc();
}

[[gnu::noinline]] void
operator delete(void *block) noexcept
{
    std::free(block);
}

[[gnu::noinline]] void
operator delete(void *block, size_t) noexcept
{
    std::free(block);
}

namespace {

using pulse::decode::ColumnSpec;
using pulse::decode::ColumnType;

std::shared_ptr<pulse::decode::Mapping>
EventsMapping()
{
    auto mapping = std::make_shared<pulse::decode::Mapping>();
    auto add = [&](const char *name, ColumnType type, bool is_required) {
        ColumnSpec column;
        column.name = name;
        column.type = type;
        column.is_required = is_required;
        column.path = {name};
        mapping->columns.push_back(column);
    };
    add("event_id", ColumnType::kText, false);
    add("event_type", ColumnType::kText, true);
    add("user_id", ColumnType::kText, true);
    add("event_timestamp", ColumnType::kTimestamp, true);
    add("funnel_step_index", ColumnType::kInt2, false);
    add("page_url", ColumnType::kText, false);
    add("referrer", ColumnType::kText, false);
    add("device", ColumnType::kText, false);
    add("session_seconds", ColumnType::kFloat8, false);
    add("properties", ColumnType::kJson, false);
    mapping->columns[3].is_event_time = true;
    mapping->rest_column = 9;
    return mapping;
}

std::string
Event(int number)
{
    char text[600];
    std::snprintf(
        text, sizeof(text),
        "{\"event_id\":\"0190b3c4-7a1e-7c3d-9f00-%012d\",\"event_type\":\"page_view\","
        "\"user_id\":\"u%06d\",\"event_timestamp\":\"2026-11-20T12:34:%02d.%03dZ\","
        "\"funnel_step_index\":%d,\"page_url\":\"https://shop.example/products/%d?ref=a\","
        "\"referrer\":\"https://search.example/\",\"device\":\"mobile\","
        "\"properties\":{\"price\":%d.5,\"currency\":\"EUR\",\"ab\":\"b\"}}",
        number, number % 100000, number % 60, number % 1000, number % 5, number % 5000,
        number % 90);
    return text;
}

void
Measure(const char *what, const std::vector<std::string> &events)
{
    constexpr int kRounds = 40;
    constexpr int64_t kNowUs = 1795178096000000; // some day of 2026
    pulse::decode::Decoder decoder(EventsMapping());
    pulse::Cell cells[10];
    pulse::decode::Reject reject;
    size_t bytes = 0, accepted = 0, decoded = 0, allocated = 0;
    std::clock_t start = std::clock();
    for (int round = 0; round < kRounds; round++) {
        pulse::Arena arena; // one batch
        if (round == 1)     // the first one fills the decoder's buffers
            allocated = allocations;
        for (const std::string &event : events) {
            accepted += decoder.Decode(event, kNowUs, arena, cells, &reject) ? 1 : 0;
            bytes += event.size();
            decoded++;
        }
    }
    double took_s = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    std::printf("%-20s %4zu bytes, %9.0f events/s, %6.1f MB/s, %zu of %zu accepted, "
                "%zu allocations a batch\n",
                what, bytes / decoded, static_cast<double>(decoded) / took_s,
                static_cast<double>(bytes) / took_s / 1e6, accepted, decoded,
                (allocations - allocated) / (kRounds - 1));
}

} // namespace

int
main()
{
    std::vector<std::string> plain, with_rest, with_escapes, rejected;
    for (int i = 0; i < 20000; i++) {
        std::string event = Event(i);
        plain.push_back(event);
        with_rest.push_back(event.substr(0, event.size() - 1) + ",\"campaign\":\"autumn\"}");
        std::string escaped = event;
        escaped.replace(escaped.find("https:"), 8, "https:\\/\\/");
        with_escapes.push_back(escaped);
        rejected.push_back(event.substr(0, event.size() - 1));
    }
    Measure("plain", plain);
    Measure("one unmapped field", with_rest);
    Measure("one escaped text", with_escapes);
    Measure("rejected: cut short", rejected);
    return 0;
}
