// What the SQL functions that talk to Kafka themselves have in common (preview, extract,
// test_connection): a client's threads live in the caller's backend for the length of the call.
// Regime: C++ with doors.
#pragma once

#include <string>

#include "kafka/config.hpp"
#include "pg/boundary.hpp"

namespace pulse::sqlapi {

[[noreturn]] void Fail(const char *sqlstate, const std::string &message,
                       const std::string &hint = "");

// Call before the first client is made. Raises 55000 without brokers, 53000 while earlier calls of
// this session are still closing theirs.
void PrepareForKafka();

// The connection that the settings of this moment describe; in no consumer group. Raises 22023.
kafka::Config SessionConfig();

} // namespace pulse::sqlapi
