// What Kafka takes as the name of a topic. Regime: C++. Errors: none.
#pragma once

#include <string_view>

namespace pulse {

inline constexpr char kTopicNameHint[] =
    "Up to 249 letters, digits, dots, underscores and hyphens.";

inline bool
IsTopicName(std::string_view name)
{
    constexpr std::string_view allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                         "0123456789._-";
    return !name.empty() && name.size() <= 249 && name != "." && name != ".." &&
           name.find_first_not_of(allowed) == std::string_view::npos;
}

} // namespace pulse
