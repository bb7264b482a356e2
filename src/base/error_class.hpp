// What a PostgreSQL error means for a batch: the one place that maps SQLSTATE to class. Regime:
// either.
#pragma once

#include <initializer_list>
#include <string_view>

namespace pulse {

enum class ErrorClass {
    kData,        // one row is at fault: isolate it
    kEnvironment, // nothing is wrong with the batch: retry it whole
    kDefinition,  // table, privilege, pulse itself: fail, retry slowly, keep the offsets
};

inline ErrorClass
ClassOf(std::string_view sqlstate)
{
    std::string_view group = sqlstate.substr(0, 2);
    auto is_one_of = [group](std::initializer_list<std::string_view> groups) {
        for (std::string_view candidate : groups)
            if (group == candidate)
                return true;
        return false;
    };
    // 54: a key too long for its index would otherwise be retried for ever. 21: a subquery of a
    // trigger or stage that finds two rows for this one.
    if (is_one_of({"21", "22", "23", "44", "P0", "54"}))
        return ErrorClass::kData;
    if (is_one_of({"08", "28", "3D", "40", "53", "55", "57", "58", "72"}) || sqlstate == "25006")
        return ErrorClass::kEnvironment;
    return ErrorClass::kDefinition;
}

} // namespace pulse
