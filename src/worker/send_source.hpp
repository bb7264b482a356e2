// Where the records of a SendFlow come from and where it is noted what became of them: raw.dlq or
// pulse.outbox. Regime: C++ with doors, but for the visits.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "store/outgoing.hpp"

namespace pulse::worker {

struct SendOutcomes {
    struct Delivered {
        int64_t id;
        int32_t partition;
        int64_t kafka_offset; // -1 = unknown
    };
    struct Refused {
        int64_t id;
        std::string reason;
    };
    std::vector<Delivered> delivered;
    std::vector<Refused> refused;

    size_t size() const { return delivered.size() + refused.size(); }
    bool IsEmpty() const { return size() == 0; }
};

class SendSource {
  public:
    virtual ~SendSource() = default;
    // Records that wait, in the order in which they are to be sent, but none of those that
    // outcomes tells of. Returns how many were visited. Own transaction.
    virtual int Take(const SendOutcomes &outcomes, const store::TakeLimits &limits,
                     store::VisitOutgoing visit, void *argument) = 0;
    // Notes them and leaves those that could not be noted now. Own transaction.
    virtual void Settle(SendOutcomes *outcomes) = 0;
};

std::unique_ptr<SendSource> LettersOf(const std::string &pipeline);
std::unique_ptr<SendSource> OutboxFor(const std::string &topic);

} // namespace pulse::worker
