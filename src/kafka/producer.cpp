// The producer over librdkafka's C API. Delivery reports, errors and log lines all come through the
// main queue and are recorded by callbacks that run inside Poll(), on the caller's thread.
//
// rd_kafka_producev() and not rd_kafka_produceva(): in librdkafka 2.0.2 the latter frees the
// headers twice when the partition doesn't exist. Regime: C++; nothing is thrown across a callback.
#include "kafka/producer.hpp"

#include <cerrno>
#include <cstring>
#include <sys/eventfd.h>

#include "kafka/handles.hpp"

namespace pulse::kafka {

class Producer::Impl {
  public:
    explicit Impl(int eventfd) : wakeup_(eventfd) {}
    ~Impl();

    Status Start(const Config &config);

    static void OnDelivery(rd_kafka_t *client, const rd_kafka_message_t *message,
                           void *opaque) noexcept;
    static void OnError(rd_kafka_t *client, int code, const char *reason, void *opaque) noexcept;
    static void OnLog(const rd_kafka_t *client, int level, const char *facility,
                      const char *text) noexcept;

    // Order matters: see handles.hpp.
    ClientEvents events_;
    std::vector<DeliveryReport> *reports_ = nullptr; // set inside Poll() only
    bool has_lost_report_ = false; // no memory for one: nothing is certain any more
    FileDescriptor wakeup_;
    ClientHandle client_;
    QueueHandle queue_;
};

Result<std::unique_ptr<Producer>>
Producer::Create(const Config &config)
{
    if (Status status = CheckLibraryVersion(); !status.ok())
        return status;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        return Status::Error(std::string("could not create an eventfd: ") + std::strerror(errno));
    auto impl = std::make_unique<Impl>(fd);
    if (Status status = impl->Start(config); !status.ok())
        return status;
    return std::unique_ptr<Producer>(new Producer(std::move(impl)));
}

Producer::Producer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Producer::~Producer() = default;

Producer::Outcome
Producer::Produce(const OutgoingRecord &record, std::string *reason)
{
    if (std::string fatal = FatalError(); !fatal.empty()) {
        if (reason != nullptr)
            *reason = std::move(fatal);
        return Outcome::kFatal;
    }
    HeadersHandle headers(rd_kafka_headers_new(record.headers.size()));
    for (const Header &header : record.headers)
        rd_kafka_header_add(headers.get(), header.key.data(),
                            static_cast<ssize_t>(header.key.size()), header.value.data(),
                            static_cast<ssize_t>(header.value.size()));
    // The casts only satisfy the C interface: with F_COPY the bytes are copied and not written to.
    rd_kafka_resp_err_t code = rd_kafka_producev(
        impl_->client_.get(), RD_KAFKA_V_TOPIC(record.topic.c_str()),
        RD_KAFKA_V_PARTITION(record.partition), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY(record.key.data(), record.key.size()),
        RD_KAFKA_V_VALUE(const_cast<char *>(record.value.data()), record.value.size()),
        RD_KAFKA_V_HEADERS(headers.get()), RD_KAFKA_V_TIMESTAMP(record.timestamp_ms),
        RD_KAFKA_V_OPAQUE(reinterpret_cast<void *>(static_cast<uintptr_t>(record.id))),
        RD_KAFKA_V_END);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
        (void)headers.release(); // they belong to the queued record now
        return Outcome::kQueued;
    }
    if (reason != nullptr)
        *reason = std::string(rd_kafka_err2str(code)) + " (" + rd_kafka_err2name(code) + ")";
    if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL)
        return Outcome::kQueueFull;
    return code == RD_KAFKA_RESP_ERR__FATAL ? Outcome::kFatal : Outcome::kRefused;
}

void
Producer::Poll(int timeout_ms, std::vector<DeliveryReport> *reports)
{
    impl_->reports_ = reports;
    rd_kafka_poll(impl_->client_.get(), timeout_ms);
    impl_->reports_ = nullptr;
}

bool
Producer::PopEvent(ClientEvent *event)
{
    return impl_->events_.Pop(event);
}

