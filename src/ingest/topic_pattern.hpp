// A regular expression over topic names, as pulse.topic and create_pipeline take it: POSIX
// extended, with leading ^. Regime: C++.
#pragma once

#include <regex>
#include <string>

namespace pulse::ingest {

class TopicPattern {
  public:
    // Throws std::regex_error when it is none.
    explicit TopicPattern(const std::string &pattern) : expression_(pattern, kSyntax) {}

    // Topics of Kafka's own begin with two underscores and never match.
    bool Matches(const std::string &topic) const
    {
        return !topic.starts_with("__") && std::regex_search(topic, expression_);
    }

  private:
    // Backtracking would take for ever on a pattern like ^(a*)*b.
#ifdef __GLIBCXX__
    static constexpr std::regex::flag_type kSyntax =
        std::regex::extended | std::regex_constants::__polynomial;
#else
    static constexpr std::regex::flag_type kSyntax = std::regex::extended;
#endif

    std::regex expression_;
};

} // namespace pulse::ingest
