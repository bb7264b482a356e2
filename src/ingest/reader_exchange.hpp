// What the backend and the reader thread exchange: an assignment, a mapping and offsets to mirror
// one way, batches and notices the other. The mutex is inside; neither side holds it while it
// works, and each wakes the other by an eventfd. What was read under an assignment that is over
// never reaches the backend. Regime: C++, both threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/types.hpp"
#include "decode/mapping.hpp"
#include "ingest/batch.hpp"
#include "ingest/reader.hpp"
#include "ingest/thread.hpp"

namespace pulse::ingest {

struct Assignment {
    uint64_t number; // Batch::assignment of what is read under it
    std::vector<PartitionOffset> partitions;
    std::vector<SetAside> set_aside;
};

struct ReaderCommands {
    std::optional<Assignment> assignment;           // when there is a new one
    std::shared_ptr<const decode::Mapping> mapping; // the current one
    std::vector<PartitionOffset> mirror;            // empty = nothing to mirror
};

class ReaderExchange {
  public:
    static constexpr size_t kMaxNotices = 1000; // beyond them none that comes again is kept

    ReaderExchange(size_t queue_bytes, std::shared_ptr<const decode::Mapping> mapping);
    ReaderExchange(const ReaderExchange &) = delete;
    ReaderExchange &operator=(const ReaderExchange &) = delete;

    // ---- the backend's side: as reader.hpp describes it ----

    int fd() const { return ready_event_.fd(); }
    void Assign(std::vector<PartitionOffset> partitions, std::vector<SetAside> set_aside);
    void SetMapping(std::shared_ptr<const decode::Mapping> mapping);
    std::unique_ptr<Batch> Take();
    std::vector<Notice> TakeNotices();
    void Mirror(std::vector<PartitionOffset> offsets);
    size_t QueuedRecords() const;
    void Stop();

    // ---- the thread's side ----

    bool IsStopped() const { return is_stopped_; }
    // What has been asked for since the last call.
    ReaderCommands TakeCommands();
    // Until the backend has woken the thread, other_fd is readable, or timeout_ms are over. True
    // when it was the backend.
    bool WaitForCommand(int timeout_ms, int other_fd = -1);

    // The batch being filled has so much; it counts as queued from now on.
    void NoteFilling(size_t bytes, size_t records);
    // Nothing more is to be read before the backend takes a batch.
    bool IsFull() const;
    // The backend asked in vain.
    bool IsHungry() const;
    // The batch being filled is complete.
    void Offer(std::unique_ptr<Batch> batch);
    // One about a partition is dropped when the backend has assigned anew.
    void AddNotice(Notice notice);
    // The last word of the thread. Allocates nothing: that there is no memory left may be the
    // reason.
    void Fail(const char *text) noexcept;

  private:
    const size_t queue_bytes_;
    EventFd ready_event_;   // thread -> backend
    EventFd command_event_; // backend -> thread

    mutable std::mutex mutex_;         // guards this block
    uint64_t assignment_ = 0;          // the number of the newest
    std::optional<Assignment> wanted_; // it, until the thread takes it
    std::shared_ptr<const decode::Mapping> mapping_;
    std::vector<PartitionOffset> mirror_;
    std::deque<std::unique_ptr<Batch>> ready_;
    size_t ready_bytes_ = 0;
    bool is_hungry_ = false;
    std::vector<Notice> notices_;

    std::atomic<bool> is_stopped_{false};
    char failure_[256] = ""; // written before has_failed_
    std::atomic<bool> has_failed_{false};
    std::atomic<size_t> queued_records_{0}; // in ready_
    std::atomic<size_t> filling_records_{0};
    std::atomic<size_t> filling_bytes_{0};
};

} // namespace pulse::ingest
