// What kafka::Consumer asks of the broker besides records: metadata, watermarks, offsets for times,
// and the mirror of positions in a consumer group. The asking functions block up to their timeout
// and are for the watcher's thread; mirroring never blocks and belongs to the reader.
//
// rd_kafka_query_watermark_offsets() ignores its timeout in librdkafka 2.0.2, so watermarks are
// asked for by ListOffsets. Regime: C++.
#include "kafka/consumer_impl.hpp"

#include <algorithm>
#include <chrono>

namespace pulse::kafka {

namespace {

class Deadline {
  public:
    explicit Deadline(int timeout_ms)
        : end_(std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms))
    {
    }

    // Never 0, which librdkafka takes for "don't even wait for an answer on its way".
    int LeftMs() const
    {
        auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            end_ - std::chrono::steady_clock::now());
        return static_cast<int>(std::max<int64_t>(left.count(), 1));
    }

  private:
    std::chrono::steady_clock::time_point end_;
};

std::vector<int32_t>
LeadersOf(const rd_kafka_metadata_topic &topic)
{
    std::vector<int32_t> leaders(static_cast<size_t>(topic.partition_cnt), -1);
    for (int index = 0; index < topic.partition_cnt; ++index) {
        const rd_kafka_metadata_partition &partition = topic.partitions[index];
        if (partition.id >= 0 && partition.id < topic.partition_cnt)
            leaders[static_cast<size_t>(partition.id)] = partition.leader;
    }
    return leaders;
}

// Why a question about offsets has no answer for this partition; code is what librdkafka says of
// the whole question.
Status
StatusOf(const rd_kafka_topic_partition_t &element, rd_kafka_resp_err_t code)
{
    bool is_told =
        element.err != RD_KAFKA_RESP_ERR_NO_ERROR && element.err != RD_KAFKA_RESP_ERR__IN_PROGRESS;
    if (is_told)
        return ErrorOf(std::string("could not get offsets of ") + element.topic + "/" +
                           std::to_string(element.partition),
                       element.err);
    return ErrorOf("could not get offsets",
                   code == RD_KAFKA_RESP_ERR_NO_ERROR ? RD_KAFKA_RESP_ERR__TIMED_OUT : code);
}

} // namespace

PartitionListHandle
MakeList(const std::vector<PartitionOffset> &partitions)
{
    PartitionListHandle list(
        rd_kafka_topic_partition_list_new(static_cast<int>(partitions.size())));
    for (const PartitionOffset &partition : partitions)
        rd_kafka_topic_partition_list_add(list.get(), partition.topic.c_str(), partition.partition)
            ->offset = partition.next_offset;
    return list;
}

Result<Cluster>
Consumer::DescribeCluster(int timeout_ms)
{
    Deadline deadline(timeout_ms);
    const struct rd_kafka_metadata *raw = nullptr;
    rd_kafka_resp_err_t code =
        rd_kafka_metadata(impl_->client_.get(), 0, nullptr, &raw, deadline.LeftMs());
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        return ErrorOf("could not fetch Kafka metadata", code);
    MetadataHandle metadata(raw);
    Cluster cluster;
    for (int index = 0; index < metadata->broker_cnt; ++index) {
        const rd_kafka_metadata_broker &broker = metadata->brokers[index];
        cluster.brokers.push_back(std::to_string(broker.id) + " " + broker.host + ":" +
                                  std::to_string(broker.port));
    }
    // Both came with the answer above: this does not wait any more.
    char *id = rd_kafka_clusterid(impl_->client_.get(), 0);
    if (id != nullptr)
        cluster.id = id;
    rd_kafka_mem_free(impl_->client_.get(), id);
    cluster.controller = rd_kafka_controllerid(impl_->client_.get(), 0);
    return cluster;
}

Result<std::vector<TopicMetadata>>
Consumer::FetchMetadata(const std::vector<std::string> &topics, int timeout_ms)
{
    Deadline deadline(timeout_ms);
    if (topics.empty())
        return impl_->FetchTopics(nullptr, deadline.LeftMs());
    std::vector<TopicMetadata> result;
    for (const std::string &topic : topics) {
        // A handle is only a name on this side; with allow.auto.create.topics=false asking for
        // it doesn't create the topic.
        TopicHandle handle(rd_kafka_topic_new(impl_->client_.get(), topic.c_str(), nullptr));
        if (!handle)
            return ErrorOf("could not use topic \"" + topic + "\"", rd_kafka_last_error());
        Result<std::vector<TopicMetadata>> one =
            impl_->FetchTopics(handle.get(), deadline.LeftMs());
        if (!one.ok())
            return one;
        result.insert(result.end(), one.value().begin(), one.value().end());
    }
    return result;
}