int
Producer::outstanding() const
{
    return rd_kafka_outq_len(impl_->client_.get());
}

std::string
Producer::FatalError() const
{
    char reason[512] = "";
    rd_kafka_resp_err_t code = rd_kafka_fatal_error(impl_->client_.get(), reason, sizeof(reason));
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        return std::string(rd_kafka_err2name(code)) + ": " + reason;
    return impl_->has_lost_report_ ? "out of memory: a delivery report was lost" : "";
}

int
Producer::wakeup_fd() const
{
    return impl_->wakeup_.get();
}

void
Producer::ClearWakeup()
{
    eventfd_t count = 0;
    (void)eventfd_read(impl_->wakeup_.get(), &count);
}

Producer::Impl::~Impl()
{
    // The descriptor must not be written to while the client is being torn down.
    if (queue_)
        rd_kafka_queue_io_event_enable(queue_.get(), -1, nullptr, 0);
}

Status
Producer::Impl::Start(const Config &config)
{
    Result<ConfHandle> conf = BuildConf(config, ClientRole::kProducer);
    if (!conf.ok())
        return Status::Error(conf.message());
    rd_kafka_conf_set_opaque(conf.value().get(), this);
    rd_kafka_conf_set_dr_msg_cb(conf.value().get(), OnDelivery);
    rd_kafka_conf_set_error_cb(conf.value().get(), OnError);
    rd_kafka_conf_set_log_cb(conf.value().get(), OnLog);

    Result<ClientHandle> client = NewClient(config, ClientRole::kProducer, std::move(conf.value()));
    if (!client.ok())
        return Status::Error(client.message());
    client_ = std::move(client.value());
    queue_.reset(rd_kafka_queue_get_main(client_.get()));
    const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(queue_.get(), wakeup_.get(), &one, sizeof(one));
    rd_kafka_resp_err_t code = rd_kafka_set_log_queue(client_.get(), nullptr);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        return Status::Error(std::string("could not set up the Kafka producer's queue: ") +
                             rd_kafka_err2str(code));
    return Status::Ok();
}

void
Producer::Impl::OnDelivery(rd_kafka_t *, const rd_kafka_message_t *message, void *opaque) noexcept
{
    auto *self = static_cast<Impl *>(opaque);
    try {
        DeliveryReport report;
        report.id = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(message->_private));
        report.is_delivered = message->err == RD_KAFKA_RESP_ERR_NO_ERROR;
        report.may_be_stored = !report.is_delivered && rd_kafka_message_status(message) !=
                                                           RD_KAFKA_MSG_STATUS_NOT_PERSISTED;
        report.partition = message->partition;
        report.offset = message->offset >= 0 ? message->offset : -1;
        if (!report.is_delivered) {
            report.error_code = message->err;
            report.error_name = rd_kafka_err2name(message->err);
            report.error_text = rd_kafka_err2str(message->err);
        }
        self->reports_->push_back(std::move(report));
    } catch (...) {
        self->has_lost_report_ = true;
    }
}

void
Producer::Impl::OnError(rd_kafka_t *client, int code, const char *reason, void *opaque) noexcept
{
    auto *self = static_cast<Impl *>(opaque);
    char fatal_reason[512] = "";
    bool is_fatal = code == RD_KAFKA_RESP_ERR__FATAL;
    auto cause = static_cast<rd_kafka_resp_err_t>(code);
    if (is_fatal) {
        cause = rd_kafka_fatal_error(client, fatal_reason, sizeof(fatal_reason));
        reason = fatal_reason;
    }
    self->events_.AddError(cause, rd_kafka_err2name(cause), reason, is_fatal);
}

void
Producer::Impl::OnLog(const rd_kafka_t *client, int level, const char *facility,
                      const char *text) noexcept
{
    if (client != nullptr) // else a warning about the configuration itself
        static_cast<Impl *>(rd_kafka_opaque(client))->events_.AddLog(level, facility, text);
}

} // namespace pulse::kafka
