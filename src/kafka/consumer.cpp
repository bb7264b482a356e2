// The consumer over librdkafka's C API: assign() only, one queue, everything through Poll().
// Called by the reader thread, which is its only user after Create(); Create() itself may run on
// another thread, librdkafka's own threads always run with every signal blocked.
//
// Three defects of librdkafka 2.0.2 shape it. Assigning again too early aborts the process, so
// Assign() waits until the last one is through (AwaitStops). A deleted partition can make
// destruction wait for ever (Unassign). And an outstanding rd_kafka_commit() holds up every later
// assignment until the coordinator answers, so positions are mirrored by a client of their own
// (consumer_queries.cpp). Regime: C++; nothing is thrown across a callback.
#include "kafka/consumer.hpp"

#include <algorithm>

#include "kafka/consumer_impl.hpp"

namespace pulse::kafka {

namespace {

std::string_view
View(const void *bytes, size_t length)
{
    if (bytes == nullptr)
        return {};
    return {static_cast<const char *>(bytes), length};
}

} // namespace

Result<std::unique_ptr<Consumer>>
Consumer::Create(const Config &config)
{
    auto impl = Client::Make<Impl>(config);
    if (!impl.ok())
        return Status::Error(impl.message());
    return std::unique_ptr<Consumer>(new Consumer(std::move(impl.value())));
}

Consumer::Consumer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Consumer::~Consumer() = default;

Status
Consumer::Assign(const std::vector<PartitionOffset> &partitions)
{
    for (const PartitionOffset &partition : partitions)
        if (partition.next_offset < 0)
            return Status::Error("could not assign " + partition.topic + "/" +
                                 std::to_string(partition.partition) + ": no absolute offset");
    return impl_->Assign(partitions);
}

bool
Consumer::Poll(int timeout_ms, Message *message)
{
    return impl_->Poll(timeout_ms, message);
}

int
Consumer::wakeup_fd() const
{
    return impl_->wakeup_.get();
}

void
Consumer::ClearWakeup()
{
    impl_->ClearWakeup();
}

// Whatever still refers to a partition that has been deleted meanwhile makes the destruction of the
// client wait for ever, so nothing may: no assignment, no message, nothing in a queue.
Consumer::Impl::~Impl()
{
    if (mirror_queue_) // as ~Client() does for the others
        rd_kafka_queue_io_event_enable(mirror_queue_.get(), -1, nullptr, 0);
    // Destroying a client waits, busily, until its commit is answered or given up after 45 s: that
    // one is left alone. Only tests come here (see the header).
    if (is_mirror_sent_) {
        (void)mirror_queue_.release();
        (void)mirror_client_.release();
    }
    message_.reset();
    if (!client_)
        return;
    Unassign();
    while (MessageHandle(rd_kafka_consumer_poll(client_.get(), 0))) {
    }
}

Status
Consumer::Impl::Start(const Config &config)
{
    config_ = config;
    return Open(config);
}

bool
Consumer::Impl::Poll(int timeout_ms, Message *message)
{
    message_.reset();
    CollectMirror();
    if (PopEvent(message))
        return true;
    is_waiting_ = timeout_ms != 0;
    message_.reset(rd_kafka_consumer_poll(client_.get(), timeout_ms));
    is_waiting_ = false;
    if (!message_)
        return PopEvent(message);
    Fill(message_.get(), message);
    return true;
}

void
Consumer::Impl::Fill(const rd_kafka_message_t *raw, Message *message)
{
    message->topic = raw->rkt != nullptr ? rd_kafka_topic_name(raw->rkt) : std::string_view();
    message->partition = raw->partition;
    message->offset = raw->offset;
    message->broker = rd_kafka_message_broker_id(raw);
    message->headers.clear();
    message->error_code = raw->err;
    message->is_fatal = false;
    message->is_out_of_range = false;
    message->is_damaged = false;
    if (raw->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        FillError(raw, message);
        return;
    }
    message->kind = Message::Kind::kRecord;
    message->error_name.clear();
    message->error_text.clear();
    rd_kafka_timestamp_type_t type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    int64_t timestamp_ms = rd_kafka_message_timestamp(raw, &type);
    message->timestamp_ms = type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? -1 : timestamp_ms;
    message->is_log_append_time = type == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME;
    message->key = View(raw->key, raw->key_len);
    message->value = View(raw->payload, raw->len);
    FillHeaders(raw, message);
}

void
Consumer::Impl::FillHeaders(const rd_kafka_message_t *raw, Message *message)
{
    rd_kafka_headers_t *headers = nullptr;
    if (rd_kafka_message_headers(raw, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    const char *name = nullptr;
    const void *value = nullptr;
    size_t length = 0;
    for (size_t index = 0; rd_kafka_header_get_all(headers, index, &name, &value, &length) ==
                           RD_KAFKA_RESP_ERR_NO_ERROR;
         ++index)
        message->headers.push_back({name, View(value, length)});
}

void
Consumer::Impl::FillError(const rd_kafka_message_t *raw, Message *message)
{
    message->timestamp_ms = -1;
    message->is_log_append_time = false;
    message->key = {};
    message->value = {};
    message->error_name = rd_kafka_err2name(raw->err);
    const char *text = rd_kafka_message_errstr(raw);
    message->error_text = text != nullptr ? text : rd_kafka_err2str(raw->err);
    if (raw->offset < 0)
        message->offset = -1;

    // An error without a partition has partition 0 and no topic.
    if (raw->rkt != nullptr && raw->partition >= 0) {
        message->kind = raw->err == RD_KAFKA_RESP_ERR__PARTITION_EOF
                            ? Message::Kind::kEndOfPartition
                            : Message::Kind::kPartitionError;
        message->is_out_of_range = raw->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
                                   raw->err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
        message->is_damaged = raw->err == RD_KAFKA_RESP_ERR__BAD_MSG;
        message->severity = message->kind == Message::Kind::kEndOfPartition ? 6 : 3;
        return;
    }
    message->kind = Message::Kind::kClientError;
    message->partition = -1;
    message->severity = 3;
    char reason[512] = "";
    rd_kafka_resp_err_t cause = rd_kafka_fatal_error(client_.get(), reason, sizeof(reason));
    if (raw->err == RD_KAFKA_RESP_ERR__FATAL && cause != RD_KAFKA_RESP_ERR_NO_ERROR) {
        message->is_fatal = true;
        message->error_code = cause;
        message->error_name = rd_kafka_err2name(cause);
        message->error_text = reason;
        message->severity = 2;
    }
}

bool
Consumer::Impl::PopEvent(Message *message)
{
    ClientEvent event;
    if (events_.empty() || !events_.Pop(&event))
        return false;
    *message = Message();
    message->kind = event.is_log ? Message::Kind::kLog : Message::Kind::kClientError;
    message->error_code = event.error_code;
    message->error_name = std::move(event.name);
    message->error_text = std::move(event.text);
    message->is_fatal = event.is_fatal;
    // Whatever is no Kafka broker has a first answer of a strange size too, but is never up.
    message->is_too_large =
        event.error_code == RD_KAFKA_RESP_ERR__BAD_MSG &&
        message->error_text.find("receive.message.max.bytes") != std::string::npos &&
        message->error_text.find("in state UP") != std::string::npos;
    message->severity = event.severity;
    if (!event.is_log)
        NamePartition(message);
    return true;
}

// That a partition isn't there (topic deleted, say) comes as a client's error and tells which one
// only in its text, "topic [0]: reason".
void
Consumer::Impl::NamePartition(Message *message)
{
    for (const PartitionOffset &partition : assigned_) {
        std::string prefix = partition.topic + " [" + std::to_string(partition.partition) + "]: ";
        if (message->error_text.compare(0, prefix.size(), prefix) != 0)
            continue;
        event_topic_ = partition.topic;
        message->kind = Message::Kind::kPartitionError;
        message->topic = event_topic_;
        message->partition = partition.partition;
        return;
    }
}

Status
Consumer::Impl::Assign(const std::vector<PartitionOffset> &partitions)
{
    Unassign();
    if (partitions.empty())
        return Status::Ok();
    PartitionListHandle list = MakeList(partitions);
    rd_kafka_resp_err_t code = rd_kafka_assign(client_.get(), list.get());
    AwaitStops();
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        return ErrorOf("could not assign partitions", code);
    assigned_ = partitions;
    for (const PartitionOffset &partition : partitions)
        partition_queues_.emplace_back(rd_kafka_queue_get_partition(
            client_.get(), partition.topic.c_str(), partition.partition));
    return Status::Ok();
}

// librdkafka raises each partition's version, and Poll() skips what was fetched under an older one.
// What stays behind in a stopped partition's own queue refers to that partition; if the partition
// has been deleted, librdkafka before 2.6.1 never gets rid of either (pull request 4724).
void
Consumer::Impl::Unassign()
{
    if (assigned_.empty())
        return;
    (void)rd_kafka_assign(client_.get(), nullptr);
    AwaitStops();
    for (const QueueHandle &queue : partition_queues_)
        while (queue && EventHandle(rd_kafka_queue_poll(queue.get(), 0))) {
        }
    partition_queues_.clear();
    assigned_.clear();
}

// Assigning or destroying while partitions of an earlier assignment are still being stopped aborts
// the process: librdkafka (2.0.2 to 2.15.0, issue 5573) stops them a second time and asserts on the
// second reply. Its main thread serves one queue in order: behind our assign() come the stops, and
// behind those their replies. So once the second of two requests is answered, all have been served.
void
Consumer::Impl::AwaitStops()
{
    for (int round_trip = 0; round_trip < 2; ++round_trip) {
        rd_kafka_topic_partition_list_t *list = nullptr;
        (void)rd_kafka_assignment(client_.get(), &list);
        PartitionListHandle unused(list);
    }
}

bool
Consumer::Impl::IsAssigned(const std::string &topic, int32_t partition) const
{
    return std::any_of(assigned_.begin(), assigned_.end(), [&](const PartitionOffset &assigned) {
        return assigned.partition == partition && assigned.topic == topic;
    });
}

int
LibraryVersion()
{
    return rd_kafka_version();
}

} // namespace pulse::kafka
