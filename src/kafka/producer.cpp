// The producer over librdkafka's C API. Delivery reports, errors and log lines all come through the
// main queue and are recorded by callbacks that run inside Poll(), on the caller's thread.
//
// rd_kafka_producev() and not rd_kafka_produceva(): in librdkafka 2.0.2 the latter frees the
// headers twice when the partition doesn't exist. Regime: C++; nothing is thrown across a callback.
#include "kafka/producer.hpp"

#include "kafka/client.hpp"

namespace pulse::kafka {

class Producer::Impl : public Client {
  public:
    Impl() : Client(ClientRole::kProducer) {}

    Status Start(const Config &config)
    {
        return Open(config,
                    [](rd_kafka_conf_t *conf) { rd_kafka_conf_set_dr_msg_cb(conf, OnDelivery); });
    }

    static void OnDelivery(rd_kafka_t *client, const rd_kafka_message_t *message,
                           void *opaque) noexcept;

    std::vector<DeliveryReport> *reports_ = nullptr; // set inside Poll() only
    bool has_lost_report_ = false; // no memory for one: nothing is certain any more
};

Result<std::unique_ptr<Producer>>
Producer::Create(const Config &config)
{
    auto impl = Client::Make<Impl>(config);
    if (!impl.ok())
        return Status::Error(impl.message());
    return std::unique_ptr<Producer>(new Producer(std::move(impl.value())));
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
    HeadersHandle headers(record.headers.empty() ? nullptr
                                                 : rd_kafka_headers_new(record.headers.size()));
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
    impl_->ClearWakeup();
}

void
Producer::Impl::OnDelivery(rd_kafka_t *, const rd_kafka_message_t *message, void *opaque) noexcept
{
    auto *self = static_cast<Impl *>(static_cast<Client *>(opaque));
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

} // namespace pulse::kafka
