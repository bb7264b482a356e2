// Owners of what librdkafka's C API hands out, and the one way to make a client configuration.
// Included by the .cpp files of src/kafka only, since it includes rdkafka.h. Regime: C++.
//
// In a class that holds several of these, members are destroyed in reverse order of declaration,
// and librdkafka demands: message before queue, queue before client, client before whatever its
// callbacks or its wake-up descriptor point at. So declare: callback target, descriptor, client,
// queue, message.
#pragma once

#include <memory>
#include <unistd.h>

#include <librdkafka/rdkafka.h>

#include "base/result.hpp"
#include "kafka/config.hpp"

namespace pulse::kafka {

template <auto Destroy> struct Deleter {
    template <typename T> void operator()(T *handle) const { Destroy(handle); }
};

// Never rd_kafka_destroy(): for a consumer that is a consumer_close(), which can block for ever.
inline void
DestroyClient(rd_kafka_t *client)
{
    rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

inline void
DestroyMetadata(const struct rd_kafka_metadata *metadata)
{
    rd_kafka_metadata_destroy(metadata);
}

using ClientHandle = std::unique_ptr<rd_kafka_t, Deleter<DestroyClient>>;
using ConfHandle = std::unique_ptr<rd_kafka_conf_t, Deleter<rd_kafka_conf_destroy>>;
using QueueHandle = std::unique_ptr<rd_kafka_queue_t, Deleter<rd_kafka_queue_destroy>>;
using EventHandle = std::unique_ptr<rd_kafka_event_t, Deleter<rd_kafka_event_destroy>>;
using MessageHandle = std::unique_ptr<rd_kafka_message_t, Deleter<rd_kafka_message_destroy>>;
using TopicHandle = std::unique_ptr<rd_kafka_topic_t, Deleter<rd_kafka_topic_destroy>>;
using PartitionListHandle = std::unique_ptr<rd_kafka_topic_partition_list_t,
                                            Deleter<rd_kafka_topic_partition_list_destroy>>;
using MetadataHandle = std::unique_ptr<const struct rd_kafka_metadata, Deleter<DestroyMetadata>>;
using HeadersHandle = std::unique_ptr<rd_kafka_headers_t, Deleter<rd_kafka_headers_destroy>>;
using ErrorHandle = std::unique_ptr<rd_kafka_error_t, Deleter<rd_kafka_error_destroy>>;

class FileDescriptor {
  public:
    explicit FileDescriptor(int fd) : fd_(fd) {}
    ~FileDescriptor()
    {
        if (fd_ >= 0)
            close(fd_);
    }
    FileDescriptor(const FileDescriptor &) = delete;
    FileDescriptor &operator=(const FileDescriptor &) = delete;

    int get() const { return fd_; }

  private:
    int fd_;
};

enum class ClientRole { kConsumer, kProducer };

// Everything of config checked and set, then the settings the user can't override. Callbacks and
// the opaque pointer are the caller's. Errors: a message without secret values.
Result<ConfHandle> BuildConf(const Config &config, ClientRole role);

// rd_kafka_new(); takes conf over. Errors: librdkafka's reason without secret values.
Result<ClientHandle> NewClient(const Config &config, ClientRole role, ConfHandle conf);

} // namespace pulse::kafka