Result<std::vector<TopicMetadata>>
Consumer::Impl::FetchTopics(rd_kafka_topic_t *only, int timeout_ms)
{
    const struct rd_kafka_metadata *raw = nullptr;
    rd_kafka_resp_err_t code =
        rd_kafka_metadata(client_.get(), only == nullptr ? 1 : 0, only, &raw, timeout_ms);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        return ErrorOf("could not fetch Kafka metadata", code);
    MetadataHandle metadata(raw);
    std::vector<TopicMetadata> result;
    for (int index = 0; index < metadata->topic_cnt; ++index) {
        const rd_kafka_metadata_topic &topic = metadata->topics[index];
        result.push_back(
            {topic.topic, topic.partition_cnt, LeadersOf(topic),
             topic.err == RD_KAFKA_RESP_ERR_NO_ERROR ? "" : rd_kafka_err2name(topic.err)});
    }
    return result;
}

Result<Watermarks>
Consumer::QueryWatermarks(const std::string &topic, int32_t partition, int timeout_ms)
{
    return QueryWatermarks({{topic, partition}}, timeout_ms).front();
}

std::vector<Result<Watermarks>>
Consumer::QueryWatermarks(const std::vector<std::pair<std::string, int32_t>> &partitions,
                          int timeout_ms)
{
    Deadline deadline(timeout_ms);
    std::vector<Result<Watermarks>> result(partitions.size(), Watermarks{});
    const std::pair<int64_t, int64_t Watermarks::*> questions[] = {
        {RD_KAFKA_OFFSET_BEGINNING, &Watermarks::low},
        {RD_KAFKA_OFFSET_END, &Watermarks::high},
    };
    for (const auto &[question, answer] : questions) {
        std::vector<PartitionOffset> asked;
        for (const auto &[topic, partition] : partitions)
            asked.push_back({topic, partition, question});
        PartitionListHandle list = MakeList(asked);
        rd_kafka_resp_err_t code =
            rd_kafka_offsets_for_times(impl_->client_.get(), list.get(), deadline.LeftMs());
        for (size_t i = 0; i < partitions.size(); ++i) {
            const rd_kafka_topic_partition_t &element = *rd_kafka_topic_partition_list_find(
                list.get(), asked[i].topic.c_str(), asked[i].partition);
            // One that was answered is good, whatever became of the others.
            if (element.err == RD_KAFKA_RESP_ERR_NO_ERROR && element.offset >= 0 && result[i].ok())
                result[i].value().*answer = element.offset;
            else if (result[i].ok())
                result[i] = StatusOf(element, code);
        }
    }
    return result;
}

Status
Consumer::OffsetsForTimes(std::vector<PartitionOffset> *partitions, int timeout_ms)
{
    if (partitions->empty())
        return Status::Ok();
    Deadline deadline(timeout_ms);
    PartitionListHandle list = MakeList(*partitions);
    if (Status status = impl_->ListOffsets(list.get(), deadline.LeftMs()); !status.ok())
        return status;

    // No record at or after the time is answered by -1: ask those for their end.
    std::vector<PartitionOffset> without;
    for (int index = 0; index < list->cnt; ++index) {
        const rd_kafka_topic_partition_t &element = list->elems[index];
        if (element.offset < 0)
            without.push_back({element.topic, element.partition, RD_KAFKA_OFFSET_END});
    }
    PartitionListHandle ends = MakeList(without);
    if (!without.empty())
        if (Status status = impl_->ListOffsets(ends.get(), deadline.LeftMs()); !status.ok())
            return status;

    for (PartitionOffset &partition : *partitions) {
        for (rd_kafka_topic_partition_list_t *answers : {list.get(), ends.get()}) {
            const rd_kafka_topic_partition_t *answer = rd_kafka_topic_partition_list_find(
                answers, partition.topic.c_str(), partition.partition);
            if (answer != nullptr)
                partition.next_offset = answer->offset;
        }
    }
    return Status::Ok();
}

// Offsets are times in ms (or BEGINNING, END) on input. Keeps to its timeout.
Status
Consumer::Impl::ListOffsets(rd_kafka_topic_partition_list_t *list, int timeout_ms)
{
    rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(client_.get(), list, timeout_ms);
    for (int index = 0; index < list->cnt; ++index)
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR ||
            list->elems[index].err != RD_KAFKA_RESP_ERR_NO_ERROR)
            return StatusOf(list->elems[index], code);
    return Status::Ok();
}

Result<Found>
Consumer::ReadFrom(const PartitionOffset &start, int timeout_ms,
                   const std::function<void(const Message &)> &visit)
{
    Deadline deadline(timeout_ms);
    const std::string what =
        "could not read " + start.topic + "/" + std::to_string(start.partition);
    if (Status status = Assign({start}); !status.ok())
        return status;
    Result<Found> result =
        ErrorOf(what + " from " + std::to_string(start.next_offset), RD_KAFKA_RESP_ERR__TIMED_OUT);
    Message message;
    bool is_done = false;
    while (!is_done && impl_->Poll(deadline.LeftMs(), &message)) {
        bool is_ours = message.partition == start.partition && message.topic == start.topic;
        is_done = is_ours || message.is_too_large;
        if (message.is_too_large)
            result = Found::kTooLarge;
        else if (is_ours && message.kind == Message::Kind::kPartitionError)
            result = Status::Error(what + ": " + message.error_text);
        else if (is_ours && message.kind == Message::Kind::kRecord) {
            visit(message);
            result = Found::kRecord;
        } else if (is_ours)
            result = Found::kNothing;
    }
    impl_->message_.reset();
    (void)Assign({});
    return result;
}

