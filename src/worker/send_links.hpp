// The sender's connections to Kafka: an idempotent producer for each set of connection settings,
// opened when something is to be sent and closed when nothing was for a while, on a thread of its
// own because that may take as long as the network likes. Regime: C++.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ingest/aside.hpp"
#include "kafka/producer.hpp"
#include "worker/config.hpp"

namespace pulse::worker {

struct SendLink {
    ConnectionSettings connection;
    kafka::Sending sending;
    ingest::AsidePtr<kafka::Producer> producer;
    uint64_t secrets_digest = 0;
    int64_t used_at_us = 0;
    std::string trouble; // the last error, until something is delivered
};

class SendLinks {
  public:
    SendLinks();

    // Readable when some producer has something to say.
    int fd() const { return epoll_fd_; }

    bool IsOpen(const ConnectionSettings &connection, kafka::Sending sending) const;
    // Opens it unless it is open. Stays where it is until Close().
    Result<SendLink *> Get(const ConnectionSettings &connection, kafka::Sending sending);
    // What the producer has not reported is not known any more.
    void Close(SendLink *link);

    // Delivery reports that arrived; errors are kept as the link's trouble.
    void Poll(SendLink *link, std::vector<kafka::DeliveryReport> *reports);
    bool HaveSecretsChanged(const SendLink &link) const;
    const std::vector<std::unique_ptr<SendLink>> &all() const { return links_; }

  private:
    const int epoll_fd_;
    std::vector<std::unique_ptr<SendLink>> links_;
};

} // namespace pulse::worker
