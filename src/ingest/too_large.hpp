// Whose record is it that is larger than a client may receive? An answer fails with all it held,
// and librdkafka does not say which partition's it was. Only a partition that is read alone shows
// it, by a client of its own. Used by the reader's thread: one partition each round, so that the
// others go on meanwhile. Regime: C++.
#pragma once

#include <vector>

#include "base/types.hpp"
#include "ingest/aside.hpp"
#include "kafka/config.hpp"
#include "kafka/consumer.hpp"

namespace pulse::ingest {

class TooLargeSearch {
  public:
    explicit TooLargeSearch(const kafka::Config &config) : config_(config) {}

    bool IsRunning() const { return !suspects_.empty(); }

    // suspects: the caller's numbers of partitions. No effect while a search is running.
    void Begin(std::vector<size_t> suspects);

    void Cancel() { suspects_.clear(); }

    // Is it time for Next()? What was fetched before must have been taken, unless there is always
    // more.
    bool IsDue(bool is_dry) const;
    size_t Next();

    // Is the record at that offset, or what the broker sends with it, too large? Takes up to four
    // seconds.
    bool IsTooLarge(const PartitionOffset &next);

    // After a find and at the end: a client says it of a partition only once.
    void DropClient() { client_.reset(); }

  private:
    const kafka::Config config_;
    std::vector<size_t> suspects_;
    int64_t began_at_us_ = 0;
    AsidePtr<kafka::Consumer> client_;
};

} // namespace pulse::ingest
