// JSON pointers of a mapping; see mapping.hpp.
#include "decode/mapping.hpp"

namespace pulse::decode {

Result<std::vector<std::string>>
ParsePointer(std::string_view pointer)
{
    // RFC 6901 lets "" name the whole document; no column takes that, so it is refused here.
    if (pointer.empty() || pointer[0] != '/')
        return Status::Error("a JSON pointer must begin with \"/\"");
    std::vector<std::string> tokens;
    for (size_t i = 0; i < pointer.size(); i++) {
        char byte = pointer[i];
        if (byte == '/') {
            tokens.emplace_back();
            continue;
        }
        if (byte == '~') {
            i++;
            if (i == pointer.size() || (pointer[i] != '0' && pointer[i] != '1'))
                return Status::Error("in a JSON pointer \"~\" must be followed by 0 or 1");
            byte = pointer[i] == '0' ? '~' : '/';
        }
        tokens.back().push_back(byte);
    }
    return tokens;
}

} // namespace pulse::decode
