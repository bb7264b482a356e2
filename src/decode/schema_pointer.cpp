#include "decode/schema_pointer.hpp"

#include <algorithm>
#include <charconv>

#include "decode/schema_check.hpp"
#include "decode/rapidjson_prelude.hpp"

namespace pulse::decode {

namespace {

using rapidjson::SizeType;

bool
IsHexDigit(char digit)
{
    return (digit >= '0' && digit <= '9') || ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f');
}

std::string
Unpercent(std::string_view text, const std::string &here)
{
    std::string plain;
    for (size_t i = 0; i < text.size(); i++) {
        if (text[i] != '%') {
            plain.push_back(text[i]);
            continue;
        }
        if (i + 2 >= text.size() || !IsHexDigit(text[i + 1]) || !IsHexDigit(text[i + 2]))
            throw SchemaFault{here, "\"%\" must be followed by two hexadecimal digits", ""};
        unsigned byte = 0;
        (void)std::from_chars(text.data() + i + 1, text.data() + i + 3, byte, 16);
        plain.push_back(static_cast<char>(byte));
        i += 2;
    }
    return plain;
}

std::string
UnescapeToken(std::string_view token, const std::string &here)
{
    std::string plain;
    for (size_t i = 0; i < token.size(); i++) {
        if (token[i] != '~') {
            plain.push_back(token[i]);
            continue;
        }
        i++;
        if (i == token.size() || (token[i] != '0' && token[i] != '1'))
            throw SchemaFault{here, "in a JSON pointer \"~\" must be followed by 0 or 1", ""};
        plain.push_back(token[i] == '0' ? '~' : '/');
    }
    return plain;
}

const SchemaValue *
Step(const SchemaValue &value, const std::string &token)
{
    if (value.IsObject())
        return Member(value, token);
    SizeType index = 0;
    auto result = std::from_chars(token.data(), token.data() + token.size(), index);
    if (!value.IsArray() || result.ec != std::errc() || result.ptr != token.data() + token.size() ||
        index >= value.Size() || token != std::to_string(index))
        return nullptr;
    return &value[index];
}

} // namespace

void
AppendToken(std::string_view token, std::string *pointer)
{
    pointer->push_back('/');
    for (char byte : token) {
        if (byte == '~')
            pointer->append("~0");
        else if (byte == '/')
            pointer->append("~1");
        else
            pointer->push_back(byte);
    }
}

std::string
Join(std::string pointer, std::string_view token)
{
    AppendToken(token, &pointer);
    return pointer;
}

std::string
Join(std::string pointer, SizeType index)
{
    return Join(std::move(pointer), std::to_string(index));
}

Referred
FollowReference(const SchemaValue &document, std::string_view reference, const std::string &here)
{
    if (!reference.starts_with('#') || (reference.size() > 1 && reference[1] != '/'))
        throw SchemaFault{
            here, "the reference is no JSON pointer into this schema",
            "Write it like \"#/definitions/price\"; nothing is loaded from elsewhere."};
    std::string pointer = Unpercent(reference.substr(1), here);
    Referred found{&document, ""};
    size_t begin = 1;
    while (begin <= pointer.size() && !pointer.empty()) {
        size_t end = std::min(pointer.find('/', begin), pointer.size());
        std::string token =
            UnescapeToken(std::string_view(pointer).substr(begin, end - begin), here);
        found.value = Step(*found.value, token);
        if (found.value == nullptr)
            throw SchemaFault{
                here, "the reference leads nowhere: there is no \"" + token.substr(0, 64) + "\"",
                ""};
        AppendToken(token, &found.pointer);
        begin = end + 1;
    }
    return found;
}

} // namespace pulse::decode
