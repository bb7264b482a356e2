// Regular expressions of a JSON Schema (`pattern`, `patternProperties`), checked and rewritten into
// what RapidJSON 1.1.0's engine does right. Left alone that engine aborts on "(", never returns
// from
// "(a*)*" (its recursion ends with the stack), takes exponential time for "(a?b?)?(a?b?)?...", does
// not know \d, takes an anchor anywhere for one of the whole, and answers wrongly where an
// expression that is not anchored matches nothing at all.
//
// What comes out is anchored in front, has no operator on a part that may be empty and not more
// than kMaxStates states, so that a match costs at most their number for each character. Regime:
// C++. Errors: values; std::bad_alloc.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace pulse::decode {

constexpr size_t kMaxPatternBytes = 1000;
constexpr size_t kMaxPatternStates = 1000;

// pattern is valid UTF-8 without NUL. Understood is ECMA 262 but for look-ahead, back references,
// \b, \B, \c and \p, and for anchors anywhere but at both ends.
Result<std::string> TranslatePattern(std::string_view pattern);

} // namespace pulse::decode
