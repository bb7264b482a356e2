// Escapes and number ranges; see json_text.hpp.
#include "decode/json_text.hpp"

#include <charconv>
#include <cmath>
#include <cstring>

#include "base/utf8.hpp"

namespace pulse::decode {

namespace {

constexpr size_t kUnicodeEscapeLength = 6; // \uXXXX
constexpr int kMaxDigits = 1000;
constexpr int64_t kMaxExponent = 308; // of the first digit that isn't zero
constexpr int64_t kMinExponent = -324;
constexpr int64_t kSafeExponent = 307;    // any digits before such an exponent fit a double
constexpr int64_t kMaxZeroExponent = 308; // 0e-99999 is more decimals than numeric can show

uint32_t
HexDigit(char digit)
{
    if (digit <= '9')
        return static_cast<uint32_t>(digit - '0');
    return static_cast<uint32_t>((digit | 0x20) - 'a' + 10);
}

// The code unit of the \uXXXX at the start of text; text is well-formed.
uint32_t
CodeUnit(std::string_view text)
{
    return HexDigit(text[2]) << 12 | HexDigit(text[3]) << 8 | HexDigit(text[4]) << 4 |
           HexDigit(text[5]);
}

bool
IsUnicodeEscape(std::string_view text)
{
    return text.size() >= kUnicodeEscapeLength && text[0] == '\\' && text[1] == 'u';
}

bool
IsHighSurrogate(uint32_t unit)
{
    return unit >= 0xD800 && unit <= 0xDBFF;
}

bool
IsLowSurrogate(uint32_t unit)
{
    return unit >= 0xDC00 && unit <= 0xDFFF;
}

char
SimpleEscape(char letter)
{
    switch (letter) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return letter; // quote, backslash, slash
    }
}

// Length of the part before the next backslash.
size_t
PlainLength(std::string_view text)
{
    const void *found = text.empty() ? nullptr : std::memchr(text.data(), '\\', text.size());
    if (found == nullptr)
        return text.size();
    return static_cast<size_t>(static_cast<const char *>(found) - text.data());
}

struct Magnitude {
    int digits;       // at most kMaxDigits + 1: no more are looked at
    bool is_zero;     // exponent is then the one that is written
    int64_t exponent; // of the first digit that isn't zero
};

Magnitude
MagnitudeOf(std::string_view number)
{
    int digits = 0;
    int64_t point = 0;    // digits before the decimal point
    int64_t leading = -1; // position of the first digit that isn't zero
    bool is_fraction = false;
    size_t at = 0;
    for (; at < number.size(); at++) {
        char byte = number[at];
        if (byte == '.') {
            is_fraction = true;
        } else if (byte >= '0' && byte <= '9') {
            if (leading < 0 && byte != '0')
                leading = digits;
            if (++digits > kMaxDigits)
                return {digits, leading < 0, 0};
            if (!is_fraction)
                point++;
        } else if (byte != '-') {
            break; // e or E
        }
    }

    int64_t exponent = 0;
    if (at < number.size()) {
        at++;
        bool is_negative = number[at] == '-';
        if (number[at] == '-' || number[at] == '+')
            at++;
        for (; at < number.size(); at++)
            if (exponent < 1000000) // past every limit; any number of digits may follow
                exponent = exponent * 10 + (number[at] - '0');
        if (is_negative)
            exponent = -exponent;
    }
    if (leading < 0)
        return {digits, true, exponent};
    return {digits, false, exponent + point - 1 - leading};
}

// The edges: up to the largest double, down to the smallest that isn't zero.
bool
FitsDouble(std::string_view number)
{
    double value = 0;
    auto result = std::from_chars(number.data(), number.data() + number.size(), value);
    return result.ec == std::errc() && value != 0 && std::isfinite(value);
}

} // namespace

EscapeCheck
CheckEscapes(std::string_view inner)
{
    size_t at = PlainLength(inner);
    while (at < inner.size()) {
        std::string_view rest = inner.substr(at);
        size_t length = 2;
        if (IsUnicodeEscape(rest)) {
            length = kUnicodeEscapeLength;
            uint32_t unit = CodeUnit(rest);
            if (unit == 0)
                return {EscapeFault::kNul, at};
            if (IsLowSurrogate(unit))
                return {EscapeFault::kSurrogate, at};
            if (IsHighSurrogate(unit)) {
                std::string_view next = rest.substr(length);
                if (!IsUnicodeEscape(next) || !IsLowSurrogate(CodeUnit(next)))
                    return {EscapeFault::kSurrogate, at};
                length += kUnicodeEscapeLength;
            }
        }
        at += length;
        if (at < inner.size())
            at += PlainLength(inner.substr(at));
    }
    return {};
}

size_t
Unescape(std::string_view inner, char *target)
{
    char *start = target;
    while (!inner.empty()) {
        size_t plain = PlainLength(inner);
        std::memcpy(target, inner.data(), plain);
        target += plain;
        inner.remove_prefix(plain);
        if (inner.size() < 2)
            break;
        if (!IsUnicodeEscape(inner)) {
            *target++ = SimpleEscape(inner[1]);
            inner.remove_prefix(2);
            continue;
        }
        uint32_t code_point = CodeUnit(inner);
        inner.remove_prefix(kUnicodeEscapeLength);
        if (IsHighSurrogate(code_point) && IsUnicodeEscape(inner)) {
            code_point = 0x10000 + ((code_point - 0xD800) << 10) + (CodeUnit(inner) - 0xDC00);
            inner.remove_prefix(kUnicodeEscapeLength);
        }
        target = WriteUtf8(code_point, target);
    }
    return static_cast<size_t>(target - start);
}

bool
IsNumberInRange(std::string_view number)
{
    Magnitude magnitude = MagnitudeOf(number);
    if (magnitude.digits > kMaxDigits)
        return false;
    int64_t exponent = magnitude.exponent;
    if (magnitude.is_zero)
        return exponent >= -kMaxZeroExponent && exponent <= kMaxZeroExponent;
    if (exponent >= -kSafeExponent && exponent <= kSafeExponent)
        return true;
    return exponent >= kMinExponent && exponent <= kMaxExponent && FitsDouble(number);
}

int32_t
DigitsBeforePoint(std::string_view number)
{
    Magnitude magnitude = MagnitudeOf(number);
    return magnitude.is_zero ? INT32_MIN : static_cast<int32_t>(magnitude.exponent + 1);
}

} // namespace pulse::decode
