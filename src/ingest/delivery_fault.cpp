#include "ingest/delivery_fault.hpp"

#include "ingest/connection_check.hpp"

namespace pulse::ingest {

namespace {

struct KnownFault {
    std::string_view name;
    DeliveryFault fault;
    const char *hint; // null = as for any connection
};

constexpr KnownFault kFaults[] = {
    {"_UNKNOWN_TOPIC", DeliveryFault::kTopic,
     "Create the topic, or let the brokers create topics (auto.create.topics.enable); what waits "
     "is "
     "sent then."},
    {"UNKNOWN_TOPIC_OR_PART", DeliveryFault::kTopic,
     "Create the topic, or let the brokers create topics (auto.create.topics.enable); what waits "
     "is "
     "sent then."},
    {"_UNKNOWN_PARTITION", DeliveryFault::kTopic, "Look at the partitions of the topic."},
    {"TOPIC_EXCEPTION", DeliveryFault::kTopic,
     "Kafka does not allow that name: letters, digits, dot, underscore and hyphen only."},
    {"TOPIC_AUTHORIZATION_FAILED", DeliveryFault::kTopic,
     "Allow the user of sasl.username WRITE and DESCRIBE on the topic."},
    {"CLUSTER_AUTHORIZATION_FAILED", DeliveryFault::kTopic,
     "Allow the user of sasl.username IDEMPOTENT_WRITE on the cluster, or WRITE on the topic."},
    {"MSG_SIZE_TOO_LARGE", DeliveryFault::kRecord,
     "Raise max.message.bytes of the topic; pulse itself sends records of up to 8 MB."},
    {"INVALID_RECORD", DeliveryFault::kRecord,
     "The topic refuses it: a compacted one takes no record without a key."},
    {"INVALID_MSG", DeliveryFault::kRecord, nullptr},
    {"INVALID_MSG_SIZE", DeliveryFault::kRecord, nullptr},
    {"INVALID_TIMESTAMP", DeliveryFault::kRecord,
     "Its time is outside what message.timestamp.before.max.ms and after.max.ms of the topic "
     "allow."},
    {"POLICY_VIOLATION", DeliveryFault::kRecord, nullptr},
    {"UNSUPPORTED_FOR_MESSAGE_FORMAT", DeliveryFault::kTopic,
     "The topic's message format is too old for headers."},
};

// The name stands alone: MSG_SIZE_TOO_LARGE is not INVALID_MSG, TOPIC_EXCEPTION no _EXCEPTION.
bool
Holds(std::string_view text, std::string_view name)
{
    auto is_part = [](char c) { return c == '_' || (c >= 'A' && c <= 'Z'); };
    for (size_t at = text.find(name); at != std::string_view::npos; at = text.find(name, at + 1)) {
        size_t end = at + name.size();
        if ((at == 0 || !is_part(text[at - 1])) && (end == text.size() || !is_part(text[end])))
            return true;
    }
    return false;
}

const KnownFault *
Find(std::string_view text)
{
    for (const KnownFault &known : kFaults)
        if (Holds(text, known.name))
            return &known;
    return nullptr;
}

} // namespace

DeliveryFault
FaultOf(std::string_view error)
{
    const KnownFault *known = Find(error);
    return known == nullptr ? DeliveryFault::kPassing : known->fault;
}

std::string
DeliveryHint(const std::string &error)
{
    const KnownFault *known = Find(error);
    return known != nullptr && known->hint != nullptr ? known->hint : HintFor(error);
}

} // namespace pulse::ingest
