#include "worker/batch_transaction.hpp"

#include <algorithm>

#include "base/crc32c.hpp"
#include "base/fault.hpp"
#include "pg/guc.hpp"
#include "pg/xact.hpp"
#include "store/dead_letters.hpp"
#include "store/time.hpp"
#include "worker/batch_counters.hpp"
#include "worker/batch_leaves.hpp"
#include "worker/batch_letters.hpp"
#include "worker/batch_rows.hpp"
#include "worker/batch_state.hpp"
#include "worker/flight_recorder.hpp"
#include "worker/status.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

struct Fenced {};
struct Tripped {};
struct Stale {};

class BatchTransaction {
  public:
    BatchTransaction(PipelineState *pipeline, const ingest::Batch &batch, uint32_t begin,
                     uint32_t end, BatchLog *log, const volatile bool *is_stale)
        : pipeline_(pipeline), batch_(batch), log_(log), is_stale_(is_stale),
          state_(pipeline, batch, begin, end)
    {
    }

    BatchResult Run()
    {
        try {
            NoteWriting(state_.end - state_.begin);
            FindPartitions();
            MarkSingleRecord();
            MakeTargetPartitions(&state_);
            pg::InTransaction([this] {
                Begin();
                PULSE_FAULT("after_begin");
                MoveOffsets();
                PULSE_FAULT("after_fence");
                InsertRows();
                PULSE_FAULT("after_insert");
                WriteLetters(&state_);
                PULSE_FAULT("after_letters");
                AddToCounters(&state_);
                PULSE_FAULT("after_counters");
                AddCounts();
                CheckBreaker();
                PULSE_FAULT("before_commit");
                // Waiting for a synchronous standby is no reason to cancel.
                pg::CallPg([] { disable_timeout(STATEMENT_TIMEOUT, false); });
            });
            PULSE_FAULT("after_commit");
        } catch (const Fenced &) {
            result_.end = BatchEnd::kFenced;
        } catch (const Tripped &) {
            result_.end = BatchEnd::kTripped;
        } catch (const Stale &) {
            result_.end = BatchEnd::kStale;
        } catch (const Unsure &) {
            result_.end = BatchEnd::kUnsure;
        } catch (...) {
            End();
            throw;
        }
        End();
        result_.reached = state_.reached;
        result_.breaker_example = std::move(state_.reject_example);
        if (result_.end == BatchEnd::kCommitted)
            Committed();
        return std::move(result_);
    }

  private:
    void FindPartitions()
    {
        state_.ranges.resize(batch_.ranges.size());
        state_.range_partitions.resize(batch_.ranges.size());
        for (size_t i = 0; i < batch_.ranges.size(); i++) {
            RangeProgress &range = state_.ranges[i];
            range.partition = pipeline_->Find(batch_.ranges[i].topic, batch_.ranges[i].partition);
            if (range.partition == nullptr)
                throw Fenced{};
            // A batch begins where the table ends, or it would leave records out.
            if (state_.begin == 0 &&
                batch_.ranges[i].expected_offset != range.partition->next_offset)
                throw Fenced{};
            state_.range_partitions[i] = range.partition;
        }
        state_.outcomes.assign(batch_.records.size(), Outcome::kPending);
        for (uint32_t i = state_.begin; i < state_.end; i++)
            if (batch_.records[i].reject.code != decode::RejectCode::kNone)
                state_.outcomes[i] = Outcome::kRejected;
    }

    void MarkSingleRecord()
    {
        if (state_.end - state_.begin != 1)
            return;
        const store::OwnedPartition &partition = *state_.range(state_.begin).partition;
        my_flight->writing.Set(partition.topic, partition.partition,
                               batch_.records[state_.begin].kafka_offset);
    }

    void Begin()
    {
        if (*is_stale_)
            throw Stale{};
        SetPhase(Phase::kWriting);
        pg::CallPg([this] {
            // statement_timeout is armed by postgres.c's main loop only (W14).
            enable_timeout_after(STATEMENT_TIMEOUT, pg::guc_batch_timeout_ms);
            result_.began_at = RegisterWriter();
            state_.ingested_at = GetCurrentTimestamp();
            // Not only for those of the target: a trigger may write where others wait.
            pg::InSpi([] { pg::ExecuteOnce("SET CONSTRAINTS ALL IMMEDIATE"); });
        });
    }

    // ---- offsets ----

    // Fills in new_offset of each range for records [begin, reached).
    void PlanOffsets(uint32_t reached)
    {
        state_.reached = reached;
        for (RangeProgress &range : state_.ranges)
            range.new_offset = -1;
        for (uint32_t i = state_.begin; i < reached; i++)
            state_.range(i).new_offset = batch_.records[i].kafka_offset + 1;
        bool is_last = reached == batch_.records.size();
        for (size_t i = 0; i < state_.ranges.size(); i++)
            if (is_last && batch_.ranges[i].next_offset > state_.ranges[i].partition->next_offset)
                state_.ranges[i].new_offset =
                    batch_.ranges[i].next_offset; // behind control records too
    }

    // In (topic, partition) order, so that two owners of several partitions can't deadlock.
    std::vector<RangeProgress *> MovedRanges()
    {
        std::vector<RangeProgress *> moved;
        for (RangeProgress &range : state_.ranges)
            if (range.new_offset >= 0)
                moved.push_back(&range);
        std::sort(moved.begin(), moved.end(),
                  [](const RangeProgress *left, const RangeProgress *right) {
                      int order = strcmp(left->partition->topic, right->partition->topic);
                      return order != 0 ? order < 0
                                        : left->partition->partition < right->partition->partition;
                  });
        return moved;
    }

