#include "ingest/batch.hpp"

#include <cstring>

#include "base/fault.hpp"

namespace pulse::ingest {

void
Batch::Append(const kafka::Message &message, uint32_t range_index, decode::Decoder &decoder,
              int64_t now_us)
{
    Copy(message, range_index);
    Decode(&records.back(), decoder, now_us);
}

void
Batch::AppendSetAside(const kafka::Message &message, uint32_t range_index, decode::RejectCode code,
                      std::string_view reason)
{
    Copy(message, range_index);
    records.back().reject = {code, arena_.Copy(reason), {}};
}

void
Batch::Copy(const kafka::Message &message, uint32_t range_index)
{
    Record record{};
    record.range_index = range_index;
    record.kafka_offset = message.offset;
    record.timestamp_ms = message.timestamp_ms;
    record.key = arena_.Copy(message.key);
    record.value = arena_.Copy(message.value);
    if (!message.headers.empty())
        record.headers = EncodeHeaders(message.headers, arena_);
    record.cells = arena_.AllocateArray<Cell>(mapping->columns.size());
    records.push_back(record);
    payload_bytes_ += message.key.size() + message.value.size();

    Range &range = ranges[range_index];
    range.next_offset = message.offset + 1;
    range.record_count++;
}

void
Batch::DecodeAgain(decode::Decoder &decoder, int64_t now_us, FlightMark *mark)
{
    for (Record &record : records) {
        record.cells = arena_.AllocateArray<Cell>(mapping->columns.size());
        if (record.reject.code == decode::RejectCode::kSkipped ||
            record.reject.code == decode::RejectCode::kQuarantined)
            continue;
        const Range &range = ranges[record.range_index];
        mark->Set(range.topic, range.partition, record.kafka_offset);
        Decode(&record, decoder, now_us);
        mark->Clear();
    }
}

void
Batch::Decode(Record *record, decode::Decoder &decoder, int64_t now_us)
{
    record->reject = {};
    PULSE_CRASH("decode", record->value);
    if (!decoder.Decode(record->value, now_us, arena_, record->cells, &record->reject) &&
        record->reject.code == decode::RejectCode::kNone)
        record->reject.code = decode::RejectCode::kSyntax; // a reject always has a code
}

std::string_view
EncodeHeaders(const std::vector<kafka::Header> &headers, Arena &arena)
{
    size_t bytes = sizeof(uint32_t);
    for (const kafka::Header &header : headers)
        bytes += 2 * sizeof(uint32_t) + header.key.size() + header.value.size();
    char *encoded = arena.Allocate(bytes);
    char *next = encoded;
    auto put_number = [&next](uint32_t number) {
        std::memcpy(next, &number, sizeof(number));
        next += sizeof(number);
    };
    auto put_bytes = [&next](std::string_view text) {
        if (!text.empty())
            std::memcpy(next, text.data(), text.size());
        next += text.size();
    };
    put_number(static_cast<uint32_t>(headers.size()));
    for (const kafka::Header &header : headers) {
        put_number(static_cast<uint32_t>(header.key.size()));
        put_bytes(header.key);
        put_number(header.value.data() == nullptr ? UINT32_MAX
                                                  : static_cast<uint32_t>(header.value.size()));
        put_bytes(header.value);
    }
    return {encoded, bytes};
}

} // namespace pulse::ingest