Watermarks
Consumer::CachedWatermarks(const std::string &topic, int32_t partition) const
{
    Watermarks result;
    // For any other partition librdkafka would start to want it and complain that it isn't there.
    if (!impl_->IsAssigned(topic, partition))
        return result;
    int64_t low = -1;
    int64_t high = -1;
    if (rd_kafka_get_watermark_offsets(impl_->client_.get(), topic.c_str(), partition, &low,
                                       &high) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return result;
    // Not yet known is one of librdkafka's negative logical offsets.
    result.low = low < 0 ? -1 : low;
    result.high = high < 0 ? -1 : high;
    return result;
}

void
Consumer::MirrorOffsets(const std::vector<PartitionOffset> &offsets)
{
    if (impl_->config_.group_id.empty())
        return;
    for (const PartitionOffset &offset : offsets)
        if (offset.next_offset >= 0)
            impl_->unsent_mirror_[{offset.topic, offset.partition}] = offset.next_offset;
    impl_->CollectMirror();
    impl_->SendMirror();
}

// A client that does nothing else, so that a silent coordinator holds up no assignment. An admin
// request (AlterConsumerGroupOffsets) on the reading client would not either, but librdkafka, 2.0.2
// to 2.15.0, aborts the process when the coordinator's connection breaks at the wrong moment
// (assertion eonce->refcnt > 0, issues 3663 and 4605).
Status
Consumer::Impl::StartMirror()
{
    Result<ConfHandle> conf = BuildConf(config_, ClientRole::kConsumer);
    if (!conf.ok())
        return Status::Error(conf.message());
    // The reading client tells of the same brokers; what this one says is dropped.
    rd_kafka_conf_set_error_cb(conf.value().get(), [](rd_kafka_t *, int, const char *, void *) {});
    rd_kafka_conf_set_log_cb(conf.value().get(),
                             [](const rd_kafka_t *, int, const char *, const char *) {});
    Result<ClientHandle> client =
        NewClient(config_, ClientRole::kConsumer, std::move(conf.value()));
    if (!client.ok())
        return Status::Error(client.message());
    mirror_client_ = std::move(client.value());
    mirror_queue_.reset(rd_kafka_queue_new(mirror_client_.get()));
    QueueHandle main_queue(rd_kafka_queue_get_main(mirror_client_.get()));
    rd_kafka_queue_forward(main_queue.get(), mirror_queue_.get());
    (void)rd_kafka_set_log_queue(mirror_client_.get(), mirror_queue_.get());
    const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(mirror_queue_.get(), wakeup_.get(), &one, sizeof(one));
    return Status::Ok();
}

// One commit at a time; what comes meanwhile is merged and sent when the answer is there.
void
Consumer::Impl::SendMirror()
{
    if (is_mirror_sent_ || unsent_mirror_.empty())
        return;
    if (!mirror_client_) {
        Status status = StartMirror();
        if (!status.ok()) {
            events_.AddLog(7, "MIRROR", status.message().c_str());
            return;
        }
    }
    PartitionListHandle list(
        rd_kafka_topic_partition_list_new(static_cast<int>(unsent_mirror_.size())));
    for (const auto &[partition, next_offset] : unsent_mirror_)
        rd_kafka_topic_partition_list_add(list.get(), partition.first.c_str(), partition.second)
            ->offset = next_offset;
    unsent_mirror_.clear();
    rd_kafka_resp_err_t code = rd_kafka_commit_queue(mirror_client_.get(), list.get(),
                                                     mirror_queue_.get(), nullptr, nullptr);
    is_mirror_sent_ = code == RD_KAFKA_RESP_ERR_NO_ERROR;
}

void
Consumer::Impl::CollectMirror()
{
    // Asking an empty queue's length is cheap; polling one costs a system call.
    while (mirror_queue_ && rd_kafka_queue_length(mirror_queue_.get()) > 0) {
        EventHandle event(rd_kafka_queue_poll(mirror_queue_.get(), 0));
        if (!event)
            break;
        if (rd_kafka_event_type(event.get()) != RD_KAFKA_EVENT_OFFSET_COMMIT)
            continue;
        is_mirror_sent_ = false;
        if (rd_kafka_event_error(event.get()) != RD_KAFKA_RESP_ERR_NO_ERROR)
            events_.AddLog(7, "MIRROR", rd_kafka_event_error_string(event.get()));
        SendMirror();
    }
}

} // namespace pulse::kafka
