// pulse._set_aside: records that become dead letters as they are, without being decoded, because
// they crash the server or because an operator wants to be rid of them. Regime: PG, inside a
// transaction.
#pragma once

#include <cstdint>
#include <string_view>

#include "decode/reject.hpp"
#include "pg/shmem.hpp"
#include "store/offsets.hpp"

namespace pulse::store {

struct SetAsideRow {
    char topic[pg::kTopicBytes];
    int32_t partition;
    int64_t kafka_offset;
    decode::RejectCode code; // kSkipped or kQuarantined
    char message[pg::kReasonBytes];
};

// Those that are still to come in this pipeline, in the order of their offsets. Returns how many
// there are, which may be more than were filled in.
int LoadSetAside(const char *pipeline, SetAsideRow *rows, int capacity);

// From its next reading on; false when it is set aside already.
bool SetAside(const char *pipeline, const OwnedPartition &partition, int64_t kafka_offset,
              decode::RejectCode code, const char *message);

} // namespace pulse::store
