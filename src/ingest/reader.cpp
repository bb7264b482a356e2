#include "ingest/reader.hpp"

#include <algorithm>

#include "base/clock.hpp"
#include "ingest/reader_exchange.hpp"
#include "ingest/reading_positions.hpp"
#include "ingest/thread.hpp"
#include "ingest/too_large.hpp"
#include "kafka/consumer.hpp"

namespace pulse::ingest {

namespace {

constexpr int kPollsPerRound = 512;          // between two looks at commands
constexpr int64_t kReassignDelayUs = 500000; // doubled by each failure of the partition
constexpr int kMaxReassignShift = 6;
constexpr size_t kBatchBytes = 16 * 1024 * 1024; // payload and what was decoded from it

} // namespace

class Reader::Impl {
  public:
    Impl(const ReaderOptions &options, std::shared_ptr<const decode::Mapping> mapping)
        : options_(options), exchange_(options.queue_bytes, std::move(mapping))
    {
    }

    ~Impl()
    {
        if (thread_.joinable()) {
            exchange_.Stop();
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

    ReaderExchange &exchange() { return exchange_; }

  private:
    void Run()
    {
        try {
            while (!exchange_.IsStopped()) {
                ServeCommands();
                if (exchange_.IsFull()) {
                    (void)exchange_.WaitForCommand(100);
                    continue;
                }
                bool is_dry = PollSome();
                ExamineSuspect(is_dry);
                HandOver(is_dry);
                if (is_dry && !too_large_.IsRunning())
                    WaitForMessages();
            }
        } catch (const std::exception &error) {
            exchange_.Fail(error.what());
        } catch (...) {
            exchange_.Fail("unknown exception");
        }
    }

    void ServeCommands()
    {
        ReaderCommands commands = exchange_.TakeCommands();
        if (commands.assignment.has_value()) {
            current_.reset();
            NoteFilling();
        }
        if (commands.mapping != mapping_) {
            FinishCurrent(); // a batch has one mapping
            mapping_ = std::move(commands.mapping);
            decoder_ = std::make_unique<decode::Decoder>(mapping_);
        }
        if (commands.assignment.has_value()) {
            assignment_ = commands.assignment->number;
            positions_.Replace(commands.assignment->partitions,
                               std::move(commands.assignment->set_aside));
            too_large_.Cancel();
            AssignAll();
        } else if (reassign_at_us_ != 0 && MonotonicUs() >= reassign_at_us_) {
            AssignAll();
        }
        if (!commands.mirror.empty())
            consumer_->MirrorOffsets(commands.mirror);
    }

    // Everything at the last record before its position; drops what librdkafka prefetched. Lost
    // partitions are left out.
    void AssignAll()
    {
        reassign_at_us_ = 0;
        if (current_ != nullptr)
            positions_.Remember(*current_);
        Status status = consumer_->Assign(positions_.Restart());
        if (!status.ok()) {
            AddNotice("assign: " + status.message());
            reassign_at_us_ = MonotonicUs() + kReassignDelayUs;
        }
    }

    void ExamineSuspect(bool is_dry)
    {
        if (!too_large_.IsDue(is_dry))
            return;
        ReadingPosition &position = positions_.At(too_large_.Next());
        bool is_found =
            !position.IsLost() &&
            too_large_.IsTooLarge({position.topic(), position.partition(), position.next_offset()});
        if (is_found) {
            position.Lose();
            AddNotice(Notice::Kind::kTooLarge, position,
                      "the record is larger than pulse can fetch (32 MiB with all that comes "
                      "with it)");
            AssignAll();
        }
        if (is_found || !too_large_.IsRunning())
            too_large_.DropClient();
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
                // An answer was larger than the client may receive: whose was it?
                if (message_.is_too_large)
                    too_large_.Begin(positions_.Readable());
                AddNotice(message_.error_name + ": " + message_.error_text);
                break;
            case kafka::Message::Kind::kLog:
                break; // errors arrive as events as well; the rest is chatter
            }
            if (current_ != nullptr && IsCurrentFull())
                return false;
        }
        return false;
    }

    void TakeRecord()
    {
        ReadingPosition *position = FindNext();
        if (position == nullptr)
            return;
        if (IsCurrentEmpty() || (++clock_age_ & 63) == 0)
            now_us_ = WallClockUs();
        (void)RangeOf(position);
        Append(*position);
        position->Pass(message_);
    }

    void TakeEndOfPartition()
    {
        ReadingPosition *position = FindNext();
        if (position == nullptr)
            return;
        RangeOf(position).next_offset = message_.offset;
        position->Pass(message_);
    }

    // Null: not the next one of a partition of ours.
    ReadingPosition *FindNext()
    {
        ReadingPosition *position = positions_.Find(message_.topic, message_.partition);
        if (position == nullptr)
            return nullptr;
        const ReadingPosition::Verdict verdict = position->Judge(message_);
        if (position->IsBack())
            AddNotice(Notice::Kind::kPartitionBack, *position, "");
        switch (verdict) {
        case ReadingPosition::Verdict::kNext:
            return position;
        case ReadingPosition::Verdict::kNotNext:
            break;
        case ReadingPosition::Verdict::kOtherBroker:
            reassign_at_us_ = MonotonicUs();
            break;
        case ReadingPosition::Verdict::kTopicChanged:
            AddNotice(Notice::Kind::kTopicChanged, *position,
                      message_.kind == kafka::Message::Kind::kRecord
                          ? "the record at offset " + std::to_string(message_.offset) +
                                " is another one than before"
                          : "the log ends at offset " + std::to_string(message_.offset));
            break;
        }
        return nullptr;
    }

