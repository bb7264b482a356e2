#include "worker/ingest.hpp"

#include <algorithm>
#include <vector>

#include "base/clock.hpp"
#include "base/fault.hpp"
#include "decode/decoder.hpp"
#include "pg/guc.hpp"
#include "pg/queue_depth.hpp"
#include "pg/session_writer.hpp"
#include "pg/xact.hpp"
#include "store/ingests.hpp"
#include "worker/batch_counters.hpp"
#include "worker/batch_letters.hpp"
#include "worker/batch_rows.hpp"
#include "worker/config.hpp"
#include "worker/session_batch.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

constexpr int kFirstCounterSlot = -2; // workers count from 0 up, sessions from here down

// PG regime. How long the workers take to be half-way below the limit again.
void
CheckQueue(const char *pipeline)
{
    const pg::QueueDepth queue = pg::QueueDepthOf(pipeline);
    if (queue.records <= pg::guc_max_queue_depth)
        return;
    const double excess =
        static_cast<double>(queue.records) - static_cast<double>(pg::guc_max_queue_depth) / 2;
    const double wait_ms =
        queue.records_per_second > 0 ? excess * 1000 / queue.records_per_second : 1000;
    ereport(ERROR,
            (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
             errmsg("pipeline \"%s\" has %lld records read but not written, max_queue_depth is %d",
                    pipeline, static_cast<long long>(queue.records), pg::guc_max_queue_depth),
             errhint("retry after %d ms", static_cast<int>(std::clamp(wait_ms, 100.0, 60000.0)))));
}

class Call {
  public:
    explicit Call(const char *name) : name_(name), pipeline_(&SessionPipeline()) {}

    IngestCounts Run(const std::string_view *events, int count)
    {
        pg::InSubTransaction([&] {
            const int level = pg::CallPg([] { return NewGUCNestLevel(); });
            Begin();
            for (int done = 0; done < count;)
                done += WriteSome(events + done, count - done);
            pg::CallPg([&] {
                store::AddIngested(name_, writer_, counts_);
                AtEOXact_GUC(false, level); // also what was set for the transaction
            });
        });
        return {counts_.rows + counts_.duplicates + counts_.filtered, counts_.rejects};
    }

  private:
    void Begin()
    {
        pg::CallPg([this] {
            LoadSessionPipeline(name_, 0, pipeline_);
            CheckQueue(name_);
            writer_ = pg::RegisterSessionWriter();
            pipeline_->slot = kFirstCounterSlot - writer_;
            ingested_at_ = GetCurrentTimestamp();
            if (pipeline_->target.has_deferrable || pipeline_->target.sink_count > 0)
                pg::InSpi([] { pg::ExecuteOnce("SET CONSTRAINTS ALL IMMEDIATE"); });
        });
        pipeline_->mapping = MappingOf(pipeline_->target);
    }

    // One batch of them; returns how many.
    int WriteSome(const std::string_view *events, int count)
    {
        ingest::Batch batch;
        batch.mapping = pipeline_->mapping;
        batch.ranges.push_back({"", -1, 0, 0, -1, 0});
        decode::Decoder decoder(pipeline_->mapping);
        const int64_t now_us = WallClockUs();
        const size_t max_bytes = static_cast<size_t>(pg::guc_batch_max_bytes_kb) * 1024;
        int taken = 0;
        for (; taken < count && taken < pg::guc_batch_max_rows && batch.payload_bytes() < max_bytes;
             taken++) {
            kafka::Message message;
            message.offset = 0; // not read before
            message.timestamp_ms = -1;
            message.value = events[taken];
            batch.Append(message, 0, decoder, now_us);
        }
        Write(batch);
        return taken;
    }

    void Write(const ingest::Batch &batch)
    {
        const uint32_t count = static_cast<uint32_t>(batch.records.size());
        BatchState state(pipeline_, batch, 0, count);
        store::OwnedPartition none{}; // its empty topic says that there is no record
        none.partition = -1;
        state.ingested_at = ingested_at_;
        pg::CallPg([&] { MakeIdSeed(state.id_seed.data()); });
        state.range_partitions.push_back(&none);
        state.ranges.emplace_back();
        state.ranges.back().partition = &none;
        for (const ingest::Record &record : batch.records)
            state.outcomes.push_back(record.reject.code == decode::RejectCode::kNone
                                         ? Outcome::kPending
                                         : Outcome::kRejected);
        MakeCallersPartitions(state);
        // Bad rows may be more than one round isolates.
        for (; state.begin < count; state.begin = state.reached) {
            state.stored_events.clear();
            state.reached = InsertBatchRows(&state);
            PULSE_FAULT("ingest_rows");
            WriteLetters(&state);
            AddToCounters(&state);
            for (uint32_t i = state.begin; i < state.reached; i++)
                Count(state.outcomes[i]);
            pg::CallPg([&] {
                for (const store::StoredEvent &event : state.stored_events)
                    store::FreeStoredEvent(event); // the caller's transaction may be long
            });
        }
        pipeline_->plain_inserts.BatchDone();
    }

    void Count(Outcome outcome)
    {
        counts_.records++;
        if (outcome == Outcome::kInserted)
            counts_.rows++;
        else if (outcome == Outcome::kRejected)
            counts_.rejects++;
        else if (outcome == Outcome::kFiltered)
            counts_.filtered++;
        else
            counts_.duplicates++;
    }

    const char *name_;
    PipelineState *pipeline_;
    int writer_ = 0;
    int64_t ingested_at_ = 0;
    store::PartitionCounts counts_{};
};

} // namespace

IngestCounts
Ingest(const char *pipeline, const std::string_view *events, int count)
{
    return Call(pipeline).Run(events, count);
}

} // namespace pulse::worker
