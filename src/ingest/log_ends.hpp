// Where the logs of partitions begin and end, asked of each leader by itself: a partition that has
// none, or whose leader is away, costs the others an occasional wait. Regime: C++, one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kafka/consumer.hpp"

namespace pulse::ingest {

// Librdkafka may give a question up that much before its time.
constexpr std::chrono::milliseconds kEarly(100);

struct PartitionWatermarks {
    std::string topic;
    int32_t partition;
    int64_t low;
    int64_t high;
};

// A partition that could not be asked about.
struct PartitionTrouble {
    std::string topic;
    int32_t partition;
    std::string text;
};

std::string Describe(const PartitionTrouble &trouble);

// Of one client, for it remembers which leaders let it wait in vain.
class LogEnds {
  public:
    using Clock = std::chrono::steady_clock;

    struct Wanted {
        std::string topic;
        int32_t partition;
        int32_t leader;      // -1 = none
        std::string trouble; // why it cannot be asked about, if there is none
    };
    // Each partition is in one of the lists, in the order of the question.
    struct Answer {
        std::vector<PartitionWatermarks> watermarks;
        std::vector<PartitionTrouble> troubles;
    };

    // The partitions that metadata has of the topics.
    static std::vector<Wanted> AllOf(const std::vector<kafka::TopicMetadata> &topics);
    // This one, whether metadata has it or not.
    static Wanted OneOf(const std::vector<kafka::TopicMetadata> &topics, const std::string &topic,
                        int32_t partition);

    // Blocks: up to timeout_ms for each leader that does not answer. One that let a question wait
    // in vain is not asked again for those who came before that, nor for those who are not patient
    // within timeout_ms, then twice that, up to four times.
    Answer Ask(const std::vector<Wanted> &wanted, kafka::Consumer *consumer,
               Clock::time_point asked_at, bool is_patient, int timeout_ms);

  private:
    struct Silence {
        Clock::time_point since;
        std::string text;
        int pause_ms = 0;
    };
    struct End {
        kafka::Watermarks marks;
        std::string trouble; // empty: marks are known
    };

    void AskLeader(int32_t leader, const std::vector<Wanted> &wanted,
                   const std::vector<size_t> &indexes, kafka::Consumer *consumer, int timeout_ms,
                   std::vector<End> *ends);

    std::map<int32_t, Silence> silences_; // by leader
};

} // namespace pulse::ingest
