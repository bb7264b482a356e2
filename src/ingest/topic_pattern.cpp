#include "ingest/topic_pattern.hpp"

namespace pulse::ingest {

namespace {

// Backtracking would take for ever on a pattern like ^(a*)*b.
#ifdef __GLIBCXX__
constexpr std::regex::flag_type kSyntax = std::regex::extended | std::regex_constants::__polynomial;
#else
constexpr std::regex::flag_type kSyntax = std::regex::extended;
#endif

} // namespace

Result<TopicPattern>
TopicPattern::Compile(const std::string &text)
{
    try {
        return TopicPattern(std::regex(text, kSyntax));
    } catch (const std::regex_error &error) {
        return Status::Error("bad topic expression \"" + text + "\": " + error.what());
    }
}

bool
TopicPattern::Matches(const std::string &topic) const
{
    return !topic.starts_with("__") && std::regex_search(topic, expression_);
}

} // namespace pulse::ingest
