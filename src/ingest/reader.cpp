#include "ingest/reader.hpp"

#include <atomic>
#include <cstring>
#include <deque>
#include <mutex>
#include <poll.h>
#include <unordered_map>

#include "base/clock.hpp"
#include "base/crc32c.hpp"
#include "ingest/thread.hpp"
#include "ingest/too_large.hpp"
#include "kafka/consumer.hpp"

namespace pulse::ingest {

namespace {

constexpr size_t kMaxNotices = 1000;
constexpr int kPollsPerRound = 512;          // between two looks at commands
constexpr int64_t kReassignDelayUs = 500000; // doubled by each failure of the partition
constexpr int kMaxReassignShift = 6;
constexpr size_t kBatchBytes = 16 * 1024 * 1024; // payload and what was decoded from it

} // namespace

class Reader::Impl {
  public:
    Impl(const ReaderOptions &options, std::shared_ptr<const decode::Mapping> mapping)
        : options_(options), mapping_(std::move(mapping))
    {
    }

    ~Impl()
    {
        if (thread_.joinable()) {
            stop_ = true;
            command_event_.Raise();
            thread_.join();
        }
    }

    Status Start()
    {
        auto consumer = kafka::Consumer::Create(options_.config);
        if (!consumer.ok())
            return Status::Error(consumer.message());
        consumer_ = std::move(consumer.value());
        thread_ = StartThread([this] { Run(); });
        return Status::Ok();
    }

    // ---- backend's side ----

    int fd() const { return ready_event_.fd(); }

    void Assign(std::vector<PartitionOffset> partitions, std::vector<SetAside> set_aside)
    {
        std::lock_guard<std::mutex> guard(mutex_);
        assignment_++;
        wanted_ = std::move(partitions);
        wanted_aside_ = std::move(set_aside);
        has_assignment_ = true;
        ready_.clear();
        ready_bytes_ = 0;
        queued_records_ = 0;
        std::erase_if(notices_, IsAboutPartition); // they were about the assignment before
        command_event_.Raise();
    }

    void SetMapping(std::shared_ptr<const decode::Mapping> mapping)
    {
        std::lock_guard<std::mutex> guard(mutex_);
        mapping_ = std::move(mapping);
    }

    std::unique_ptr<Batch> Take()
    {
        ready_event_.Clear();
        std::lock_guard<std::mutex> guard(mutex_);
        if (ready_.empty()) {
            if (!is_hungry_) {
                is_hungry_ = true;
                command_event_.Raise();
            }
            return nullptr;
        }
        is_hungry_ = false;
        std::unique_ptr<Batch> batch = std::move(ready_.front());
        ready_.pop_front();
        bool was_full = ready_bytes_ + current_bytes_ >= options_.queue_bytes;
        ready_bytes_ -= batch->bytes();
        queued_records_ -= batch->records.size();
        if (was_full)
            command_event_.Raise();
        return batch;
    }

    std::vector<Notice> TakeNotices()
    {
        std::lock_guard<std::mutex> guard(mutex_);
        if (has_failed_.exchange(false))
            notices_.push_back({Notice::Kind::kFailed, "", -1, -1, failure_});
        return std::exchange(notices_, {});
    }

    void Mirror(std::vector<PartitionOffset> offsets)
    {
        std::lock_guard<std::mutex> guard(mutex_);
        mirror_ = std::move(offsets);
        command_event_.Raise();
    }

    size_t QueuedRecords() const { return queued_records_ + current_records_; }

  private:
    struct PartitionState {
        std::string topic;
        int32_t partition;
        int64_t position;        // the next record to accept
        Fingerprint last;        // of a record before it
        int32_t range_index;     // in current_, -1 = none yet
        bool is_blocked = false; // after an error, until the next assign: its records are dropped
        bool is_lost = false;
        bool is_checking = false; // reads `last` again; nothing is accepted before
        int64_t assigned_at = -1;
        int failure_count = 0;
        std::unordered_map<int64_t, SetAside> set_aside{}; // by offset
    };

    // ---- thread's side ----

    void Run()
    {
        try {
            while (!stop_) {
                ServeCommands();
                if (IsFull()) {
                    WaitForCommand(100);
                    continue;
                }
                bool is_dry = PollSome();
                ExamineSuspect(is_dry);
                HandOver(is_dry);
                if (is_dry && !too_large_.IsRunning())
                    WaitForMessages();
            }
        } catch (const std::exception &error) {
            Fail(error.what());
        } catch (...) {
            Fail("unknown exception");
        }
    }

