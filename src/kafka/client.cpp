#include "kafka/client.hpp"

#include <cerrno>
#include <cstring>
#include <sys/eventfd.h>

namespace pulse::kafka {

Client::Client(ClientRole role) : wakeup_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), role_(role) {}

Client::~Client()
{
    // The descriptor must not be written to while the client is being torn down.
    if (queue_)
        rd_kafka_queue_io_event_enable(queue_.get(), -1, nullptr, 0);
    // Nobody reads what it says from here on, and taking it down may take long.
    if (client_)
        rd_kafka_set_log_level(client_.get(), 0);
}

void
Client::ClearWakeup()
{
    eventfd_t count = 0;
    (void)eventfd_read(wakeup_.get(), &count);
}

Status
Client::Prepare() const
{
    if (wakeup_.get() < 0)
        return Status::Error(std::string("could not create an eventfd: ") + std::strerror(errno));
    return CheckLibraryVersion();
}

Status
Client::Open(const Config &config, void (*adjust)(rd_kafka_conf_t *conf))
{
    Result<ConfHandle> conf = BuildConf(config, role_);
    if (!conf.ok())
        return Status::Error(conf.message());
    rd_kafka_conf_set_opaque(conf.value().get(), this);
    rd_kafka_conf_set_error_cb(conf.value().get(), OnError);
    rd_kafka_conf_set_log_cb(conf.value().get(), OnLog);
    if (adjust != nullptr)
        adjust(conf.value().get());
    Result<ClientHandle> client = NewClient(config, role_, std::move(conf.value()));
    if (!client.ok())
        return Status::Error(client.message());
    client_ = std::move(client.value());

    bool is_consumer = role_ == ClientRole::kConsumer;
    queue_.reset(is_consumer ? rd_kafka_queue_get_consumer(client_.get())
                             : rd_kafka_queue_get_main(client_.get()));
    if (!queue_)
        return Status::Error("could not get the Kafka client's queue");
    const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(queue_.get(), wakeup_.get(), &one, sizeof(one));
    rd_kafka_resp_err_t code =
        is_consumer ? rd_kafka_poll_set_consumer(client_.get()) : RD_KAFKA_RESP_ERR_NO_ERROR;
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        code = rd_kafka_set_log_queue(client_.get(), queue_.get());
    return code == RD_KAFKA_RESP_ERR_NO_ERROR
               ? Status::Ok()
               : ErrorOf("could not set up the Kafka client's queues", code);
}

// Both callbacks run inside a poll: errors come through the main queue, logs through the log queue,
// and both are forwarded to queue_.
void
Client::OnError(rd_kafka_t *client, int code, const char *reason, void *opaque) noexcept
{
    auto *self = static_cast<Client *>(opaque);
    char fatal_reason[512] = "";
    bool is_fatal = code == RD_KAFKA_RESP_ERR__FATAL;
    auto cause = static_cast<rd_kafka_resp_err_t>(code);
    if (is_fatal) {
        cause = rd_kafka_fatal_error(client, fatal_reason, sizeof(fatal_reason));
        reason = fatal_reason;
    }
    self->events_.AddError(cause, rd_kafka_err2name(cause), reason, is_fatal);
    if (self->is_waiting_)
        rd_kafka_queue_yield(self->queue_.get());
}

void
Client::OnLog(const rd_kafka_t *client, int level, const char *facility, const char *text) noexcept
{
    if (client == nullptr) // a warning about the configuration itself, before there is a client
        return;
    auto *self = static_cast<Client *>(rd_kafka_opaque(client));
    self->events_.AddLog(level, facility, text);
    if (self->is_waiting_)
        rd_kafka_queue_yield(self->queue_.get());
}

Status
ErrorOf(const std::string &what, rd_kafka_resp_err_t code)
{
    return Status::Error(what + ": " + rd_kafka_err2str(code) + " (" + rd_kafka_err2name(code) +
                         ")");
}

} // namespace pulse::kafka
