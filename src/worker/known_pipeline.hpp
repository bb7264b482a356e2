// What the coordinator knows of a pipeline: its row in pulse.pipelines, its partitions, and what
// the broker last said. Regime: C++.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "ingest/watcher.hpp"
#include "kafka/config.hpp"
#include "pg/boundary.hpp"
#include "worker/config.hpp"

namespace pulse::worker {

struct KnownPipeline {
    // Partition -> why it cannot be asked about.
    using Troubles = std::map<std::pair<std::string, int32_t>, std::string>;

    std::string name;
    std::vector<std::string> topics;
    ConnectionSettings connection;
    std::string start_position;
    std::string on_offset_lost;
    int32_t workers = 1;
    int64_t version = 0;
    std::string desired_state;
    std::string reason;
    std::string hint;

    std::map<std::pair<std::string, int32_t>, int64_t> partitions; // -> next_offset as last read
    std::map<std::pair<std::string, int32_t>, int64_t> highs;      // as last probed
    int64_t assignment_version = 0;
    bool is_probing = false;
    bool is_judging = false; // lost offsets, see lost_offsets.hpp
    std::vector<PartitionOffset> judging;
    int64_t probed_at = 0;
    std::string broker_error; // of the last probe; empty = it worked
    Troubles in_trouble;      // as last probed, those that have not begun among them
    bool has_probed = false;
    ingest::MissingTopics missing_topics;
    int64_t waiting_since = 0; // TimestampTz: for a topic that is missing or cannot begin
    std::string config_error;  // settings that no client can be made of
    std::string config_hint;
    pg::Error start_error;    // why new partitions can't begin; no message = they can
    int32_t unseen = 0;       // partitions that shared memory has no room for
    int spread = 0;           // workers that share the partitions
    std::string spread_error; // why they are fewer than wanted
    std::string spread_hint;
    int halts = 0;           // commands that need its workers gone
    std::string halt_reason; // what they wait for, when it takes long
    std::string halt_hint;
    bool is_present = false; // in the table at the last look
};

using KnownPipelines = std::map<std::string, KnownPipeline>;

// Of the coordinator's own connection for this pipeline.
Result<kafka::Config> ConfigOf(const KnownPipeline &known);

// Different from every number an earlier coordinator gave out.
int64_t NextAssignment();

// Why a topic, or a partition of one, has not begun, and what ends the wait; empty = all have.
struct Awaited {
    std::string reason;
    std::string hint;
};
Awaited WaitsFor(const KnownPipeline &known);

// Its state as pulse.stat_pipeline and the waiting functions see it.
void PublishPipeline(const KnownPipeline &known);

} // namespace pulse::worker
