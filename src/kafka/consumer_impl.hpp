// What stands behind kafka::Consumer, shared by consumer.cpp (assignment and Poll) and
// consumer_queries.cpp (everything asked of the broker) and by nobody else.
// Regime: C++; used by one thread, so there is no lock.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kafka/consumer.hpp"
#include "kafka/events.hpp"
#include "kafka/handles.hpp"

namespace pulse::kafka {

class Consumer::Impl {
  public:
    explicit Impl(int eventfd) : wakeup_(eventfd) {}
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

    static void OnError(rd_kafka_t *client, int code, const char *reason, void *opaque) noexcept;
    static void OnLog(const rd_kafka_t *client, int level, const char *facility,
                      const char *text) noexcept;

    // Order matters: see handles.hpp.
    ClientEvents events_;
    FileDescriptor wakeup_;
    ClientHandle client_;
    QueueHandle queue_;
    ClientHandle mirror_client_; // made when the first position is mirrored
    QueueHandle mirror_queue_;
    std::vector<QueueHandle> partition_queues_; // of what is assigned
    MessageHandle message_;

    std::vector<PartitionOffset> assigned_;
    std::string event_topic_; // what the last event's Message::topic looks at
    bool is_waiting_ = false; // inside a poll that may block
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

Status ErrorOf(const std::string &what, rd_kafka_resp_err_t code);

PartitionListHandle MakeList(const std::vector<PartitionOffset> &partitions);

} // namespace pulse::kafka
