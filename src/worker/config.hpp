// Settings -> what the C++ layers want: Kafka connection, decode mapping, reader options. Regime:
// C++, called on the backend's thread; reads the settings' variables only.
#pragma once

#include <compare>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "decode/mapping.hpp"
#include "ingest/reader.hpp"
#include "kafka/config.hpp"
#include "store/target.hpp"

namespace pulse::worker {

struct ConnectionSettings {
    std::string brokers;
    std::string group_id;
    std::string kafka_options;
    std::string secrets_file;

    auto operator<=>(const ConnectionSettings &) const = default;
};

// Checks options and secrets; the message is librdkafka's own, never with a secret in it.
Result<kafka::Config> ConnectionConfig(const ConnectionSettings &settings,
                                       const std::string &client_id);

// Of this process's pipeline.
ConnectionSettings CurrentConnection();
ingest::ReaderOptions CurrentReaderOptions(kafka::Config config);
// Errors: as RequireSchema().
std::shared_ptr<const decode::Mapping> MappingOf(const store::Target &target);
// Errors: pg::Error 22023 unless events can be judged by this JSON Schema.
void RequireSchema(std::string_view schema);

// Everything that can't be changed in a running reader: when it differs after a reload, the worker
// starts again.
std::string ReaderFingerprint();

// Notices that the content of pulse.secrets_file changed: a rotated password takes effect without a
// reload. A file that can't be read, half way through its replacement perhaps, changes nothing.
class SecretsWatch {
  public:
    void Note();
    bool HaveChanged(); // looks once a second

  private:
    uint64_t digest_ = 0;
    int64_t looked_at_us_ = 0;
};

} // namespace pulse::worker
