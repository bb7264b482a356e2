#include "worker/batch_transaction.hpp"

#include <algorithm>
#include <unordered_set>

#include "base/error_class.hpp"
#include "base/fault.hpp"
#include "ingest/bisect.hpp"
#include "ingest/counter_deltas.hpp"
#include "pg/guc.hpp"
#include "pg/xact.hpp"
#include "store/counters.hpp"
#include "store/dead_letters.hpp"
#include "store/partitions.hpp"
#include "store/time.hpp"
#include "store/writer.hpp"
#include "worker/status.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

using store::Outcome;

constexpr int kMaxSubtransactions = 32;
constexpr int64_t kLogEveryUs = 1000000;

struct Fenced {};
struct Tripped {};
struct Stale {};

struct SqlReject {
    uint32_t record;
    pg::Error error;
};

// Progress of one range of the batch within this transaction.
struct RangeProgress {
    store::OwnedPartition *partition = nullptr;
    int64_t new_offset = -1; // -1 = untouched
    int64_t last_timestamp = 0;
    store::PartitionCounts counts{};
    std::vector<int64_t> read_again;     // offsets below highest_offset that are rows now
    std::vector<int64_t> rejected_again; // and that are rejects now, without a letter before
};

class BatchTransaction {
  public:
    BatchTransaction(Pipeline *pipeline, const ingest::Batch &batch, uint32_t begin, uint32_t end,
                     BatchLog *log, const volatile bool *is_stale)
        : pipeline_(pipeline), batch_(batch), begin_(begin), end_(end), log_(log),
          is_stale_(is_stale)
    {
        name_ = pipeline->definition.name;
    }