    void ServeCommands()
    {
        std::vector<PartitionOffset> mirror;
        std::vector<SetAside> aside;
        bool must_assign = false;
        {
            std::lock_guard<std::mutex> guard(mutex_);
            if (has_assignment_) {
                has_assignment_ = false;
                must_assign = true;
                thread_assignment_ = assignment_;
                partitions_.clear();
                index_.clear();
                for (const PartitionOffset &wanted : wanted_)
                    partitions_.push_back(
                        {wanted.topic, wanted.partition, wanted.next_offset, wanted.last, -1});
            }
            if (thread_mapping_ != mapping_) {
                FinishCurrentLocked(); // a batch has one mapping
                thread_mapping_ = mapping_;
                decoder_ = std::make_unique<decode::Decoder>(thread_mapping_);
            }
            mirror = std::exchange(mirror_, {});
            if (must_assign)
                aside = std::exchange(wanted_aside_, {});
        }
        if (must_assign) {
            current_.reset();
            SetCurrentSize();
            last_partition_ = nullptr;
            for (size_t i = 0; i < partitions_.size(); i++)
                index_[partitions_[i].topic].emplace(partitions_[i].partition, i);
            for (SetAside &record : aside)
                if (PartitionState *state = Find(record.topic, record.partition))
                    state->set_aside.emplace(record.kafka_offset, std::move(record));
            too_large_.Cancel();
            AssignAll();
        } else if (reassign_at_us_ != 0 && MonotonicUs() >= reassign_at_us_) {
            AssignAll();
        }
        if (!mirror.empty())
            consumer_->MirrorOffsets(mirror);
    }

    // Everything at the last record before its position; drops what librdkafka prefetched. Lost
    // partitions are left out.
    void AssignAll()
    {
        reassign_at_us_ = 0;
        RememberLast();
        std::vector<PartitionOffset> list;
        for (PartitionState &state : partitions_) {
            state.is_blocked = false;
            if (state.is_lost)
                continue;
            state.is_checking =
                state.last.kafka_offset >= 0 && state.last.kafka_offset < state.position;
            state.assigned_at = state.is_checking ? state.last.kafka_offset : state.position;
            list.push_back({state.topic, state.partition, state.assigned_at, {}});
        }
        Status status = consumer_->Assign(list);
        if (!status.ok()) {
            AddNotice({Notice::Kind::kClientError, "", -1, -1, "assign: " + status.message()});
            reassign_at_us_ = MonotonicUs() + kReassignDelayUs;
        }
    }

    // An answer was larger than the client may receive: whose was it?
    void SuspectAll()
    {
        std::vector<size_t> suspects;
        for (size_t i = 0; i < partitions_.size(); i++)
            if (!partitions_[i].is_lost)
                suspects.push_back(i);
        too_large_.Begin(std::move(suspects));
    }

    void ExamineSuspect(bool is_dry)
    {
        if (!too_large_.IsDue(is_dry))
            return;
        PartitionState &state = partitions_[too_large_.Next()];
        bool is_found = !state.is_lost &&
                        too_large_.IsTooLarge({state.topic, state.partition, state.position, {}});
        if (is_found) {
            state.is_lost = true;
            AddNotice({Notice::Kind::kTooLarge, state.topic, state.partition, state.position,
                       "the record is larger than pulse can fetch (32 MiB with all that comes "
                       "with it)"});
            AssignAll();
        }
        if (is_found || !too_large_.IsRunning())
            too_large_.DropClient();
    }

    // The last record of each partition in the batch being filled.
    void RememberLast()
    {
        if (current_ == nullptr)
            return;
        std::vector<const Record *> last(current_->ranges.size());
        for (const Record &record : current_->records)
            last[record.range_index] = &record;
        for (PartitionState &state : partitions_) {
            const Record *record =
                state.range_index < 0 ? nullptr : last[static_cast<size_t>(state.range_index)];
            if (record != nullptr)
                state.last = FingerprintOf(record->kafka_offset, record->timestamp_ms, record->key,
                                           record->value);
        }
    }

