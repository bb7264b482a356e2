// Tries out a connection to Kafka step by step, on a thread of its own because each step may take
// as long as its timeout: client, brokers, then for every topic its partitions, their offsets and
// whether they may be read. All signals are blocked in the thread. Regime: C++.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kafka/config.hpp"

namespace pulse::ingest {

struct Finding {
    std::string what;
    bool is_ok;
    std::string detail;
    std::string hint; // empty = none
};

class ConnectionCheck {
  public:
    // topics: names, or regular expressions with leading ^.
    ConnectionCheck(kafka::Config config, std::vector<std::string> topics);
    ~ConnectionCheck(); // joins; may wait for a step's timeout
    ConnectionCheck(const ConnectionCheck &) = delete;
    ConnectionCheck &operator=(const ConnectionCheck &) = delete;

    int fd() const; // readable when Take() has something new
    // Adds what was found since the last call; true when that was all.
    bool Take(std::vector<Finding> *findings);

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

// What to do about an error of librdkafka's, given its text and name.
std::string HintFor(const std::string &text);

} // namespace pulse::ingest
