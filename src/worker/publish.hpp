// What a worker tells of its partitions and batches in shared memory, for the stat views and the
// coordinator. Regime: PG.
#pragma once

#include <vector>

#include "ingest/batch.hpp"
#include "ingest/reader.hpp"
#include "store/offsets.hpp"
#include "worker/batch_transaction.hpp"

namespace pulse::worker {

// The partitions are this worker's now, and run.
void PublishPartitions(const std::vector<store::OwnedPartition> &partitions);

// A partition that can't be read; a log line when its state changed.
void PublishTrouble(const ingest::Notice &notice);
// And one that is read again.
void PublishBack(const ingest::Notice &notice);

void PublishCommit(const PipelineState &pipeline, const ingest::Batch &batch,
                   const BatchResult &result);

} // namespace pulse::worker
