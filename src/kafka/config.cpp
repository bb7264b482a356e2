// Turns a Config into librdkafka settings. What users may set is an allow-list, because some
// properties load libraries, run commands, install signal handlers or probe files in the server;
// what pulse's guarantees rest on is set last and can't be set by anybody else. Called by Consumer,
// Producer and the SQL functions that store settings. Regime: C++.
#include "kafka/config.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <strings.h>

#include "kafka/handles.hpp"

namespace pulse::kafka {

namespace {

constexpr size_t kMaxClientIdBytes = 32; // a longer one can crash librdkafka 2.0.2 and others
constexpr int64_t kMinQueueBytes = 1024 * 1024;
constexpr int64_t kMaxQueueBytes = 2047LL * 1024 * 1024;
// A response is unpacked as a whole, whatever the queue holds: compressed 64 to one it is as large
// as the queue.
constexpr int64_t kQueueToFetch = 64;
constexpr int64_t kMinFetchBytes = 256 * 1024;
constexpr int64_t kMaxFetchBytes = 8 * 1024 * 1024;

enum Use : uint8_t { kBoth, kConsumerOnly, kProducerOnly };

struct Setting {
    std::string_view key;
    const char *value;
    Use use;
};

// What correctness or safety rests on. Set last; a user naming one of these is told so.
constexpr Setting kFixed[] = {
    {"enable.auto.commit", "false", kConsumerOnly},
    {"enable.auto.offset.store", "false", kConsumerOnly},
    // A lost position is an error for the operator, never a silent jump.
    {"auto.offset.reset", "error", kConsumerOnly},
    {"isolation.level", "read_committed", kConsumerOnly},
    // Off by default: corruption would be accepted as data.
    {"check.crcs", "true", kConsumerOnly},
    {"enable.partition.eof", "true", kConsumerOnly},
    {"allow.auto.create.topics", "false", kConsumerOnly},
    // queued.max.messages.kbytes counts values only: neither keys nor the 300 bytes that librdkafka
    // adds to each record. More than a second's worth, and less than 50 MB of those.
    {"queued.min.messages", "150000", kConsumerOnly},
    {"receive.message.max.bytes", "33554432", kBoth}, // must exceed fetch.max.bytes by 512
    {"message.max.bytes", "262144", kConsumerOnly},   // the least that fetch.max.bytes may be
    {"log.queue", "true", kBoth},
    {"log.thread.name", "false", kBoth},
    {"topic.metadata.refresh.interval.ms", "30000", kBoth},
    // How long a topic nobody knows is taken for one just created, without a word.
    {"topic.metadata.propagation.max.ms", "3000", kBoth},
    {"statistics.interval.ms", "0", kBoth},
    {"socket.keepalive.enable", "true", kBoth},
    {"socket.nagle.disable", "true", kBoth},
    {"enable.idempotence", "true", kProducerOnly},
    {"acks", "all", kProducerOnly},
    {"delivery.report.only.error", "false", kProducerOnly},
    {"message.max.bytes", "8388608", kProducerOnly},
    {"queue.buffering.max.kbytes", "32768", kProducerOnly},
    {"partitioner", "murmur2_random", kProducerOnly}, // the same partition as Java's for a key
};

// Fixed as well, with values from Config or only ever unset.
constexpr std::string_view kOwned[] = {
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "group.instance.id",
    "client.id",
    "queued.max.messages.kbytes",
    "queue.buffering.max.messages",
    "fetch.max.bytes",
    "partition.assignment.strategy",
    "auto.commit.enable",
    "enabled_events",
    "opaque",
    "transactional.id",
    "request.required.acks",
};

// pulse's choice where the user has none.
constexpr Setting kDefaults[] = {
    {"reconnect.backoff.ms", "100", kBoth},
    // A broker that is back is read within seconds; asking every two is no burden on one that is
    // not.
    {"reconnect.backoff.max.ms", "2000", kBoth},
    // A fetch returns as soon as there is anything.
    {"fetch.min.bytes", "1", kConsumerOnly},
    // Only one fetch per broker is under way: what isn't in it, a new assignment say, waits for it.
    {"fetch.wait.max.ms", "100", kConsumerOnly},
    {"fetch.error.backoff.ms", "250", kConsumerOnly},
    {"linger.ms", "5", kProducerOnly},
    {"message.timeout.ms", "60000", kProducerOnly},
};

struct Allowed {
    std::string_view key;
    Use use;
};

constexpr Allowed kAllowedOptions[] = {
    {"security.protocol", kBoth},
    {"sasl.mechanism", kBoth},
    {"sasl.mechanisms", kBoth},
    {"sasl.username", kBoth},
    {"ssl.endpoint.identification.algorithm", kBoth},
    {"enable.ssl.certificate.verification", kBoth},
    {"ssl.cipher.suites", kBoth},
    {"broker.address.family", kBoth},
    {"broker.address.ttl", kBoth},
    {"socket.timeout.ms", kBoth},
    {"socket.connection.setup.timeout.ms", kBoth},
    {"socket.send.buffer.bytes", kBoth},
    {"socket.receive.buffer.bytes", kBoth},
    {"socket.max.fails", kBoth},
    {"connections.max.idle.ms", kBoth},
    {"reconnect.backoff.ms", kBoth},
    {"reconnect.backoff.max.ms", kBoth},
    {"metadata.max.age.ms", kBoth},
    {"topic.metadata.refresh.fast.interval.ms", kBoth},
    {"api.version.request.timeout.ms", kBoth},
    {"log.connection.close", kBoth},
    {"fetch.min.bytes", kConsumerOnly},
    {"fetch.wait.max.ms", kConsumerOnly},
    {"fetch.message.max.bytes", kConsumerOnly},
    {"max.partition.fetch.bytes", kConsumerOnly},
    {"fetch.error.backoff.ms", kConsumerOnly},
    {"compression.type", kProducerOnly},
    {"compression.codec", kProducerOnly},
    {"linger.ms", kProducerOnly},
    {"batch.size", kProducerOnly},
    {"batch.num.messages", kProducerOnly},
    {"message.timeout.ms", kProducerOnly},
    {"delivery.timeout.ms", kProducerOnly},
    {"request.timeout.ms", kProducerOnly},
    {"retry.backoff.ms", kProducerOnly},
};

constexpr Allowed kAllowedSecrets[] = {
    {"sasl.username", kBoth},
    {"sasl.password", kBoth},
    {"sasl.mechanism", kBoth},
    {"sasl.mechanisms", kBoth},
    {"ssl.ca.location", kBoth},
    {"ssl.ca.pem", kBoth},
    {"ssl.certificate.location", kBoth},
    {"ssl.certificate.pem", kBoth},
    {"ssl.key.location", kBoth},
    {"ssl.key.pem", kBoth},
    {"ssl.key.password", kBoth},
    {"ssl.keystore.location", kBoth},
    {"ssl.keystore.password", kBoth},
    {"ssl.crl.location", kBoth},
};

const Allowed *
FindAllowed(const Allowed *first, const Allowed *last, std::string_view key)
{
    const Allowed *found =
        std::find_if(first, last, [key](const Allowed &allowed) { return allowed.key == key; });
    return found == last ? nullptr : found;
}

bool
IsOwned(std::string_view key)
{
    return std::any_of(std::begin(kFixed), std::end(kFixed),
                       [key](const Setting &setting) { return setting.key == key; }) ||
           std::find(std::begin(kOwned), std::end(kOwned), key) != std::end(kOwned);
}

bool
IsFor(Use use, ClientRole role)
{
    return use == kBoth || (use == kConsumerOnly) == (role == ClientRole::kConsumer);
}

// GSSAPI is librdkafka's default and runs kinit through system(); OAUTHBEARER needs a callback.
Status
CheckMechanism(const std::string &key, const std::string &value)
{
    if (key != "sasl.mechanism" && key != "sasl.mechanisms")
        return Status::Ok();
    for (const char *mechanism : {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})
        if (value == mechanism)
            return Status::Ok();
    return Status::Error("Kafka property \"" + key +
                         "\" must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512");
}

// is_secret: the message must not repeat the value, and librdkafka's own message may.
Status
SetProperty(rd_kafka_conf_t *conf, const std::string &key, const std::string &value, bool is_secret)
{
    if (value.find('\0') != std::string::npos)
        return Status::Error("value of Kafka property \"" + key + "\" contains a zero byte");
    char reason[512] = "";
    if (rd_kafka_conf_set(conf, key.c_str(), value.c_str(), reason, sizeof(reason)) ==
        RD_KAFKA_CONF_OK)
        return Status::Ok();
    if (is_secret)
        return Status::Error("librdkafka refuses the value of \"" + key + "\" in the secrets file");
    return Status::Error(reason);
}

// One check for both tables, so that what is accepted is what is set later.
Status
CheckAndSet(rd_kafka_conf_t *conf, const Properties &properties, bool is_secret,
            const ClientRole *role)
{
    std::vector<std::string_view> seen;
    for (const auto &[key, value] : properties) {
        const Allowed *allowed =
            is_secret ? FindAllowed(std::begin(kAllowedSecrets), std::end(kAllowedSecrets), key)
                      : FindAllowed(std::begin(kAllowedOptions), std::end(kAllowedOptions), key);
        if (allowed == nullptr) {
            if (IsOwned(key))
                return Status::Error("Kafka property \"" + key +
                                     "\" is set by pulse itself and can't be changed");
            if (!is_secret &&
                FindAllowed(std::begin(kAllowedSecrets), std::end(kAllowedSecrets), key) != nullptr)
                return Status::Error("Kafka property \"" + key +
                                     "\" is allowed in the secrets file only");
            return Status::Error("Kafka property \"" + key + "\" is not allowed" +
                                 (is_secret ? " in the secrets file" : ""));
        }
        if (std::find(seen.begin(), seen.end(), key) != seen.end())
            return Status::Error("Kafka property \"" + key + "\" is given twice");
        seen.push_back(key);
        if (Status status = CheckMechanism(key, value); !status.ok())
            return status;
        if (role != nullptr && !IsFor(allowed->use, *role))
            continue;
        if (Status status = SetProperty(conf, key, value, is_secret); !status.ok())
            return status;
    }
    return Status::Ok();
}

bool
StartsWithNoCase(const std::string &text, const char *prefix, size_t length)
{
    return text.size() >= length && strncasecmp(text.c_str(), prefix, length) == 0;
}

Status
CheckSaslComplete(const Config &config)
{
    bool wants_sasl = false;
    for (const auto &[key, value] : config.options)
        if (key == "security.protocol" && StartsWithNoCase(value, "sasl", 4))
            wants_sasl = true;
    if (!wants_sasl)
        return Status::Ok();
    for (const Properties *properties : {&config.options, &config.secrets})
        for (const auto &[key, value] : *properties)
            if (key == "sasl.mechanism" || key == "sasl.mechanisms")
                return Status::Ok();
    return Status::Error("security.protocol with SASL needs sasl.mechanism: PLAIN, SCRAM-SHA-256 "
                         "or SCRAM-SHA-512");
}

// librdkafka's messages about certificates may quote what they failed to read.
std::string
WithoutSecrets(std::string text, const Config &config)
{
    for (const auto &[key, value] : config.secrets) {
        if (value.size() < 4)
            continue;
        for (size_t at = text.find(value); at != std::string::npos; at = text.find(value, at + 3))
            text.replace(at, value.size(), "***");
    }
    return text;
}

std::string_view
Trim(std::string_view text)
{
    constexpr std::string_view kBlank = " \t\r\n\f\v";
    size_t first = text.find_first_not_of(kBlank);
    if (first == std::string_view::npos)
        return {};
    return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

} // namespace

Result<Properties>
ParseProperties(std::string_view text, char separator)
{
    Properties properties;
    while (!text.empty()) {
        size_t end = text.find(separator);
        std::string_view item = Trim(text.substr(0, end));
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
        if (item.empty() || item.front() == '#')
            continue;
        size_t equals = item.find('=');
        std::string_view key = Trim(item.substr(0, equals));
        if (equals == std::string_view::npos || key.empty())
            return Status::Error("expected key=value but found \"" + std::string(item) + "\"");
        properties.emplace_back(key, Trim(item.substr(equals + 1)));
    }
    return properties;
}

Status
CheckOptions(const Properties &options)
{
    ConfHandle scratch(rd_kafka_conf_new());
    return CheckAndSet(scratch.get(), options, false, nullptr);
}

Status
CheckSecrets(const Properties &secrets)
{
    ConfHandle scratch(rd_kafka_conf_new());
    return CheckAndSet(scratch.get(), secrets, true, nullptr);
}

Status
CheckVersion(int version)
{
    // 0xMMmmrrxx. 2.1.0 to 2.11.0 lose or repeat records after leader changes; older than 2.0.2 was
    // never tried and lacks calls used here.
    int release = static_cast<int>(static_cast<unsigned>(version) >> 8);
    if ((release >= 0x020002 && release < 0x020100) || release >= 0x020b01)
        return Status::Ok();
    return Status::Error("librdkafka " + std::to_string(release >> 16) + "." +
                         std::to_string((release >> 8) & 0xff) + "." +
                         std::to_string(release & 0xff) +
                         " is not supported: it can lose records; use 2.0.2, or 2.11.1 or later");
}

Status
CheckLibraryVersion()
{
    return CheckVersion(rd_kafka_version());
}

Result<ConfHandle>
BuildConf(const Config &config, ClientRole role)
{
    if (config.brokers.empty())
        return Status::Error("no Kafka brokers are configured");
    if (config.client_id.size() > kMaxClientIdBytes)
        return Status::Error("Kafka client id \"" + config.client_id + "\" is longer than " +
                             std::to_string(kMaxClientIdBytes) + " bytes");
    if (Status status = CheckSaslComplete(config); !status.ok())
        return status;

    ConfHandle conf(rd_kafka_conf_new());
    for (const Setting &setting : kDefaults)
        if (IsFor(setting.use, role))
            if (Status status =
                    SetProperty(conf.get(), std::string(setting.key), setting.value, false);
                !status.ok())
                return status;
    if (Status status = CheckAndSet(conf.get(), config.options, false, &role); !status.ok())
        return status;
    if (Status status = CheckAndSet(conf.get(), config.secrets, true, &role); !status.ok())
        return status;

    Properties own;
    for (const Setting &setting : kFixed)
        if (IsFor(setting.use, role))
            own.emplace_back(setting.key, setting.value);
    own.emplace_back("bootstrap.servers", config.brokers);
    own.emplace_back("client.id", config.client_id.empty() ? "pulse" : config.client_id);
    if (role == ClientRole::kConsumer) {
        // assign() without a group.id fails; no group is ever joined.
        own.emplace_back("group.id", config.group_id.empty() ? "pulse-no-group" : config.group_id);
        int64_t queue_bytes = std::clamp(config.queue_bytes, kMinQueueBytes, kMaxQueueBytes);
        own.emplace_back("queued.max.messages.kbytes", std::to_string(queue_bytes / 1024));
        own.emplace_back("fetch.max.bytes",
                         std::to_string(std::clamp(queue_bytes / kQueueToFetch, kMinFetchBytes,
                                                   kMaxFetchBytes)));
    } else {
        own.emplace_back("queue.buffering.max.messages", std::to_string(config.queue_records));
    }
    if (role == ClientRole::kProducer && config.sending != Sending::kTimed)
        own.emplace_back("message.timeout.ms", "0");
    if (role == ClientRole::kProducer && config.sending == Sending::kOrdered)
        own.emplace_back("enable.gapless.guarantee", "true");
    if (role == ClientRole::kProducer && config.sending == Sending::kSingly)
        own.emplace_back("batch.num.messages", "1");
    for (const auto &[key, value] : own)
        if (Status status = SetProperty(conf.get(), key, value, false); !status.ok())
            return status;
    return Result<ConfHandle>(std::move(conf));
}

Result<ClientHandle>
NewClient(const Config &config, ClientRole role, ConfHandle conf)
{
    char reason[512] = "";
    rd_kafka_type_t type = role == ClientRole::kConsumer ? RD_KAFKA_CONSUMER : RD_KAFKA_PRODUCER;
    ClientHandle client(rd_kafka_new(type, conf.get(), reason, sizeof(reason)));
    if (!client)
        return Status::Error("could not create a Kafka client: " + WithoutSecrets(reason, config));
    (void)conf.release(); // rd_kafka_new() owns it, but only after success
    return Result<ClientHandle>(std::move(client));
}

} // namespace pulse::kafka