    Range &RangeOf(ReadingPosition *position)
    {
        if (current_ == nullptr) {
            current_ = std::make_unique<Batch>();
            current_->mapping = mapping_;
            current_->assignment = assignment_;
            current_since_us_ = MonotonicUs();
            positions_.BeginBatch();
        }
        if (position->range_index() < 0) {
            position->SetRange(static_cast<int32_t>(current_->ranges.size()));
            int64_t next_offset = position->next_offset();
            current_->ranges.push_back(
                {position->topic(), position->partition(), next_offset, next_offset, -1, 0});
        }
        return current_->ranges[static_cast<size_t>(position->range_index())];
    }

    void Append(const ReadingPosition &position)
    {
        uint32_t range_index = static_cast<uint32_t>(position.range_index());
        if (const SetAside *aside = position.FindSetAside(message_.offset)) {
            current_->AppendSetAside(message_, range_index, aside->code, aside->reason);
            return;
        }
        if (options_.decoding != nullptr)
            options_.decoding->Set(position.topic(), position.partition(), message_.offset);
        current_->Append(message_, range_index, *decoder_, now_us_);
        if (options_.decoding != nullptr)
            options_.decoding->Clear();
    }

    void TakePartitionError()
    {
        ReadingPosition *position = positions_.Find(message_.topic, message_.partition);
        if (position == nullptr)
            return;
        switch (position->JudgeError(message_)) {
        case ReadingPosition::Trouble::kNone:
            break;
        case ReadingPosition::Trouble::kLastGone:
            reassign_at_us_ = MonotonicUs();
            break;
        case ReadingPosition::Trouble::kLost:
            AddNotice(Notice::Kind::kOffsetLost, *position, message_.error_text);
            break;
        case ReadingPosition::Trouble::kPassing:
            AddNotice(Notice::Kind::kPartitionError, *position,
                      message_.error_name + ": " + message_.error_text);
            ReassignLater(position->failure_count());
            break;
        }
    }

    void ReassignLater(int failure_count)
    {
        int shift = std::min(failure_count - 1, kMaxReassignShift);
        int64_t at_us = MonotonicUs() + (kReassignDelayUs << shift);
        if (reassign_at_us_ == 0 || at_us < reassign_at_us_)
            reassign_at_us_ = at_us;
    }

    void AddNotice(std::string client_error)
    {
        exchange_.AddNotice({Notice::Kind::kClientError, "", -1, -1, std::move(client_error)});
    }

    void AddNotice(Notice::Kind kind, const ReadingPosition &position, std::string text)
    {
        exchange_.AddNotice({kind, position.topic(), position.partition(), position.next_offset(),
                             std::move(text)});
    }

    bool IsCurrentEmpty() const { return current_ == nullptr || current_->records.empty(); }

    // With what was decoded a batch of large records is more than twice its payload.
    bool IsCurrentFull() const
    {
        return current_->records.size() >= options_.batch_max_rows ||
               current_->payload_bytes() >= options_.batch_max_bytes ||
               current_->bytes() >= most_batch_bytes_;
    }

    // Under load the backend is busy and batches fill up; when it is hungry, whatever is there
    // goes.
    void HandOver(bool is_dry)
    {
        NoteFilling();
        if (current_ == nullptr)
            return;
        bool has_waited = MonotonicUs() - current_since_us_ >= options_.batch_max_wait_us;
        bool may_go = has_waited && (is_dry || !IsCurrentEmpty());
        if (IsCurrentFull() || (may_go && exchange_.IsHungry()))
            FinishCurrent();
    }

    void FinishCurrent()
    {
        if (current_ == nullptr)
            return;
        positions_.Remember(*current_);
        for (Range &range : current_->ranges)
            range.high_watermark = consumer_->CachedWatermarks(range.topic, range.partition).high;
        exchange_.Offer(std::move(current_));
    }

    void NoteFilling()
    {
        if (current_ == nullptr)
            exchange_.NoteFilling(0, 0);
        else
            exchange_.NoteFilling(current_->bytes(), current_->records.size());
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
        (void)exchange_.WaitForCommand(static_cast<int>(timeout_us / 1000), consumer_->wakeup_fd());
        consumer_->ClearWakeup();
    }

    const ReaderOptions options_;
    ReaderExchange exchange_;

    // The thread's own.
    std::unique_ptr<kafka::Consumer> consumer_;
    std::shared_ptr<const decode::Mapping> mapping_;
    std::unique_ptr<decode::Decoder> decoder_;
    uint64_t assignment_ = 0;
    ReadingPositions positions_;
    std::unique_ptr<Batch> current_;
    const size_t most_batch_bytes_ =
        std::min(options_.queue_bytes, std::max(options_.batch_max_bytes, kBatchBytes));
    int64_t current_since_us_ = 0;
    int64_t reassign_at_us_ = 0;
    TooLargeSearch too_large_{options_.config}; // numbers of positions_
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
    return impl_->exchange().fd();
}

void
Reader::Assign(std::vector<PartitionOffset> partitions, std::vector<SetAside> set_aside)
{
    impl_->exchange().Assign(std::move(partitions), std::move(set_aside));
}

void
Reader::SetMapping(std::shared_ptr<const decode::Mapping> mapping)
{
    impl_->exchange().SetMapping(std::move(mapping));
}

std::unique_ptr<Batch>
Reader::Take()
{
    return impl_->exchange().Take();
}

std::vector<Notice>
Reader::TakeNotices()
{
    return impl_->exchange().TakeNotices();
}

void
Reader::Mirror(std::vector<PartitionOffset> offsets)
{
    impl_->exchange().Mirror(std::move(offsets));
}

size_t
Reader::QueuedRecords() const
{
    return impl_->exchange().QueuedRecords();
}

} // namespace pulse::ingest
