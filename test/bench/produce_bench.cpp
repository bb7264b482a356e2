// How fast librdkafka by itself sends records from memory to a broker: what the simulator can be
// held against. Arguments: brokers, topic, and a file of records, each as the length of its key, the
// key, the length of its value (-1: null) and the value; lengths are 32-bit integers of this machine.
// Prints the seconds from the first record to the last delivery report; never part of a test.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include <librdkafka/rdkafka.h>

namespace {

// As the simulator's, where that makes a difference.
constexpr const char *kSettings[][2] = {
    {"enable.idempotence", "true"},
    {"acks", "all"},
    {"linger.ms", "5"},
    {"partitioner", "murmur2_random"},
};

long failed = 0;

[[noreturn]] void
Die(const char *what, const char *why)
{
    std::fprintf(stderr, "%s: %s\n", what, why);
    std::exit(1);
}

void
CountFailed(rd_kafka_t *, const rd_kafka_message_t *message, void *)
{
    failed += message->err != RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_t *
Connect(const char *brokers)
{
    char reason[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    bool is_set = rd_kafka_conf_set(conf, "bootstrap.servers", brokers, reason, sizeof(reason)) ==
                  RD_KAFKA_CONF_OK;
    for (const auto &[name, value] : kSettings)
        is_set = is_set && rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) ==
                               RD_KAFKA_CONF_OK;
    rd_kafka_conf_set_dr_msg_cb(conf, CountFailed);
    rd_kafka_t *client =
        is_set ? rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason)) : nullptr;
    if (client == nullptr)
        Die("settings", reason);
    return client;
}

class Records {
  public:
    explicit Records(const char *path)
    {
        std::ifstream file(path, std::ios::binary);
        bytes_.assign(std::istreambuf_iterator<char>(file), {});
        if (bytes_.empty())
            Die(path, "no records");
    }

    bool is_at_end() const { return at_ == bytes_.size(); }

    // nullptr for null.
    char *Next(size_t *length)
    {
        int32_t stored;
        std::memcpy(&stored, &bytes_[at_], sizeof(stored));
        at_ += sizeof(stored);
        *length = stored < 0 ? 0 : static_cast<size_t>(stored);
        char *first = stored < 0 ? nullptr : bytes_.data() + at_;
        at_ += *length;
        return first;
    }

  private:
    std::vector<char> bytes_;
    size_t at_ = 0;
};

} // namespace

int
main(int count, char **arguments)
{
    if (count != 4)
        Die("usage", "produce_bench BROKERS TOPIC FILE");
    Records records(arguments[3]);
    rd_kafka_t *client = Connect(arguments[1]);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client, arguments[2], nullptr);
    const auto began = std::chrono::steady_clock::now();
    for (int sent = 1; !records.is_at_end(); sent++) {
        size_t key_length, value_length;
        char *key = records.Next(&key_length);
        char *value = records.Next(&value_length);
        while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, value,
                                value_length, key, key_length, nullptr) != 0) {
            if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
                Die("produce", rd_kafka_err2str(rd_kafka_last_error()));
            rd_kafka_poll(client, 10);
        }
        if (sent % 256 == 0)
            rd_kafka_poll(client, 0);
    }
    if (rd_kafka_flush(client, 120'000) != RD_KAFKA_RESP_ERR_NO_ERROR || failed > 0)
        Die("produce", "records were not delivered");
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::printf("%.3f\n", took.count());
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(client);
    return 0;
}
