// One batch on its way into the tables: what the steps of its transaction know and leave to each
// other. batch_transaction.cpp runs them in order. Regime: C++.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

#include "ingest/batch.hpp"
#include "pg/boundary.hpp"
#include "store/offsets.hpp"
#include "store/writer.hpp"
#include "worker/pipeline_state.hpp"

namespace pulse::worker {

using store::Outcome;

struct SqlReject {
    uint32_t record;
    pg::Error error;
    std::string message;
    std::string path;  // JSON pointer of the value PostgreSQL could not read; empty = not known
    std::string stage; // of the pipeline, that refused it; empty = the table did
};

// Progress of one range of the batch within the transaction.
struct RangeProgress {
    store::OwnedPartition *partition = nullptr;
    int64_t new_offset = -1;  // -1 = untouched
    uint32_t last_record = 0; // when counts.records is not 0
    Fingerprint last;
    store::PartitionCounts counts{};
    std::vector<int64_t> read_again;     // offsets below highest_offset that are rows now
    std::vector<int64_t> rejected_again; // and that are rejects now, and rows already
};

struct BatchState {
    BatchState(PipelineState *pipeline_, const ingest::Batch &batch_, uint32_t begin_,
               uint32_t end_)
        : pipeline(pipeline_), batch(batch_), begin(begin_), end(end_), reached(begin_)
    {
    }

    PipelineState *pipeline;
    const ingest::Batch &batch;
    uint32_t begin; // the records of this transaction
    uint32_t end;
    uint32_t reached; // records before it are done; less than end when the batch ended early

    const char *name() const { return pipeline->definition.name; }
    const ingest::Record &record(uint32_t i) const { return batch.records[i]; }
    RangeProgress &range(uint32_t i) { return ranges[batch.records[i].range_index]; }

    std::vector<RangeProgress> ranges;
    std::vector<const store::OwnedPartition *> range_partitions;
    std::vector<Outcome> outcomes;
    std::vector<SqlReject> sql_rejects;
    std::unordered_set<uint32_t> known_letters; // rejects that are letters, or rows, already
    std::vector<store::StoredEvent> stored_events;
    int64_t ingested_at = 0;
    std::string reject_example;
    std::array<unsigned char, store::kIdSeedBytes> id_seed{}; // random; of what came by ingest()
};

// For an operator, who may want to skip() it.
std::string WhereOf(const ingest::Batch &batch, const ingest::Record &record);

} // namespace pulse::worker