    void MoveOffsets()
    {
        PlanOffsets(state_.end);
        std::vector<RangeProgress *> moved = MovedRanges();
        bool is_ours = true;
        pg::CallPg([&] {
            pg::InSpi([&] {
                for (RangeProgress *range : moved)
                    is_ours = is_ours && store::MoveOffset(state_.name(), *range->partition,
                                                           range->new_offset);
            });
        });
        if (!is_ours)
            throw Fenced{};
    }

    // The batch ended early: the fence rows go back to what was reached.
    void ShortenOffsets(uint32_t reached)
    {
        std::vector<RangeProgress *> before = MovedRanges();
        PlanOffsets(reached);
        pg::CallPg([&] {
            pg::InSpi([&] {
                for (RangeProgress *range : before)
                    store::CorrectOffset(state_.name(), *range->partition,
                                         range->new_offset >= 0 ? range->new_offset
                                                                : range->partition->next_offset);
            });
        });
    }

    void InsertRows()
    {
        uint32_t reached = InsertBatchRows(&state_);
        if (reached < state_.end)
            ShortenOffsets(reached);
        if (*is_stale_)
            throw Stale{}; // the table changed while the INSERT waited for it
    }

    // ---- what became of each record ----

    // Per partition: added to the row that the fence locked.
    void AddCounts()
    {
        for (uint32_t i = state_.begin; i < state_.reached; i++)
            CountRecord(i);
        for (RangeProgress &range : state_.ranges) {
            if (range.counts.records > 0)
                range.last = LastOf(range);
            result_.counts.records += range.counts.records;
            result_.counts.rows += range.counts.rows;
            result_.counts.duplicates += range.counts.duplicates;
            result_.counts.rejects += range.counts.rejects;
            result_.counts.filtered += range.counts.filtered;
        }
        std::vector<RangeProgress *> moved = MovedRanges();
        pg::CallPg([&] {
            pg::InSpi([&] {
                for (RangeProgress *range : moved) {
                    (void)store::ResolveLetters(state_.name(), *range->partition,
                                                range->read_again.data(),
                                                static_cast<int>(range->read_again.size()));
                    if (range->counts.records > 0)
                        store::AddCounts(state_.name(), *range->partition, range->counts,
                                         range->last);
                }
                pending_log_ = AddToLog(*log_, state_.name(), pipeline_->slot, result_.began_at,
                                        result_.counts);
            });
        });
    }

    void CountRecord(uint32_t i)
    {
        const ingest::Record &record = batch_.records[i];
        const Outcome outcome = state_.outcomes[i];
        RangeProgress &range = state_.range(i);
        range.counts.records++;
        result_.counts.bytes += static_cast<int64_t>(record.value.size());
        range.last_record = i;
        if (outcome == Outcome::kInserted)
            range.counts.rows++;
        else if (outcome == Outcome::kDuplicate || state_.known_letters.contains(i))
            range.counts.duplicates++;
        else if (outcome == Outcome::kFiltered)
            range.counts.filtered++;
        else
            range.counts.rejects++;
        const bool is_row = outcome == Outcome::kInserted || outcome == Outcome::kDuplicate;
        if (record.kafka_offset < range.partition->highest_offset && is_row)
            range.read_again.push_back(record.kafka_offset);
    }

    Fingerprint LastOf(const RangeProgress &range) const
    {
        const ingest::Record &last = batch_.records[range.last_record];
        return FingerprintOf(last.kafka_offset, last.timestamp_ms, last.key, last.value);
    }

    // Fresh records only: what was read before has been judged before. What an operator accepted
    // is judged already, too.
    bool IsJudged(uint32_t i)
    {
        const store::OwnedPartition &partition = *state_.range(i).partition;
        return batch_.records[i].kafka_offset < partition.highest_offset ||
               batch_.records[i].kafka_offset < partition.rejects_accepted_to;
    }

    void CheckBreaker()
    {
        breaker_ = pipeline_->breaker;
        for (uint32_t i = state_.begin; i < state_.reached; i++)
            if (!IsJudged(i))
                breaker_.Add(state_.outcomes[i] == Outcome::kRejected);
        if (breaker_.IsTripped(pg::guc_max_error_ratio,
                               static_cast<uint32_t>(pg::guc_error_ratio_min_records)))
            throw Tripped{};
    }

    // ---- after it ----

    void End()
    {
        NoteWritten();
        pg::CallPg([] {
            disable_timeout(STATEMENT_TIMEOUT, false);
            UnregisterWriter();
        });
    }

    void Committed()
    {
        result_.committed_at = pg::CallPg([] { return GetCurrentTimestamp(); });
        pipeline_->breaker = breaker_;
        pipeline_->plain_inserts.BatchDone();
        *log_ = pending_log_;
        NoteCommitted(state_.reached - state_.begin);
        for (RangeProgress &range : state_.ranges) {
            if (range.new_offset < 0)
                continue;
            NotePassed(range.partition->topic, range.partition->partition, range.new_offset);
            range.partition->next_offset = range.new_offset;
            range.partition->highest_offset =
                std::max(range.partition->highest_offset, range.new_offset);
        }
    }

    PipelineState *pipeline_;
    const ingest::Batch &batch_;
    BatchLog *log_;
    const volatile bool *is_stale_;
    BatchState state_;
    ingest::Breaker breaker_;
    BatchLog pending_log_;
    BatchResult result_;
};

} // namespace

BatchResult
WriteBatch(PipelineState *pipeline, const ingest::Batch &batch, uint32_t begin, uint32_t end,
           BatchLog *log, const volatile bool *is_stale)
{
    return BatchTransaction(pipeline, batch, begin, end, log, is_stale).Run();
}

} // namespace pulse::worker
