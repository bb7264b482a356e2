// What the reader thread hands to the backend: records with their decoded cells, in arrival order,
// and per partition the range of offsets they cover. Owns every byte in one arena (payload, key,
// headers, cells), so it outlives librdkafka's message and is freed as a whole by whoever holds it.
// Regime: C++; the PG regime may read it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/arena.hpp"
#include "base/flight_mark.hpp"
#include "base/types.hpp"
#include "decode/decoder.hpp"
#include "kafka/consumer.hpp"

namespace pulse::ingest {

struct Record {
    uint32_t range_index;
    int64_t kafka_offset;
    int64_t timestamp_ms; // -1 = none
    std::string_view key;
    std::string_view value;
    std::string_view headers; // EncodeHeaders(); null = none
    decode::Reject reject;    // kNone: cells are valid
    Cell *cells;
};

struct Range {
    std::string topic;
    int32_t partition;
    int64_t expected_offset; // pulse.offsets.next_offset must be this before the batch
    int64_t next_offset;     // and this after it; behind control records too
    int64_t high_watermark;  // -1 = unknown
    uint32_t record_count;
};

class Batch {
  public:
    // Copies the record out of librdkafka's buffer and decodes it.
    void Append(const kafka::Message &message, uint32_t range_index, decode::Decoder &decoder,
                int64_t now_us);
    // Copies it without looking at it: a reject with this code.
    void AppendSetAside(const kafka::Message &message, uint32_t range_index,
                        decode::RejectCode code, std::string_view reason);
    // Decodes every record again: the target changed after the batch was read. The mark follows.
    void DecodeAgain(decode::Decoder &decoder, int64_t now_us, FlightMark *mark);

    size_t bytes() const { return arena_.reserved_bytes() + records.capacity() * sizeof(Record); }
    size_t payload_bytes() const { return payload_bytes_; }

    std::vector<Record> records;
    std::vector<Range> ranges;
    std::shared_ptr<const decode::Mapping> mapping; // the cells' columns
    uint64_t assignment = 0;                        // stale when it isn't the reader's

  private:
    void Copy(const kafka::Message &message, uint32_t range_index);
    void Decode(Record *record, decode::Decoder &decoder, int64_t now_us);

    Arena arena_;
    size_t payload_bytes_ = 0;
};

// Headers as one string: count, then key length, key, value length (-1 = null), value; integers are
// native uint32. Bytes are kept as they are: header keys and values need not be text.
std::string_view EncodeHeaders(const std::vector<kafka::Header> &headers, Arena &arena);
// Calls visit(key, value) for each header.
template <typename F>
void
VisitHeaders(std::string_view encoded, F &&visit)
{
    auto read = [&encoded] {
        uint32_t number;
        __builtin_memcpy(&number, encoded.data(), sizeof(number));
        encoded.remove_prefix(sizeof(number));
        return number;
    };
    if (encoded.data() == nullptr)
        return;
    for (uint32_t left = read(); left > 0; left--) {
        uint32_t key_bytes = read();
        std::string_view key = encoded.substr(0, key_bytes);
        encoded.remove_prefix(key_bytes);
        uint32_t value_bytes = read();
        std::string_view value;
        if (value_bytes != UINT32_MAX) {
            value = encoded.substr(0, value_bytes);
            encoded.remove_prefix(value_bytes);
        }
        visit(key, value);
    }
}

} // namespace pulse::ingest
