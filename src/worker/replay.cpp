#include "worker/replay.hpp"

#include <algorithm>
#include <deque>
#include <vector>

#include "base/clock.hpp"
#include "base/fault.hpp"
#include "decode/decoder.hpp"
#include "pg/guc.hpp"
#include "pg/session_writer.hpp"
#include "pg/xact.hpp"
#include "store/ingests.hpp"
#include "worker/batch_counters.hpp"
#include "worker/batch_letters.hpp"
#include "worker/batch_rows.hpp"
#include "worker/batch_state.hpp"
#include "worker/config.hpp"
#include "worker/session_batch.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

constexpr int kCounterSlot = -1; // of the counters: workers never wait for a replay

// There is no row, so it stays a letter.
constexpr store::LetterReason kLeftOut = {
    "data", "sql_error", nullptr, "insert", "a BEFORE trigger of the target left the row out", {}};
constexpr store::LetterReason kFilteredOut = {
    "data", "stage_error", nullptr, "filter", "a stage (or a BEFORE trigger) left the row out", {}};

struct DryRun {};

class Step {
  public:
    Step(const ReplayRequest &request, int64_t after_id, int limit)
        : request_(request), after_id_(after_id), limit_(limit), pipeline_(&SessionPipeline()),
          state_(pipeline_, batch_, 0, 0)
    {
    }

    ReplayStep Run()
    {
        try {
            pg::InSubTransaction([this] {
                const int level = pg::CallPg([] { return NewGUCNestLevel(); });
                Load();
                if (result_.taken > 0)
                    Write();
                // Also what was set for the transaction, as SET LOCAL would.
                pg::CallPg([level] { AtEOXact_GUC(false, level); });
                if (request_.is_dry_run)
                    throw DryRun{};
            });
        } catch (const DryRun &) {
        }
        return result_;
    }

  private:
    // ---- the letters as a batch ----

    void Load()
    {
        pg::CallPg([this] { LoadSessionPipeline(request_.pipeline, kCounterSlot, pipeline_); });
        pipeline_->mapping = MappingOf(pipeline_->target);
        batch_.mapping = pipeline_->mapping;
        decode::Decoder decoder(pipeline_->mapping);
        decoder_ = &decoder;
        now_us_ = WallClockUs();
        ids_.reserve(static_cast<size_t>(limit_));
        const int64_t max_bytes = static_cast<int64_t>(pg::guc_batch_max_bytes_kb) * 1024;
        pg::CallPg([&] {
            store::TakeLetters(
                request_.pipeline, request_.filter, after_id_, limit_, max_bytes,
                [](const store::StoredLetter &letter, void *step) {
                    static_cast<Step *>(step)->Append(letter);
                },
                this);
        });
        decoder_ = nullptr;
        result_.taken = static_cast<int>(ids_.size());
        state_.end = static_cast<uint32_t>(ids_.size());
        for (store::OwnedPartition &partition : partitions_) {
            state_.range_partitions.push_back(&partition);
            state_.ranges.emplace_back();
            state_.ranges.back().partition = &partition;
        }
        for (const ingest::Record &record : batch_.records)
            state_.outcomes.push_back(record.reject.code == decode::RejectCode::kNone
                                          ? Outcome::kPending
                                          : Outcome::kRejected);
    }

    void Append(const store::StoredLetter &letter)
    {
        kafka::Message message;
        message.offset = letter.kafka_offset;
        message.timestamp_ms = letter.timestamp_ms;
        message.key = letter.key;
        message.value = letter.value;
        for (int i = 0; i < letter.header_count; i++)
            message.headers.push_back({letter.headers[i].key, letter.headers[i].value});
        batch_.Append(message, RangeOf(letter), *decoder_, now_us_);
        ids_.push_back(letter.dlq_id);
    }

    uint32_t RangeOf(const store::StoredLetter &letter)
    {
        for (uint32_t i = 0; i < partitions_.size(); i++)
            if (partitions_[i].partition == letter.partition &&
                partitions_[i].topic_epoch == letter.topic_epoch &&
                strcmp(partitions_[i].topic, letter.topic) == 0)
                return i;
        store::OwnedPartition partition{};
        std::string_view(letter.topic).copy(partition.topic, sizeof(partition.topic) - 1);
        partition.partition = letter.partition;
        partition.topic_epoch = letter.topic_epoch;
        partition.highest_offset = INT64_MAX; // read before: duplicates are to be expected
        partitions_.push_back(partition);
        batch_.ranges.push_back({letter.topic, letter.partition, 0, 0, -1, 0});
        return static_cast<uint32_t>(partitions_.size() - 1);
    }

