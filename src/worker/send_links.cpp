#include "worker/send_links.hpp"

#include <algorithm>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.hpp"

namespace pulse::worker {

namespace {

uint64_t
DigestOf(const std::string &secrets_file)
{
    if (secrets_file.empty())
        return 0;
    auto digest = kafka::SecretsDigest(secrets_file);
    return digest.ok() ? digest.value() : 0;
}

} // namespace

SendLinks::SendLinks() : epoll_fd_(epoll_create1(EPOLL_CLOEXEC)) {}

bool
SendLinks::IsOpen(const ConnectionSettings &connection, kafka::Sending sending) const
{
    return std::any_of(links_.begin(), links_.end(), [&](const auto &link) {
        return link->connection == connection && link->sending == sending;
    });
}

Result<SendLink *>
SendLinks::Get(const ConnectionSettings &connection, kafka::Sending sending)
{
    for (const auto &link : links_)
        if (link->connection == connection && link->sending == sending)
            return link.get();
    auto link = std::make_unique<SendLink>();
    link->connection = connection;
    link->sending = sending;
    link->secrets_digest = DigestOf(connection.secrets_file); // before they are read
    link->used_at_us = WallClockUs();
    auto config = ConnectionConfig(connection, "pulse-sender-" + std::to_string(getpid()));
    if (!config.ok())
        return Status::Error(config.message());
    config.value().sending = sending;
    auto producer = kafka::Producer::Create(config.value());
    if (!producer.ok())
        return Status::Error(producer.message());
    link->producer.reset(producer.value().release());
    epoll_event event{};
    event.events = EPOLLIN;
    if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, link->producer->wakeup_fd(), &event) != 0)
        return Status::Error("could not wait for the Kafka client: epoll_ctl failed");
    links_.push_back(std::move(link));
    return links_.back().get();
}

void
SendLinks::Close(SendLink *link)
{
    // While it is being taken down it may still raise its descriptor.
    (void)epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, link->producer->wakeup_fd(), nullptr);
    std::erase_if(links_, [link](const auto &other) { return other.get() == link; });
}

void
SendLinks::Poll(SendLink *link, std::vector<kafka::DeliveryReport> *reports)
{
    link->producer->ClearWakeup();
    link->producer->Poll(0, reports);
    for (kafka::ClientEvent event; link->producer->PopEvent(&event);)
        if (!event.is_log)
            link->trouble = event.text + " (" + event.name + ")";
    bool has_delivered = std::any_of(reports->begin(), reports->end(),
                                     [](const auto &report) { return report.is_delivered; });
    if (has_delivered)
        link->trouble.clear();
}

bool
SendLinks::HaveSecretsChanged(const SendLink &link) const
{
    uint64_t digest = DigestOf(link.connection.secrets_file);
    return digest != 0 && digest != link.secrets_digest; // a file half way through changes nothing
}

} // namespace pulse::worker
