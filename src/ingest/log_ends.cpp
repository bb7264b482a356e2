#include "ingest/log_ends.hpp"

#include <algorithm>

namespace pulse::ingest {

namespace {

constexpr const char *kLeaderless = "it has no leader (LEADER_NOT_AVAILABLE)";
constexpr int kMostPauses = 4;

} // namespace

std::string
Describe(const PartitionTrouble &trouble)
{
    return "partition " + std::to_string(trouble.partition) + " of topic \"" + trouble.topic +
           "\": " + trouble.text;
}

std::vector<LogEnds::Wanted>
LogEnds::AllOf(const std::vector<kafka::TopicMetadata> &topics)
{
    std::vector<Wanted> all;
    for (const kafka::TopicMetadata &topic : topics)
        for (int32_t partition = 0; partition < topic.partition_count; partition++)
            all.push_back({topic.topic, partition, topic.leaders[static_cast<size_t>(partition)],
                           kLeaderless});
    return all;
}

LogEnds::Wanted
LogEnds::OneOf(const std::vector<kafka::TopicMetadata> &topics, const std::string &topic,
               int32_t partition)
{
    Wanted wanted = {topic, partition, -1, "it does not exist (UNKNOWN_TOPIC_OR_PART)"};
    for (const kafka::TopicMetadata &entry : topics) {
        if (entry.topic != topic)
            continue;
        if (!entry.error_name.empty())
            wanted.trouble = "it cannot be read (" + entry.error_name + ")";
        if (partition >= entry.partition_count)
            continue;
        wanted.leader = entry.leaders[static_cast<size_t>(partition)];
        wanted.trouble = kLeaderless;
    }
    return wanted;
}

LogEnds::Answer
LogEnds::Ask(const std::vector<Wanted> &wanted, kafka::Consumer *consumer,
             Clock::time_point asked_at, bool is_patient, int timeout_ms)
{
    std::vector<End> ends(wanted.size());
    std::map<int32_t, std::vector<size_t>> by_leader;
    for (size_t i = 0; i < wanted.size(); i++) {
        by_leader[wanted[i].leader].push_back(i);
        ends[i].trouble = wanted[i].trouble;
    }
    by_leader.erase(-1);
    for (const auto &[leader, indexes] : by_leader) {
        auto silence = silences_.find(leader);
        bool must_ask =
            silence == silences_.end() ||
            asked_at > silence->second.since +
                           std::chrono::milliseconds(is_patient ? 0 : silence->second.pause_ms);
        if (must_ask)
            AskLeader(leader, wanted, indexes, consumer, timeout_ms, &ends);
        else
            for (size_t i : indexes)
                ends[i].trouble = silence->second.text;
    }
    Answer answer;
    for (size_t i = 0; i < wanted.size(); i++) {
        const auto &[topic, partition, leader, trouble] = wanted[i];
        if (ends[i].trouble.empty())
            answer.watermarks.push_back({topic, partition, ends[i].marks.low, ends[i].marks.high});
        else
            answer.troubles.push_back({topic, partition, std::move(ends[i].trouble)});
    }
    return answer;
}

void
LogEnds::AskLeader(int32_t leader, const std::vector<Wanted> &wanted,
                   const std::vector<size_t> &indexes, kafka::Consumer *consumer, int timeout_ms,
                   std::vector<End> *ends)
{
    Clock::time_point deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
    std::vector<std::pair<std::string, int32_t>> names;
    for (size_t i : indexes)
        names.push_back({wanted[i].topic, wanted[i].partition});
    auto marks = consumer->QueryWatermarks(names, timeout_ms);
    for (size_t i = 0; i < indexes.size(); i++) {
        End &end = (*ends)[indexes[i]];
        end.trouble = marks[i].ok() ? "" : marks[i].message();
        if (marks[i].ok())
            end.marks = marks[i].value();
    }
    int pause_ms = silences_[leader].pause_ms;
    silences_.erase(leader);
    if (Clock::now() < deadline - kEarly)
        return;
    for (size_t i : indexes) {
        std::string *trouble = &(*ends)[i].trouble;
        if (trouble->empty())
            continue;
        *trouble =
            "broker " + std::to_string(leader) + ", its leader, does not answer: " + *trouble;
        silences_[leader] = {Clock::now(), *trouble,
                             std::clamp(2 * pause_ms, timeout_ms, kMostPauses * timeout_ms)};
    }
}

} // namespace pulse::ingest
