// A topic of a pipeline that is a regular expression: ^ and what follows, POSIX extended syntax.
// Regime: C++, pure.
#pragma once

#include <regex>
#include <string>

#include "base/result.hpp"

namespace pulse::ingest {

class TopicPattern {
  public:
    static constexpr const char *kHint = "It is a POSIX extended regular expression: [0-9] rather "
                                         "than \\d, no (?: and no look-ahead.";

    // Errors: what is wrong with it, with the expression.
    static Result<TopicPattern> Compile(const std::string &text);

    // Topics of Kafka's own begin with two underscores and never match.
    bool Matches(const std::string &topic) const;

  private:
    explicit TopicPattern(std::regex expression) : expression_(std::move(expression)) {}
    std::regex expression_;
};

} // namespace pulse::ingest