    // True when the partition goes on. A record that is not there any more may have been compacted
    // away; where the log ends before it, the log is another one.
    bool CheckLast(PartitionState *state)
    {
        if (!state->is_checking)
            return true;
        state->is_checking = false;
        bool is_record = message_.kind == kafka::Message::Kind::kRecord;
        if (is_record ? message_.offset > state->last.kafka_offset ||
                            IsSameRecord(state->last,
                                         FingerprintOf(message_.offset, message_.timestamp_ms,
                                                       message_.key, message_.value))
                      : message_.offset > state->last.kafka_offset)
            return true;
        state->is_lost = true;
        AddNotice({Notice::Kind::kTopicChanged, state->topic, state->partition, state->position,
                   is_record ? "the record at offset " + std::to_string(message_.offset) +
                                   " is another one than before"
                             : "the log ends at offset " + std::to_string(message_.offset)});
        return false;
    }

    // Reads what is there; true when nothing more is.
    bool PollSome()
    {
        for (int i = 0; i < kPollsPerRound; i++) {
            if (!consumer_->Poll(0, &message_))
                return true;
            switch (message_.kind) {
            case kafka::Message::Kind::kRecord:
                TakeRecord();
                break;
            case kafka::Message::Kind::kEndOfPartition:
                TakeEndOfPartition();
                break;
            case kafka::Message::Kind::kPartitionError:
                TakePartitionError();
                break;
            case kafka::Message::Kind::kClientError:
                if (message_.is_too_large)
                    SuspectAll();
                AddNotice({Notice::Kind::kClientError, "", -1, -1,
                           message_.error_name + ": " + message_.error_text});
                break;
            case kafka::Message::Kind::kLog:
                break; // errors arrive as events as well; the rest is chatter
            }
            if (current_ != nullptr && IsCurrentFull())
                return false;
        }
        return false;
    }

    PartitionState *FindPartition()
    {
        if (last_partition_ != nullptr && last_partition_->partition == message_.partition &&
            last_partition_->topic == message_.topic)
            return last_partition_;
        PartitionState *state = Find(std::string(message_.topic), message_.partition);
        if (state != nullptr)
            last_partition_ = state;
        return state;
    }

    PartitionState *Find(const std::string &name, int32_t partition)
    {
        auto topic = index_.find(name);
        if (topic == index_.end())
            return nullptr;
        auto entry = topic->second.find(partition);
        return entry == topic->second.end() ? nullptr : &partitions_[entry->second];
    }

    Range &RangeOf(PartitionState *state)
    {
        if (current_ == nullptr) {
            current_ = std::make_unique<Batch>();
            current_->mapping = thread_mapping_;
            current_->assignment = thread_assignment_;
            current_since_us_ = MonotonicUs();
            for (PartitionState &other : partitions_)
                other.range_index = -1;
        }
        if (state->range_index < 0) {
            state->range_index = static_cast<int32_t>(current_->ranges.size());
            current_->ranges.push_back(
                {state->topic, state->partition, state->position, state->position, -1, 0});
        }
        return current_->ranges[static_cast<size_t>(state->range_index)];
    }

    void TakeRecord()
    {
        PartitionState *state = FindPartition();
        // The guard behind every promise: only the next record of an assigned partition is taken.
        if (state == nullptr || state->is_blocked || state->is_lost ||
            message_.offset < state->assigned_at || !CheckLast(state) ||
            message_.offset < state->position)
            return;
        if (IsCurrentEmpty() || (++clock_age_ & 63) == 0)
            now_us_ = WallClockUs();
        (void)RangeOf(state);
        Append(state);
        state->position = message_.offset + 1;
        state->failure_count = 0;
    }

    void Append(PartitionState *state)
    {
        uint32_t range_index = static_cast<uint32_t>(state->range_index);
        auto aside = state->set_aside.empty() ? state->set_aside.end()
                                              : state->set_aside.find(message_.offset);
        if (aside != state->set_aside.end()) {
            current_->AppendSetAside(message_, range_index, aside->second.code,
                                     aside->second.reason);
            return;
        }
        if (options_.decoding != nullptr)
            options_.decoding->Set(state->topic, state->partition, message_.offset);
        current_->Append(message_, range_index, *decoder_, now_us_);
        if (options_.decoding != nullptr)
            options_.decoding->Clear();
    }

