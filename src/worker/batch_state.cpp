#include "worker/batch_state.hpp"

namespace pulse::worker {

std::string
WhereOf(const ingest::Batch &batch, const ingest::Record &record)
{
    const ingest::Range &range = batch.ranges[record.range_index];
    return "offset " + std::to_string(record.kafka_offset) + " of partition " +
           std::to_string(range.partition) + " of topic \"" + range.topic + "\"";
}

} // namespace pulse::worker
