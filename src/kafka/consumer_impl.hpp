// What stands behind kafka::Consumer, shared by consumer.cpp (assignment and Poll) and
// consumer_queries.cpp (everything asked of the broker) and by nobody else.
// Regime: C++; used by one thread, so there is no lock.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kafka/client.hpp"
#include "kafka/consumer.hpp"

namespace pulse::kafka {

class Consumer::Impl : public Client {
  public:
    Impl() : Client(ClientRole::kConsumer) {}
    ~Impl();

    Status Start(const Config &config);
    bool Poll(int timeout_ms, Message *message);
    Status Assign(const std::vector<PartitionOffset> &partitions);
    bool IsAssigned(const std::string &topic, int32_t partition) const;
    Status StartMirror();
    void SendMirror();
    void CollectMirror();
    Result<std::vector<TopicMetadata>> FetchTopics(rd_kafka_topic_t *only, int timeout_ms);
    Status ListOffsets(rd_kafka_topic_partition_list_t *list, int timeout_ms);

    // Order matters: see handles.hpp.
    ClientHandle mirror_client_; // made when the first position is mirrored
    QueueHandle mirror_queue_;
    std::vector<QueueHandle> partition_queues_; // of what is assigned
    MessageHandle message_;

    std::vector<PartitionOffset> assigned_;
    std::string event_topic_; // what the last event's Message::topic looks at
    Config config_;           // with an empty group_id positions are mirrored nowhere
    bool is_mirror_sent_ = false;
    std::map<std::pair<std::string, int32_t>, int64_t> unsent_mirror_;

  private:
    void Unassign();
    void AwaitStops();
    void Fill(const rd_kafka_message_t *raw, Message *message);
    void FillHeaders(const rd_kafka_message_t *raw, Message *message);
    void FillError(const rd_kafka_message_t *raw, Message *message);
    bool PopEvent(Message *message);
    void NamePartition(Message *message);
};

PartitionListHandle MakeList(const std::vector<PartitionOffset> &partitions);

} // namespace pulse::kafka
