// Texts of a Reject: fixed buffers that never overflow and never hold anything but valid UTF-8
// without control characters, whatever bytes the payload has. Cold path only.
// Regime: C++. Errors: none; what doesn't fit is cut at a character's end and marked "...".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/arena.hpp"
#include "decode/reject.hpp"

namespace pulse::decode {

// Two excerpts fit in the 256 bytes of payload that a message may hold.
constexpr size_t kMaxExcerptBytes = 120;
constexpr size_t kMaxPathBytes = 512;

class Message {
  public:
    Message &Add(std::string_view words); // our own words, taken as they are
    Message &Add(int64_t number);
    Message &AddSize(uint64_t number);
    // The beginning of a payload in at most kMaxExcerptBytes, control characters and what is not
    // UTF-8 as \xnn.
    Message &AddExcerpt(std::string_view payload);

    std::string_view view() const { return {text_, length_}; }

  private:
    static constexpr size_t kCapacity = 1536; // several excerpts, and words
    size_t length_ = 0;
    char text_[kCapacity];
};

// A JSON pointer, put together token by token.
class Pointer {
  public:
    Pointer &AddName(std::string_view name); // valid UTF-8
    Pointer &AddIndex(uint32_t index);

    bool empty() const { return length_ == 0; }
    std::string_view view() const { return {text_, length_}; }

  private:
    void AddToken(std::string_view token);

    bool is_cut_ = false;
    size_t length_ = 0;
    char text_[kMaxPathBytes];
};

// Fills *reject with copies in arena; without a pointer the path is null. Returns false, for the
// callers' `return Refuse(...)`.
bool Refuse(RejectCode code, const Message &message, const Pointer *path, Arena &arena,
            Reject *reject);

} // namespace pulse::decode