    // Control records and compaction leave offsets without a record: the end of the partition is
    // the next offset to read all the same, and lag reaches zero.
    void TakeEndOfPartition()
    {
        PartitionState *state = FindPartition();
        if (state == nullptr || state->is_blocked || state->is_lost || !CheckLast(state) ||
            message_.offset <= state->position)
            return;
        Range &range = RangeOf(state);
        range.next_offset = message_.offset;
        state->position = message_.offset;
    }

    void TakePartitionError()
    {
        PartitionState *state = FindPartition();
        if (state == nullptr || state->is_lost)
            return;
        // What precedes the error is in the batch; what librdkafka has prefetched behind it is
        // dropped and read again from the position (K4).
        state->is_blocked = true;
        // An error of the assignment before names an offset that is not ours: the next assign
        // decides.
        int64_t wanted = state->is_checking ? state->assigned_at : state->position;
        bool is_stale = message_.offset >= 0 && message_.offset != wanted;
        if (message_.is_out_of_range && !is_stale && state->is_checking) {
            // Retention has passed the last record, perhaps not yet the next one.
            state->last = {};
            reassign_at_us_ = MonotonicUs();
            return;
        }
        if (message_.is_out_of_range && !is_stale) {
            state->is_lost = true;
            AddNotice({Notice::Kind::kOffsetLost, state->topic, state->partition, state->position,
                       message_.error_text});
            return;
        }
        AddNotice({Notice::Kind::kPartitionError, state->topic, state->partition, state->position,
                   message_.error_name + ": " + message_.error_text});
        int shift = std::min(state->failure_count++, kMaxReassignShift);
        int64_t at_us = MonotonicUs() + (kReassignDelayUs << shift);
        if (reassign_at_us_ == 0 || at_us < reassign_at_us_)
            reassign_at_us_ = at_us;
    }

    bool IsCurrentEmpty() const { return current_ == nullptr || current_->records.empty(); }

    // With what was decoded a batch of large records is more than twice its payload.
    bool IsCurrentFull() const
    {
        return current_->records.size() >= options_.batch_max_rows ||
               current_->payload_bytes() >= options_.batch_max_bytes ||
               current_->bytes() >= most_batch_bytes_;
    }

    bool IsFull()
    {
        std::lock_guard<std::mutex> guard(mutex_);
        return ready_bytes_ + current_bytes_ >= options_.queue_bytes && !ready_.empty();
    }

    // Under load the backend is busy and batches fill up; when it is hungry, whatever is there
    // goes.
    void HandOver(bool is_dry)
    {
        SetCurrentSize();
        if (current_ == nullptr)
            return;
        std::lock_guard<std::mutex> guard(mutex_);
        bool has_waited = MonotonicUs() - current_since_us_ >= options_.batch_max_wait_us;
        if (IsCurrentFull() || (is_hungry_ && has_waited && (is_dry || !IsCurrentEmpty())))
            FinishCurrentLocked();
    }

    void FinishCurrentLocked()
    {
        if (current_ == nullptr)
            return;
        RememberLast();
        for (Range &range : current_->ranges)
            range.high_watermark = consumer_->CachedWatermarks(range.topic, range.partition).high;
        if (current_->assignment == assignment_) {
            current_bytes_ = 0; // before it is counted as ready: never both
            current_records_ = 0;
            ready_bytes_ += current_->bytes();
            queued_records_ += current_->records.size();
            ready_.push_back(std::move(current_));
            is_hungry_ = false;
            ready_event_.Raise();
        }
        current_.reset();
        SetCurrentSize();
    }

    void SetCurrentSize()
    {
        current_bytes_ = current_ == nullptr ? 0 : current_->bytes();
        current_records_ = current_ == nullptr ? 0 : current_->records.size();
    }

    // Allocates nothing: that there is no memory left may be the reason.
    void Fail(const char *text) noexcept
    {
        std::strncpy(failure_, text, sizeof(failure_) - 1);
        has_failed_ = true;
        ready_event_.Raise();
    }

    static bool IsAboutPartition(const Notice &notice) { return notice.partition >= 0; }

    void AddNotice(Notice notice)
    {
        bool is_repeated = notice.kind == Notice::Kind::kClientError ||
                           notice.kind == Notice::Kind::kPartitionError;
        std::lock_guard<std::mutex> guard(mutex_);
        if (IsAboutPartition(notice) && thread_assignment_ != assignment_)
            return;
        if (is_repeated &&
            notices_.size() >= kMaxNotices) // the backend is busy, and they come again
            return;
        notices_.push_back(std::move(notice));
        ready_event_.Raise();
    }

