// Connection properties -> rd_kafka_conf_t, with the fixed settings pulse depends on.
// Regime: C++. This header does not include rdkafka.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace pulse::kafka {

using Properties = std::vector<std::pair<std::string, std::string>>;

// What a producer does with a record that the broker doesn't take.
enum class Sending {
    kTimed,   // gives it up after message.timeout.ms
    kOrdered, // never gives it up; rather than go on without it the producer ends (fatal error)
    kSingly,  // never gives it up; each travels alone, so what is refused is at fault itself
};

struct Config {
    std::string brokers;
    std::string group_id;  // where offsets are mirrored; empty = nowhere
    std::string client_id; // at most 32 bytes
    Properties options;    // user's allow-listed librdkafka properties (pulse.kafka_options)
    Properties secrets;    // from pulse.secrets_file: sasl.* and ssl.* only
    Sending sending = Sending::kTimed;
    int64_t queue_bytes = 32LL * 1024 * 1024; // prefetch bound (queued.max.messages.kbytes)
    int queue_records = 10'000; // a producer's, until their reports (queue.buffering.max.messages)
};

// "a=b, c=d" or lines "a=b" -> properties; '#' starts a comment line. Errors name the bad item.
Result<Properties> ParseProperties(std::string_view text, char separator);

// Checks each key against the allow-list and each value with librdkafka itself (its message is
// returned). Safe in any backend: creates no handle and no thread.
Status CheckOptions(const Properties &options);
Status CheckSecrets(const Properties &secrets);

// Reads a secrets file of mode 0600 (or 0400); lines key=value. Errors never contain a value.
Result<Properties> ReadSecretsFile(const std::string &path);
// A number that changes with the file's content; for comparing within this process only.
Result<uint64_t> SecretsDigest(const std::string &path);

// Refuses librdkafka versions with known loss: all but 2.0.2 and 2.11.1 or later.
Status CheckLibraryVersion();
Status CheckVersion(int version); // the same for a given rd_kafka_version()

} // namespace pulse::kafka
