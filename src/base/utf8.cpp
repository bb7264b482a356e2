// Validation of UTF-8; see utf8.hpp. Runs over every record before anything else looks at it, hence
// the eight bytes at a time: payloads are ASCII for the most part.
#include "base/utf8.hpp"

#include <cstring>

namespace pulse {

namespace {

constexpr uint64_t kHighBits = 0x8080808080808080;
constexpr uint64_t kLowBits = 0x0101010101010101;

uint64_t
LoadWord(const char *bytes)
{
    uint64_t word;
    std::memcpy(&word, bytes, sizeof(word));
    return word;
}

// For eight ASCII bytes (x - 1) sets a high bit exactly when some byte is NUL; a byte above 0x7f
// shows by its own high bit.
bool
IsPlainAscii(uint64_t word)
{
    return ((word | (word - kLowBits)) & kHighBits) == 0;
}

bool
IsContinuation(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

} // namespace

Utf8Check
CheckUtf8(std::string_view bytes)
{
    size_t at = 0;
    while (at < bytes.size()) {
        while (bytes.size() - at >= 32) {
            const char *next = bytes.data() + at;
            uint64_t first = LoadWord(next), second = LoadWord(next + 8);
            uint64_t third = LoadWord(next + 16), fourth = LoadWord(next + 24);
            uint64_t high = first | second | third | fourth;
            high |= (first - kLowBits) | (second - kLowBits);
            high |= (third - kLowBits) | (fourth - kLowBits);
            if ((high & kHighBits) != 0)
                break;
            at += 32;
        }
        while (bytes.size() - at >= 8 && IsPlainAscii(LoadWord(bytes.data() + at)))
            at += 8;
        // Up to eight characters one by one, then try the fast path again.
        for (int i = 0; i < 8 && at < bytes.size(); i++) {
            if (bytes[at] == '\0')
                return {Utf8Fault::kNul, at};
            size_t length = Utf8CharacterLength(bytes.substr(at));
            if (length == 0)
                return {Utf8Fault::kInvalid, at};
            at += length;
        }
    }
    return {};
}

size_t
Utf8CharacterLength(std::string_view bytes)
{
    if (bytes.empty())
        return 0;
    auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
    unsigned char lead = byte(0);
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4) // continuation, overlong C0 and C1, above U+10FFFF
        return 0;
    if (lead < 0xE0)
        return bytes.size() >= 2 && IsContinuation(byte(1)) ? 2 : 0;
    if (lead < 0xF0) {
        if (bytes.size() < 3 || !IsContinuation(byte(1)) || !IsContinuation(byte(2)))
            return 0;
        if (lead == 0xE0 && byte(1) < 0xA0) // overlong
            return 0;
        if (lead == 0xED && byte(1) > 0x9F) // surrogates
            return 0;
        return 3;
    }
    if (bytes.size() < 4 || !IsContinuation(byte(1)) || !IsContinuation(byte(2)) ||
        !IsContinuation(byte(3)))
        return 0;
    if (lead == 0xF0 && byte(1) < 0x90) // overlong
        return 0;
    if (lead == 0xF4 && byte(1) > 0x8F) // above U+10FFFF
        return 0;
    return 4;
}

char *
WriteUtf8(uint32_t code_point, char *target)
{
    auto put = [&](uint32_t byte) { *target++ = static_cast<char>(byte); };
    if (code_point < 0x80) {
        put(code_point);
    } else if (code_point < 0x800) {
        put(0xC0 | code_point >> 6);
        put(0x80 | (code_point & 0x3F));
    } else if (code_point < 0x10000) {
        put(0xE0 | code_point >> 12);
        put(0x80 | (code_point >> 6 & 0x3F));
        put(0x80 | (code_point & 0x3F));
    } else {
        put(0xF0 | code_point >> 18);
        put(0x80 | (code_point >> 12 & 0x3F));
        put(0x80 | (code_point >> 6 & 0x3F));
        put(0x80 | (code_point & 0x3F));
    }
    return target;
}

} // namespace pulse
