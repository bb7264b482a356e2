// What it means that a record was not delivered: whose fault it is decides what waits. Regime: C++,
// pure.
#pragma once

#include <string>
#include <string_view>

namespace pulse::ingest {

enum class DeliveryFault {
    kPassing, // broker, network: the same again later
    kTopic,   // nothing can be sent to that topic: again after a while
    kRecord,  // this record: the others go on without it
};

// error: librdkafka's name of the error, or a text that holds it in parentheses.
DeliveryFault FaultOf(std::string_view error);

// What to do about it, for whoever reads the error.
std::string DeliveryHint(const std::string &error);

} // namespace pulse::ingest
