#include "worker/config.hpp"

#include <algorithm>
#include <cstdlib>

#include "base/clock.hpp"
#include "decode/schema_check.hpp"
#include "pg/boundary.hpp"
#include "pg/guc.hpp"
#include "store/time.hpp"

namespace pulse::worker {

namespace {

constexpr int64_t kSecondUs = 1000000;

} // namespace

Result<kafka::Config>
ConnectionConfig(const ConnectionSettings &settings, const std::string &client_id)
{
    kafka::Config config;
    config.brokers = settings.brokers;
    config.group_id = settings.group_id;
    config.client_id = client_id;
    auto options = kafka::ParseProperties(settings.kafka_options, ',');
    if (!options.ok())
        return Status::Error("pulse.kafka_options: " + options.message());
    Status status = kafka::CheckOptions(options.value());
    if (!status.ok())
        return Status::Error("pulse.kafka_options: " + status.message());
    config.options = std::move(options.value());
    if (!settings.secrets_file.empty()) {
        auto secrets = kafka::ReadSecretsFile(settings.secrets_file);
        if (!secrets.ok())
            return Status::Error("pulse.secrets_file: " + secrets.message());
        status = kafka::CheckSecrets(secrets.value());
        if (!status.ok())
            return Status::Error("pulse.secrets_file: " + status.message());
        config.secrets = std::move(secrets.value());
    }
    return config;
}

ConnectionSettings
CurrentConnection()
{
    return {pg::guc_brokers, pg::guc_group_id, pg::guc_kafka_options, pg::guc_secrets_file};
}

ingest::ReaderOptions
CurrentReaderOptions(kafka::Config config)
{
    ingest::ReaderOptions options;
    size_t queue_memory = static_cast<size_t>(pg::guc_queue_memory_kb) * 1024;
    // Most of it is librdkafka's, unread: when its queue is full, 2.0.2 looks again a second later,
    // so a second of data should fit. The rest holds decoded batches.
    options.queue_bytes = queue_memory / 4;
    config.queue_bytes = static_cast<int64_t>(queue_memory - options.queue_bytes);
    options.config = std::move(config);
    options.batch_max_rows = static_cast<uint32_t>(pg::guc_batch_max_rows);
    options.batch_max_bytes =
        std::min(static_cast<size_t>(pg::guc_batch_max_bytes_kb) * 1024, queue_memory / 4);
    options.batch_max_wait_us = static_cast<int64_t>(pg::guc_batch_max_wait_ms) * 1000;
    return options;
}

void
RequireSchema(std::string_view schema)
{
    auto fault = decode::CheckSchema(schema);
    if (!fault)
        return;
    pg::Error error;
    error.sqlstate = "22023";
    error.message = "JSON Schema, at \"" + fault->pointer + "\": " + fault->message;
    error.hint = fault->hint;
    throw error;
}

std::shared_ptr<const decode::Mapping>
MappingOf(const store::Target &target)
{
    auto mapping = std::make_shared<decode::Mapping>();
    mapping->columns.resize(static_cast<size_t>(target.cell_count));
    for (int i = 0; i < target.column_count; i++) {
        const store::TargetColumn &column = target.columns[i];
        if (column.cell_index < 0)
            continue;
        decode::ColumnSpec &spec = mapping->columns[static_cast<size_t>(column.cell_index)];
        spec.name = column.name;
        spec.type = column.decode_type;
        spec.is_required = column.source == store::ColumnSource::kCell && column.is_required;
        spec.is_event_time = column.is_event_time;
        spec.max_bytes = column.max_bytes;
        spec.is_array = column.is_array;
        spec.delimiter = column.delimiter;
        spec.max_characters = column.max_characters;
        spec.max_integer_digits = column.max_integer_digits;
        spec.time_precision = column.time_precision;
        spec.is_padded = column.is_padded;
        spec.path = {column.name};
        if (column.pointer[0] != '\0') // LoadTarget() has parsed it
            spec.path = decode::ParsePointer(column.pointer).value();
    }
    mapping->rest_column = target.rest_cell;
    std::string unknown_fields = pg::guc_unknown_fields;
    mapping->unknown_fields = unknown_fields == "drop"     ? decode::UnknownFields::kDrop
                              : unknown_fields == "reject" ? decode::UnknownFields::kReject
                                                           : decode::UnknownFields::kKeep;
    if (target.schema != nullptr) {
        RequireSchema(target.schema); // alter_pipeline() has, but another release of pulse perhaps
        mapping->schema = target.schema;
    }
    mapping->limits.max_message_bytes = static_cast<uint32_t>(pg::guc_max_message_bytes);
    mapping->limits.reject_older_than_us = pg::guc_reject_older_than_s * kSecondUs;
    mapping->limits.reject_newer_than_us = pg::guc_reject_newer_than_s * kSecondUs;
    if (target.retained_from != INT64_MIN)
        mapping->limits.not_before_us = store::ToUnixUs(target.retained_from);
    return mapping;
}

std::string
ReaderFingerprint()
{
    std::string fingerprint;
    for (const char *text : {pg::guc_brokers, pg::guc_group_id, pg::guc_kafka_options,
                             pg::guc_secrets_file, pg::guc_unknown_fields, pg::guc_role})
        fingerprint += std::string(text) + "\n";
    for (int number :
         {pg::guc_batch_max_rows, pg::guc_batch_max_bytes_kb, pg::guc_batch_max_wait_ms,
          pg::guc_queue_memory_kb, pg::guc_max_message_bytes, pg::guc_reject_older_than_s,
          pg::guc_reject_newer_than_s})
        fingerprint += std::to_string(number) + "\n";
    return fingerprint;
}

void
SecretsWatch::Note()
{
    auto digest = kafka::SecretsDigest(pg::guc_secrets_file);
    digest_ = digest.ok() ? digest.value() : 0;
    looked_at_us_ = WallClockUs();
}

bool
SecretsWatch::HaveChanged()
{
    int64_t now_us = WallClockUs();
    if (pg::guc_secrets_file[0] == '\0' || std::abs(now_us - looked_at_us_) < kSecondUs)
        return false;
    looked_at_us_ = now_us;
    auto digest = kafka::SecretsDigest(pg::guc_secrets_file);
    return digest.ok() && digest.value() != digest_;
}

} // namespace pulse::worker