    // ---- rows ----

    void Write()
    {
        if (request_.is_dry_run) // rolled back after the step: it ends where there are enough
            state_.end = MakeSessionPartitions(state_).end;
        else if (!request_.may_commit)
            MakeCallersPartitions(state_);
        else if (MakeSessionPartitions(state_).count > 0) {
            // ATTACH locks the parent until the commit: nobody is to wait while rows are written.
            result_.must_commit = true;
            return;
        }
        pg::CallPg([this] {
            writer_ = pg::RegisterSessionWriter();
            state_.ingested_at = GetCurrentTimestamp();
            MakeIdSeed(state_.id_seed.data());
            // Constraints that wait for the caller's own commit are the caller's.
            if (request_.may_commit || pipeline_->target.has_deferrable ||
                pipeline_->target.sink_count > 0)
                pg::InSpi([] { pg::ExecuteOnce("SET CONSTRAINTS ALL IMMEDIATE"); });
        });
        state_.reached = InsertBatchRows(&state_);
        PULSE_FAULT("replay_rows");
        AddToCounters(&state_);
        Settle();
        PULSE_FAULT("replay_settled");
    }

    // ---- what became of them ----

    void Settle()
    {
        std::vector<int64_t> settled;
        for (uint32_t i = 0; i < state_.reached; i++) {
            store::PartitionCounts &counts = state_.range(i).counts;
            const bool is_filtered = state_.outcomes[i] == Outcome::kFiltered;
            if (is_filtered || state_.outcomes[i] == Outcome::kRejected) {
                const store::LetterReason reason = is_filtered ? LeftOut() : ReasonOf(state_, i);
                pg::CallPg([&] { store::RefuseLetter(ids_[i], reason, pg::guc_max_replays); });
                counts.rejects++;
                continue;
            }
            settled.push_back(ids_[i]);
            if (state_.outcomes[i] == Outcome::kInserted)
                counts.rows++;
            else
                counts.duplicates++;
        }
        pg::CallPg([&] {
            store::SettleLetters(settled.data(), static_cast<int>(settled.size()));
            for (const RangeProgress &range : state_.ranges)
                Note(range);
        });
        result_.settled = static_cast<int>(state_.reached);
        if (state_.reached > 0)
            result_.last_id = ids_[state_.reached - 1];
    }

    const store::LetterReason &LeftOut() const
    {
        const store::Target &target = pipeline_->target;
        return target.stage_count > target.sink_count ? kFilteredOut : kLeftOut;
    }

    // PG regime.
    void Note(const RangeProgress &range)
    {
        const store::ReplayCounts counts = {range.counts.rows, range.counts.duplicates,
                                            range.counts.rejects};
        result_.counts.replayed += counts.replayed;
        result_.counts.duplicates += counts.duplicates;
        result_.counts.failed += counts.failed;
        if (range.partition->topic[0] == '\0') {
            store::PartitionCounts ingested{};
            ingested.records = ingested.rows = counts.replayed;
            store::AddIngested(request_.pipeline, writer_, ingested);
        } else if (counts.replayed + counts.duplicates + counts.failed > 0) {
            store::NoteReplay(request_.pipeline, *range.partition, counts);
        }
    }

    const ReplayRequest &request_;
    int64_t after_id_;
    int limit_;
    PipelineState *pipeline_;
    ingest::Batch batch_;
    BatchState state_;
    std::deque<store::OwnedPartition> partitions_; // by range
    std::vector<int64_t> ids_;                     // by record
    decode::Decoder *decoder_ = nullptr;
    int64_t now_us_ = 0;
    int writer_ = 0; // of the ledger of what came by ingest()
    ReplayStep result_;
};

} // namespace

ReplayStep
ReplaySome(const ReplayRequest &request, int64_t after_id, int limit)
{
    return Step(request, after_id, limit).Run();
}

} // namespace pulse::worker
