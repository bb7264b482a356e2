// CRC-32C, and the fingerprint of a record by it. For threads that reach no PostgreSQL symbol, and
// for backends that must find the same. Regime: either.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/types.hpp"

namespace pulse {

uint32_t Crc32c(uint32_t crc, std::string_view bytes); // start with 0

// Null and empty differ.
uint32_t RecordCrc(std::string_view key, std::string_view value);

Fingerprint FingerprintOf(int64_t kafka_offset, int64_t timestamp_ms, std::string_view key,
                          std::string_view value);

// As far as both are known.
inline bool
IsSameRecord(const Fingerprint &left, const Fingerprint &right)
{
    bool is_same_time = left.timestamp_ms == right.timestamp_ms ||
                        left.timestamp_ms == Fingerprint::kUnknownTime ||
                        right.timestamp_ms == Fingerprint::kUnknownTime;
    bool is_same_crc = left.crc == right.crc || left.crc < 0 || right.crc < 0;
    return left.kafka_offset == right.kafka_offset && is_same_time && is_same_crc;
}

} // namespace pulse
