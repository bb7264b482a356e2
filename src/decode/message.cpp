// Building of messages and pointers; see message.hpp.
#include "decode/message.hpp"

#include <charconv>
#include <cstring>

#include "base/excerpt.hpp"
#include "base/utf8.hpp"

namespace pulse::decode {

Message &
Message::Add(std::string_view words)
{
    if (words.size() <= kCapacity - length_) {
        std::memcpy(text_ + length_, words.data(), words.size());
        length_ += words.size();
    }
    return *this;
}

Message &
Message::Add(int64_t number)
{
    char digits[24];
    char *end = std::to_chars(digits, digits + sizeof(digits), number).ptr;
    return Add(std::string_view(digits, static_cast<size_t>(end - digits)));
}

Message &
Message::AddSize(uint64_t number)
{
    char digits[24];
    char *end = std::to_chars(digits, digits + sizeof(digits), number).ptr;
    return Add(std::string_view(digits, static_cast<size_t>(end - digits)));
}

Message &
Message::AddExcerpt(std::string_view payload)
{
    return Add(Excerpt(payload, kMaxExcerptBytes, Escapes::kHex));
}

Pointer &
Pointer::AddName(std::string_view name)
{
    AddToken(name);
    return *this;
}

Pointer &
Pointer::AddIndex(uint32_t index)
{
    char digits[16];
    char *end = std::to_chars(digits, digits + sizeof(digits), index).ptr;
    AddToken(std::string_view(digits, static_cast<size_t>(end - digits)));
    return *this;
}

void
Pointer::AddToken(std::string_view token)
{
    constexpr std::string_view kCut = "...";
    constexpr size_t kRoom = kMaxPathBytes - kCut.size();
    if (is_cut_)
        return;
    size_t at = 0;
    std::string_view piece = "/";
    while (true) {
        if (length_ + piece.size() > kRoom) {
            std::memcpy(text_ + length_, kCut.data(), kCut.size());
            length_ += kCut.size();
            is_cut_ = true;
            return;
        }
        std::memcpy(text_ + length_, piece.data(), piece.size());
        length_ += piece.size();
        if (at == token.size())
            return;
        size_t length = Utf8CharacterLength(token.substr(at));
        piece = token.substr(at, length == 0 ? 1 : length);
        at += piece.size();
        if (piece == "~")
            piece = "~0";
        else if (piece == "/")
            piece = "~1";
    }
}

bool
Refuse(RejectCode code, const Message &message, const Pointer *path, Arena &arena, Reject *reject)
{
    reject->code = code;
    reject->message = arena.Copy(message.view());
    reject->path = path == nullptr ? std::string_view() : arena.Copy(path->view());
    return false;
}

} // namespace pulse::decode
