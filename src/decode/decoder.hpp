// Bytes of one Kafka record -> cells of one row, or a reject. Knows neither PostgreSQL nor Kafka.
// Never throws on any input except std::bad_alloc, never aborts, never recurses on input.
// Regime: C++. One Decoder per thread; the Mapping may be shared.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/arena.hpp"
#include "base/types.hpp"
#include "decode/mapping.hpp"
#include "decode/reject.hpp"

namespace pulse::decode {

class Decoder {
  public:
    explicit Decoder(std::shared_ptr<const Mapping> mapping);
    ~Decoder();
    Decoder(const Decoder &) = delete;
    Decoder &operator=(const Decoder &) = delete;

    // Decodes value (null data() = tombstone) into cells[mapping.columns.size()]. Text that needs
    // no unescaping points into value, everything else into arena; both must outlive the cells.
    // now_us is the clock for too_old / too_new. Returns false and fills *reject when the record
    // can't become an event (cells are then undefined). A missing field that is not required is
    // kMissing. The rest column gets one JSON object: the members of a top-level "properties"
    // object (if the rest column is named so) followed by every top-level field no column takes; a
    // name that occurs in both is dup_key, for nothing is dropped in silence.
    bool Decode(std::string_view value, int64_t now_us, Arena &arena, Cell *cells, Reject *reject);

    const Mapping &mapping() const;

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace pulse::decode