    BatchResult Run()
    {
        try {
            FindPartitions();
            MakeTargetPartitions();
            pg::InTransaction([this] {
                Begin();
                PULSE_FAULT("after_begin");
                MoveOffsets();
                PULSE_FAULT("after_fence");
                InsertRows();
                if (*is_stale_)
                    throw Stale{}; // the table changed while the INSERT waited for it
                PULSE_FAULT("after_insert");
                WriteLetters();
                PULSE_FAULT("after_letters");
                AddToCounters();
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
        } catch (...) {
            End();
            throw;
        }
        End();
        if (result_.end == BatchEnd::kCommitted)
            Committed();
        return std::move(result_);
    }

  private:
    bool IsLast() const { return result_.reached == batch_.records.size(); }

    void FindPartitions()
    {
        ranges_.resize(batch_.ranges.size());
        range_partitions_.resize(batch_.ranges.size());
        for (size_t i = 0; i < batch_.ranges.size(); i++) {
            for (store::OwnedPartition &partition : pipeline_->partitions)
                if (partition.partition == batch_.ranges[i].partition &&
                    batch_.ranges[i].topic == partition.topic)
                    ranges_[i].partition = &partition;
            if (ranges_[i].partition == nullptr)
                throw Fenced{};
            // A batch begins where the table ends, or it would leave records out.
            if (begin_ == 0 &&
                batch_.ranges[i].expected_offset != ranges_[i].partition->next_offset)
                throw Fenced{};
            range_partitions_[i] = ranges_[i].partition;
        }
        outcomes_.assign(batch_.records.size(), Outcome::kPending);
        for (uint32_t i = begin_; i < end_; i++)
            if (batch_.records[i].reject.code != decode::RejectCode::kNone)
                outcomes_[i] = Outcome::kRejected;
    }

    // ---- before the transaction: the partitions of a managed target ----

    int64_t BucketOf(const ingest::Record &record) const
    {
        const Cell &cell = record.cells[pipeline_->target.event_time_cell];
        bool is_hourly = pipeline_->target.partition_unit[0] == 'h';
        int64_t width_us =
            is_hourly ? ingest::CounterDeltas::kHourUs : ingest::CounterDeltas::kDayUs;
        int64_t rest = cell.integer % width_us;
        return cell.integer - (rest < 0 ? rest + width_us : rest);
    }

    void MakeTargetPartitions()
    {
        if (!pipeline_->target.is_managed || pipeline_->target.event_time_cell < 0)
            return;
        for (uint32_t i = begin_; i < end_; i++) {
            if (outcomes_[i] != Outcome::kPending)
                continue;
            int64_t bucket = BucketOf(batch_.records[i]);
            if (pipeline_->leaves.contains(bucket))
                continue;
            int64_t timestamp = store::FromUnixUs(
                batch_.records[i].cells[pipeline_->target.event_time_cell].integer);
            unsigned int leaf = 0;
            pg::InTransaction([&] {
                pg::CallPg([&] {
                    if (store::FindLeaf(pipeline_->target, timestamp) == InvalidOid)
                        store::EnsurePartition(pipeline_->target, timestamp);
                });
            });
            pg::InTransaction([&] { leaf = pg::CallPg([&] { return LeafOfBucket(bucket); }); });
            pipeline_->leaves[bucket] = leaf;
        }
    }

    // PG regime. The leaf when one holds the whole bucket and may be written directly, else 0.
    unsigned int LeafOfBucket(int64_t bucket_us) const
    {
        if (!pipeline_->may_use_leaf)
            return InvalidOid;
        bool is_hourly = pipeline_->target.partition_unit[0] == 'h';
        int64_t width_us =
            is_hourly ? ingest::CounterDeltas::kHourUs : ingest::CounterDeltas::kDayUs;
        int64_t first = store::FromUnixUs(bucket_us);
        Oid leaf = store::FindLeaf(pipeline_->target, first);
        if (leaf != store::FindLeaf(pipeline_->target, first + width_us - 1) || !OidIsValid(leaf))
            return InvalidOid;
        return get_rel_relkind(leaf) == RELKIND_RELATION ? leaf : InvalidOid;
    }

    // ---- the transaction ----

    void Begin()
    {
        if (*is_stale_)
            throw Stale{};
        SetPhase(Phase::kWriting);
        pg::CallPg([this] {
            // statement_timeout is armed by postgres.c's main loop only (W14).
            enable_timeout_after(STATEMENT_TIMEOUT, pg::guc_batch_timeout_ms);
            result_.began_at = RegisterWriter();
            ingested_at_ = GetCurrentTimestamp();
            if (pipeline_->target.has_deferrable)
                pg::InSpi([] { pg::ExecuteOnce("SET CONSTRAINTS ALL IMMEDIATE"); });
        });
    }

    // Fills in new_offset of each range for records [begin_, reached).
    void PlanOffsets(uint32_t reached)
    {
        result_.reached = reached;
        for (RangeProgress &range : ranges_)
            range.new_offset = -1;
        for (uint32_t i = begin_; i < reached; i++)
            ranges_[batch_.records[i].range_index].new_offset = batch_.records[i].kafka_offset + 1;
        for (size_t i = 0; i < ranges_.size(); i++)
            if (IsLast() && batch_.ranges[i].next_offset > ranges_[i].partition->next_offset)
                ranges_[i].new_offset = batch_.ranges[i].next_offset; // behind control records too
    }

    // In (topic, partition) order, so that two owners of several partitions can't deadlock.
    std::vector<RangeProgress *> MovedRanges()
    {
        std::vector<RangeProgress *> moved;
        for (RangeProgress &range : ranges_)
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
        PlanOffsets(end_);
        std::vector<RangeProgress *> moved = MovedRanges();
        bool is_ours = true;
        pg::CallPg([&] {
            pg::InSpi([&] {
                for (RangeProgress *range : moved)
                    is_ours =
                        is_ours && store::MoveOffset(name_, *range->partition, range->new_offset);
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
                    store::CorrectOffset(name_, *range->partition,
                                         range->new_offset >= 0 ? range->new_offset
                                                                : range->partition->next_offset);
            });
        });
    }

    unsigned int LeafOf(ingest::Slice slice) const
    {
        if (!pipeline_->target.is_managed || pipeline_->target.event_time_cell < 0)
            return 0;
        bool is_first = true;
        unsigned int leaf = 0;
        for (uint32_t i = slice.begin; i < slice.end; i++) {
            if (outcomes_[i] != Outcome::kPending)
                continue;
            auto entry = pipeline_->leaves.find(BucketOf(batch_.records[i]));
            unsigned int own = entry == pipeline_->leaves.end() ? 0 : entry->second;
            if (own == 0 || (!is_first && own != leaf))
                return 0;
            leaf = own;
            is_first = false;
        }
        return leaf;
    }

    void InsertRows()
    {
        ingest::Bisect bisect(begin_, end_, kMaxSubtransactions);
        ingest::Slice slice;
        if (begin_ < end_ && !HasReadAgain() && pipeline_->plain_inserts.MayTry() &&
            TryPlainInsert())
            return;
        while (bisect.Next(&slice)) {
            bool has_pending =
                std::any_of(outcomes_.begin() + slice.begin, outcomes_.begin() + slice.end,
                            [](Outcome outcome) { return outcome == Outcome::kPending; });
            if (has_pending)
                InsertSlice(slice, &bisect);
        }
        if (bisect.reached() < end_)
            ShortenOffsets(bisect.reached());
    }

    // Records that were read before are mostly duplicates.
    bool HasReadAgain() const
    {
        for (uint32_t i = begin_; i < end_; i++)
            if (batch_.records[i].kafka_offset <
                range_partitions_[batch_.records[i].range_index]->highest_offset)
                return true;
        return false;
    }

    // All at once without looking for duplicates; false when a row is one (or bad), and nothing
    // happened.
    bool TryPlainInsert()
    {
        store::InsertJob job = JobFor({begin_, end_}, false);
        try {
            Insert(&job);
            pipeline_->plain_inserts.Worked();
            return true;
        } catch (const pg::Error &error) {
            if (ClassOf(error.sqlstate) != ErrorClass::kData || IsMissingPartition(error))
                throw;
            ResetOutcomes(job.slice);
            if (error.sqlstate == "23505")
                pipeline_->plain_inserts.Wasted();
            return false;
        }
    }

    store::InsertJob JobFor(ingest::Slice slice, bool expects_duplicates)
    {
        store::InsertJob job{};
        job.batch = &batch_;
        job.target = &pipeline_->target;
        job.partitions = range_partitions_.data();
        job.slice = slice;
        job.leaf = LeafOf(slice);
        job.expects_duplicates = expects_duplicates;
        job.role = pipeline_->role;
        job.ingested_at = ingested_at_;
        job.outcomes = outcomes_.data();
        job.current_record = store::kNoRecord;
        return job;
    }

    void Insert(store::InsertJob *job)
    {
        try {
            pg::InSubTransaction([&] { pg::CallPg([&] { store::InsertRows(job); }); });
        } catch (...) {
            store::ForgetInsertJob();
            throw;
        }
        for (int i = 0; i < job->stored_event_count; i++)
            stored_events_.push_back(job->stored_events[i]);
    }

    void ResetOutcomes(ingest::Slice slice)
    {
        for (uint32_t i = slice.begin; i < slice.end; i++)
            if (outcomes_[i] != Outcome::kRejected)
                outcomes_[i] = Outcome::kPending;
    }

    void InsertSlice(ingest::Slice slice, ingest::Bisect *bisect)
    {
        store::InsertJob job = JobFor(slice, true);
        try {
            Insert(&job);
        } catch (pg::Error &error) {
            if (ClassOf(error.sqlstate) != ErrorClass::kData || IsMissingPartition(error))
                throw;
            ResetOutcomes(slice);
            uint32_t bad = job.current_record;
            if (bad != store::kNoRecord)
                bisect->FailedAt(bad);
            else if (bisect->FailedSomewhere())
                bad = slice.begin;
            if (bad != store::kNoRecord) {
                outcomes_[bad] = Outcome::kRejected;
                sql_rejects_.push_back({bad, std::move(error)});
            }
        }
    }

    // 23514 without a constraint: no partition holds the row, because one was dropped meanwhile.
    bool IsMissingPartition(const pg::Error &error)
    {
        if (!pipeline_->target.is_managed || error.sqlstate != "23514" || !error.constraint.empty())
            return false;
        pipeline_->leaves.clear();
        return true;
    }

    store::LetterReason ReasonOf(uint32_t record) const
    {
        for (const SqlReject &reject : sql_rejects_)
            if (reject.record == record)
                return {"data",   "sql_error",          reject.error.sqlstate.c_str(),
                        "insert", reject.error.message, {}};
        const decode::Reject &reject = batch_.records[record].reject;
        const decode::RejectInfo &info = decode::InfoOf(reject.code);
        return {info.error_class.data(), info.name.data(), nullptr, "decode",
                reject.message,          reject.path};
    }

    void WriteLetters()
    {
        for (uint32_t i = begin_; i < result_.reached; i++) {
            if (outcomes_[i] != Outcome::kRejected)
                continue;
            const ingest::Record &record = batch_.records[i];
            store::LetterReason reason = ReasonOf(i);
            if (result_.breaker_example.empty())
                result_.breaker_example =
                    std::string(reason.error_code) + ": " + std::string(reason.message);
            bool is_new = pg::CallPg([&] {
                bool written = false;
                pg::InSpi([&] {
                    written = store::WriteLetter(name_, *range_partitions_[record.range_index],
                                                 record, reason);
                });
                return written;
            });
            RangeProgress &range = ranges_[record.range_index];
            if (!is_new)
                known_letters_.insert(i);
            else if (record.kafka_offset < range.partition->highest_offset)
                range.rejected_again.push_back(record.kafka_offset);
        }
        for (RangeProgress &range : ranges_)
            if (!range.rejected_again.empty())
                WithdrawLettersOfRows(&range);
    }

    // A record that was a row before and is rejected now (it has become too old, say) stays the row
    // it is.
    void WithdrawLettersOfRows(RangeProgress *range)
    {
        std::vector<int64_t> found;
        found.reserve(range->rejected_again.size()); // nothing may throw inside the door
        pg::CallPg([&] {
            pg::InSpi([&] {
                store::WithdrawLetters(
                    name_, *range->partition, pipeline_->target, range->rejected_again.data(),
                    static_cast<int>(range->rejected_again.size()),
                    [](int64_t offset, void *list) {
                        static_cast<std::vector<int64_t> *>(list)->push_back(offset);
                    },
                    &found);
            });
        });
        for (uint32_t i = begin_; i < result_.reached; i++)
            if (&ranges_[batch_.records[i].range_index] == range &&
                std::find(found.begin(), found.end(), batch_.records[i].kafka_offset) !=
                    found.end())
                known_letters_.insert(i);
    }

    void AddToCounters()
    {
        const store::Target &target = pipeline_->target;
        if (target.event_type_cell < 0 || target.event_time_cell < 0 || pg::guc_counters[0] == '\0')
            return;
        ingest::CounterDeltas minutes;
        if (target.has_row_triggers) {
            for (const store::StoredEvent &event : stored_events_)
                minutes.Add(store::ToUnixUs(event.event_timestamp),
                            {event.event_type, static_cast<size_t>(event.event_type_bytes)},
                            ingest::CounterDeltas::kMinuteUs);
        } else {
            for (uint32_t i = begin_; i < result_.reached; i++)
                if (outcomes_[i] == Outcome::kInserted)
                    minutes.Add(batch_.records[i].cells[target.event_time_cell].integer,
                                batch_.records[i].cells[target.event_type_cell].view(),
                                ingest::CounterDeltas::kMinuteUs);
        }
        ingest::CounterDeltas hours = minutes.Coarser(ingest::CounterDeltas::kHourUs);
        ingest::CounterDeltas days = hours.Coarser(ingest::CounterDeltas::kDayUs);
        std::string wanted = std::string(",") + pg::guc_counters + ",";
        std::erase(wanted, ' ');
        if (wanted.find(",minute,") != std::string::npos)
            Upsert(store::CounterKind::kMinute, &minutes);
        if (wanted.find(",hour,") != std::string::npos)
            Upsert(store::CounterKind::kHour, &hours);
        if (wanted.find(",day,") != std::string::npos)
            Upsert(store::CounterKind::kDay, &days);
        if (wanted.find(",user_day,") != std::string::npos)
            AddUserDays();
    }

    void AddUserDays()
    {
        const store::Target &target = pipeline_->target;
        if (target.user_id_cell < 0)
            return;
        ingest::CounterDeltas user_days;
        Arena names;
        auto add = [&](int64_t time_us, std::string_view user, std::string_view type) {
            char *name = names.Allocate(user.size() + 1 + type.size());
            memcpy(name, user.data(), user.size());
            name[user.size()] = '\0';
            memcpy(name + user.size() + 1, type.data(), type.size());
            user_days.Add(time_us, {name, user.size() + 1 + type.size()},
                          ingest::CounterDeltas::kDayUs);
        };
        if (target.has_row_triggers) {
            for (const store::StoredEvent &event : stored_events_)
                add(store::ToUnixUs(event.event_timestamp),
                    {event.user_id, static_cast<size_t>(event.user_id_bytes)},
                    {event.event_type, static_cast<size_t>(event.event_type_bytes)});
        } else {
            for (uint32_t i = begin_; i < result_.reached; i++) {
                const Cell *cells = batch_.records[i].cells;
                if (outcomes_[i] == Outcome::kInserted)
                    add(cells[target.event_time_cell].integer, cells[target.user_id_cell].view(),
                        cells[target.event_type_cell].view());
            }
        }
        Upsert(store::CounterKind::kUserDay, &user_days);
    }

    void Upsert(store::CounterKind kind, ingest::CounterDeltas *deltas)
    {
        const std::vector<ingest::CounterDelta> &sorted = deltas->Sorted();
        pg::CallPg([&] {
            pg::InSpi([&] {
                store::AddToCounters(kind, name_, pipeline_->slot, sorted.data(),
                                     static_cast<int>(sorted.size()));
            });
        });
    }

    // What became of each record, per partition: added to the row that the fence locked.
    void AddCounts()
    {
        for (uint32_t i = begin_; i < result_.reached; i++) {
            const ingest::Record &record = batch_.records[i];
            RangeProgress &range = ranges_[record.range_index];
            range.counts.records++;
            result_.counts.bytes += static_cast<int64_t>(record.value.size());
            range.last_timestamp = store::FromUnixMs(record.timestamp_ms);
            bool is_known_letter = outcomes_[i] == Outcome::kRejected && known_letters_.contains(i);
            if (outcomes_[i] == Outcome::kInserted)
                range.counts.rows++;
            else if (outcomes_[i] == Outcome::kDuplicate || is_known_letter)
                range.counts.duplicates++;
            else
                range.counts.rejects++;
            if (record.kafka_offset < range.partition->highest_offset &&
                outcomes_[i] != Outcome::kRejected)
                range.read_again.push_back(record.kafka_offset);
        }
        for (const RangeProgress &range : ranges_) {
            result_.counts.records += range.counts.records;
            result_.counts.rows += range.counts.rows;
            result_.counts.duplicates += range.counts.duplicates;
            result_.counts.rejects += range.counts.rejects;
        }
        std::vector<RangeProgress *> moved = MovedRanges();
        pg::CallPg([&] {
            pg::InSpi([&] {
                for (RangeProgress *range : moved) {
                    (void)store::ResolveLetters(name_, *range->partition, range->read_again.data(),
                                                static_cast<int>(range->read_again.size()));
                    if (range->counts.records > 0)
                        store::AddCounts(name_, *range->partition, range->counts,
                                         range->last_timestamp);
                }
                LogBatch();
            });
        });
    }

    // PG regime. One row a second at most, unless there is something to see.
    void LogBatch()
    {
        TimestampTz now = GetCurrentTimestamp();
        pending_log_ = *log_;
        if (pending_log_.batches++ == 0)
            pending_log_.started_at = result_.began_at;
        pending_log_.counts.records += result_.counts.records;
        pending_log_.counts.rows += result_.counts.rows;
        pending_log_.counts.duplicates += result_.counts.duplicates;
        pending_log_.counts.rejects += result_.counts.rejects;
        pending_log_.counts.bytes += result_.counts.bytes;
        pending_log_.busy_ms += static_cast<double>(now - result_.began_at) / 1000.0;
        if (now - pending_log_.logged_at < kLogEveryUs)
            return;
        store::LogBatch(name_, pipeline_->slot,
                        {pending_log_.started_at, now, pending_log_.batches,
                         pending_log_.counts.records, pending_log_.counts.rows,
                         pending_log_.counts.duplicates, pending_log_.counts.rejects,
                         pending_log_.counts.bytes, pending_log_.busy_ms, "committed"});
        pending_log_ = BatchLog{};
        pending_log_.logged_at = now;
    }

    // Fresh records only: what was read before has been judged before.
    void CheckBreaker()
    {
        breaker_ = pipeline_->breaker;
        for (uint32_t i = begin_; i < result_.reached; i++) {
            const ingest::Record &record = batch_.records[i];
            if (record.kafka_offset >= ranges_[record.range_index].partition->highest_offset)
                breaker_.Add(outcomes_[i] == Outcome::kRejected);
        }
        if (breaker_.IsTripped(pg::guc_max_error_ratio,
                               static_cast<uint32_t>(pg::guc_error_ratio_min_records)))
            throw Tripped{};
    }

    // ---- after it ----

    void End()
    {
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
        for (RangeProgress &range : ranges_) {
            if (range.new_offset < 0)
                continue;
            range.partition->next_offset = range.new_offset;
            range.partition->highest_offset =
                std::max(range.partition->highest_offset, range.new_offset);
        }
    }

    Pipeline *pipeline_;
    const ingest::Batch &batch_;
    const uint32_t begin_;
    const uint32_t end_;
    BatchLog *log_;
    const volatile bool *is_stale_;
    const char *name_;

    std::vector<RangeProgress> ranges_;
    std::vector<const store::OwnedPartition *> range_partitions_;
    std::vector<Outcome> outcomes_;
    std::vector<SqlReject> sql_rejects_;
    std::unordered_set<uint32_t> known_letters_; // rejects that are letters, or rows, already
    std::vector<store::StoredEvent> stored_events_;
    int64_t ingested_at_ = 0;
    ingest::Breaker breaker_;
    BatchLog pending_log_;
    BatchResult result_;
};

} // namespace

BatchResult
WriteBatch(Pipeline *pipeline, const ingest::Batch &batch, uint32_t begin, uint32_t end,
           BatchLog *log, const volatile bool *is_stale)
{
    return BatchTransaction(pipeline, batch, begin, end, log, is_stale).Run();
}

} // namespace pulse::worker
