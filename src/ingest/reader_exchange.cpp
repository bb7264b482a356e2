#include "ingest/reader_exchange.hpp"

#include <cstring>
#include <poll.h>
#include <utility>

namespace pulse::ingest {

namespace {

bool
IsAboutPartition(const Notice &notice)
{
    return notice.partition >= 0;
}

bool
ComesAgain(const Notice &notice)
{
    return notice.kind == Notice::Kind::kClientError ||
           notice.kind == Notice::Kind::kPartitionError;
}

} // namespace

ReaderExchange::ReaderExchange(size_t queue_bytes, std::shared_ptr<const decode::Mapping> mapping)
    : queue_bytes_(queue_bytes), mapping_(std::move(mapping))
{
}

// ---- the backend's side ----

void
ReaderExchange::Assign(std::vector<PartitionOffset> partitions, std::vector<SetAside> set_aside)
{
    std::lock_guard<std::mutex> guard(mutex_);
    assignment_++;
    wanted_ = Assignment{assignment_, std::move(partitions), std::move(set_aside)};
    ready_.clear();
    ready_bytes_ = 0;
    queued_records_ = 0;
    std::erase_if(notices_, IsAboutPartition); // they were about the assignment before
    command_event_.Raise();
}

void
ReaderExchange::SetMapping(std::shared_ptr<const decode::Mapping> mapping)
{
    std::lock_guard<std::mutex> guard(mutex_);
    mapping_ = std::move(mapping);
}

std::unique_ptr<Batch>
ReaderExchange::Take()
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
    bool was_full = ready_bytes_ + filling_bytes_ >= queue_bytes_;
    ready_bytes_ -= batch->bytes();
    queued_records_ -= batch->records.size();
    if (was_full)
        command_event_.Raise();
    return batch;
}

std::vector<Notice>
ReaderExchange::TakeNotices()
{
    std::lock_guard<std::mutex> guard(mutex_);
    if (has_failed_.exchange(false))
        notices_.push_back({Notice::Kind::kFailed, "", -1, -1, failure_});
    return std::exchange(notices_, {});
}

void
ReaderExchange::Mirror(std::vector<PartitionOffset> offsets)
{
    std::lock_guard<std::mutex> guard(mutex_);
    mirror_ = std::move(offsets);
    command_event_.Raise();
}

size_t
ReaderExchange::QueuedRecords() const
{
    size_t queued = queued_records_; // first: an offered batch goes from the other to this
    return queued + filling_records_;
}

void
ReaderExchange::Stop()
{
    is_stopped_ = true;
    command_event_.Raise();
}

// ---- the thread's side ----

ReaderCommands
ReaderExchange::TakeCommands()
{
    std::lock_guard<std::mutex> guard(mutex_);
    return {std::exchange(wanted_, std::nullopt), mapping_, std::exchange(mirror_, {})};
}

bool
ReaderExchange::WaitForCommand(int timeout_ms, int other_fd)
{
    pollfd fds[2] = {{command_event_.fd(), POLLIN, 0}, {other_fd, POLLIN, 0}}; // -1 is left out
    (void)poll(fds, 2, timeout_ms);
    command_event_.Clear();
    return (fds[0].revents & POLLIN) != 0;
}

void
ReaderExchange::NoteFilling(size_t bytes, size_t records)
{
    filling_bytes_ = bytes;
    filling_records_ = records;
}

bool
ReaderExchange::IsFull() const
{
    std::lock_guard<std::mutex> guard(mutex_);
    return ready_bytes_ + filling_bytes_ >= queue_bytes_ && !ready_.empty();
}

bool
ReaderExchange::IsHungry() const
{
    std::lock_guard<std::mutex> guard(mutex_);
    return is_hungry_;
}

void
ReaderExchange::Offer(std::unique_ptr<Batch> batch)
{
    std::lock_guard<std::mutex> guard(mutex_);
    NoteFilling(0, 0); // before it is counted as ready: never both
    if (batch->assignment != assignment_)
        return;
    ready_bytes_ += batch->bytes();
    queued_records_ += batch->records.size();
    ready_.push_back(std::move(batch));
    is_hungry_ = false;
    ready_event_.Raise();
}

void
ReaderExchange::AddNotice(Notice notice)
{
    std::lock_guard<std::mutex> guard(mutex_);
    if (IsAboutPartition(notice) && wanted_.has_value())
        return;
    if (ComesAgain(notice) && notices_.size() >= kMaxNotices) // the backend is busy
        return;
    notices_.push_back(std::move(notice));
    ready_event_.Raise();
}

void
ReaderExchange::Fail(const char *text) noexcept
{
    std::strncpy(failure_, text, sizeof(failure_) - 1);
    has_failed_ = true;
    ready_event_.Raise();
}

} // namespace pulse::ingest
