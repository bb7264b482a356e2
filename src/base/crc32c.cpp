#include "base/crc32c.hpp"

#include <array>

namespace pulse {

namespace {

constexpr std::array<uint32_t, 256>
MakeTable()
{
    std::array<uint32_t, 256> table{};
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
        table[byte] = crc;
    }
    return table;
}

constexpr std::array<uint32_t, 256> kTable = MakeTable();

} // namespace

// One byte at a time: a record or two per batch.
uint32_t
Crc32c(uint32_t crc, std::string_view bytes)
{
    crc = ~crc;
    for (char byte : bytes)
        crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(byte)) & 0xFF];
    return ~crc;
}

uint32_t
RecordCrc(std::string_view key, std::string_view value)
{
    uint32_t crc = Crc32c(0, key.data() == nullptr ? "n" : "k");
    crc = Crc32c(crc, key);
    crc = Crc32c(crc, value.data() == nullptr ? "n" : "v");
    return Crc32c(crc, value);
}

Fingerprint
FingerprintOf(int64_t kafka_offset, int64_t timestamp_ms, std::string_view key,
              std::string_view value)
{
    return {kafka_offset, timestamp_ms, RecordCrc(key, value)};
}

} // namespace pulse
