#include "base/excerpt.hpp"

#include "base/utf8.hpp"

namespace pulse {

namespace {

// C0, DEL and C1.
bool
IsControl(std::string_view character)
{
    const auto first = static_cast<unsigned char>(character[0]);
    if (character.size() == 1)
        return first < 0x20 || first == 0x7F;
    return first == 0xC2 && static_cast<unsigned char>(character[1]) < 0xA0;
}

std::string
Escaped(std::string_view bytes, Escapes escapes)
{
    static constexpr char kDigits[] = "0123456789abcdef";
    if (escapes == Escapes::kShort && bytes == "\n")
        return "\\n";
    if (escapes == Escapes::kShort && bytes == "\t")
        return "\\t";
    std::string escaped;
    for (const char byte : bytes) {
        const auto code = static_cast<unsigned char>(byte);
        escaped += {'\\', 'x', kDigits[code >> 4], kDigits[code & 0xF]};
    }
    return escaped;
}

} // namespace

std::string
Excerpt(std::string_view text, size_t max_bytes, Escapes escapes)
{
    std::string excerpt;
    while (!text.empty()) {
        const size_t length = Utf8CharacterLength(text);
        const std::string_view character = text.substr(0, length == 0 ? 1 : length);
        const std::string shown = length == 0 || IsControl(character) ? Escaped(character, escapes)
                                                                      : std::string(character);
        if (excerpt.size() + shown.size() > max_bytes)
            return excerpt + "...";
        excerpt += shown;
        text.remove_prefix(character.size());
    }
    return excerpt;
}

} // namespace pulse