    void WaitForMessages()
    {
        int64_t timeout_us = 1000000;
        if (current_ != nullptr) {
            int64_t due_us = current_since_us_ + options_.batch_max_wait_us;
            timeout_us = std::min(timeout_us, std::max<int64_t>(due_us - MonotonicUs(), 1000));
        }
        if (reassign_at_us_ != 0)
            timeout_us =
                std::min(timeout_us, std::max<int64_t>(reassign_at_us_ - MonotonicUs(), 1000));
        pollfd fds[2] = {{consumer_->wakeup_fd(), POLLIN, 0}, {command_event_.fd(), POLLIN, 0}};
        (void)poll(fds, 2, static_cast<int>(timeout_us / 1000));
        consumer_->ClearWakeup();
        command_event_.Clear();
    }

    void WaitForCommand(int timeout_ms)
    {
        pollfd fd = {command_event_.fd(), POLLIN, 0};
        (void)poll(&fd, 1, timeout_ms);
        command_event_.Clear();
    }

    const ReaderOptions options_;
    std::atomic<bool> stop_{false};
    EventFd ready_event_;   // thread -> backend
    EventFd command_event_; // backend -> thread

    mutable std::mutex mutex_; // guards this block
    std::shared_ptr<const decode::Mapping> mapping_;
    std::vector<PartitionOffset> wanted_;
    std::vector<SetAside> wanted_aside_;
    bool has_assignment_ = false;
    uint64_t assignment_ = 0;
    std::vector<PartitionOffset> mirror_;
    std::deque<std::unique_ptr<Batch>> ready_;
    size_t ready_bytes_ = 0;
    bool is_hungry_ = false;
    std::vector<Notice> notices_;

    char failure_[256] = ""; // written before has_failed_
    std::atomic<bool> has_failed_{false};
    std::atomic<size_t> queued_records_{0};
    std::atomic<size_t> current_records_{0};
    std::atomic<size_t> current_bytes_{0};

    // The thread's own.
    std::unique_ptr<kafka::Consumer> consumer_;
    std::shared_ptr<const decode::Mapping> thread_mapping_;
    std::unique_ptr<decode::Decoder> decoder_;
    uint64_t thread_assignment_ = 0;
    std::vector<PartitionState> partitions_;
    std::unordered_map<std::string, std::unordered_map<int32_t, size_t>> index_;
    PartitionState *last_partition_ = nullptr;
    std::unique_ptr<Batch> current_;
    const size_t most_batch_bytes_ =
        std::min(options_.queue_bytes, std::max(options_.batch_max_bytes, kBatchBytes));
    int64_t current_since_us_ = 0;
    int64_t reassign_at_us_ = 0;
    TooLargeSearch too_large_{options_.config}; // numbers of partitions_
    int64_t now_us_ = 0;
    uint32_t clock_age_ = 0;
    kafka::Message message_;
    std::thread thread_;
};

Reader::Reader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Reader::~Reader() = default;

Result<std::unique_ptr<Reader>>
Reader::Start(const ReaderOptions &options, std::shared_ptr<const decode::Mapping> mapping)
{
    auto impl = std::make_unique<Impl>(options, std::move(mapping));
    Status status = impl->Start();
    if (!status.ok())
        return status;
    return std::unique_ptr<Reader>(new Reader(std::move(impl)));
}

int
Reader::fd() const
{
    return impl_->fd();
}

void
Reader::Assign(std::vector<PartitionOffset> partitions, std::vector<SetAside> set_aside)
{
    impl_->Assign(std::move(partitions), std::move(set_aside));
}

void
Reader::SetMapping(std::shared_ptr<const decode::Mapping> mapping)
{
    impl_->SetMapping(std::move(mapping));
}

std::unique_ptr<Batch>
Reader::Take()
{
    return impl_->Take();
}

std::vector<Notice>
Reader::TakeNotices()
{
    return impl_->TakeNotices();
}

void
Reader::Mirror(std::vector<PartitionOffset> offsets)
{
    impl_->Mirror(std::move(offsets));
}

size_t
Reader::QueuedRecords() const
{
    return impl_->QueuedRecords();
}

} // namespace pulse::ingest
