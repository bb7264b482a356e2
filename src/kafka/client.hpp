// What Consumer and Producer have in common: one librdkafka client, the queue that everything it
// has to say comes through, and a descriptor that tells when something did. Included by the .cpp
// files of src/kafka only. Regime: C++; used by one thread, so there is no lock.
#pragma once

#include <memory>

#include "kafka/events.hpp"
#include "kafka/handles.hpp"

namespace pulse::kafka {

class Client {
  public:
    // T: a Client with a Start(config), on the heap, because callbacks point at it.
    template <typename T> static Result<std::unique_ptr<T>> Make(const Config &config)
    {
        auto client = std::make_unique<T>();
        if (Status status = client->Prepare(); !status.ok())
            return status;
        if (Status status = client->Start(config); !status.ok())
            return status;
        return client;
    }

    void ClearWakeup();

    // Order matters: see handles.hpp.
    ClientEvents events_;
    FileDescriptor wakeup_;
    ClientHandle client_;
    QueueHandle queue_;
    bool is_waiting_ = false; // inside a poll that may block: an event ends it

  protected:
    explicit Client(ClientRole role);
    ~Client();
    Client(const Client &) = delete;
    Client &operator=(const Client &) = delete;

    // adjust: further settings of the configuration, or null. The opaque pointer is this Client.
    Status Open(const Config &config, void (*adjust)(rd_kafka_conf_t *conf) = nullptr);

  private:
    Status Prepare() const;
    static void OnError(rd_kafka_t *client, int code, const char *reason, void *opaque) noexcept;
    static void OnLog(const rd_kafka_t *client, int level, const char *facility,
                      const char *text) noexcept;

    ClientRole role_;
};

Status ErrorOf(const std::string &what, rd_kafka_resp_err_t code);

} // namespace pulse::kafka
