// A thread of our own inside a PostgreSQL process: every signal is blocked in it, so that
// PostgreSQL's handlers run on the main thread only (R3), and an eventfd tells the backend's latch
// wait about it. Regime: C++.
#pragma once

#include <csignal>
#include <cstdint>
#include <pthread.h>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>
#include <utility>

namespace pulse::ingest {

template <typename F>
std::thread
StartThread(F &&body)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread thread;
    try {
        thread = std::thread(std::forward<F>(body)); // inherits the mask
    } catch (...) {
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
}

// A counter that can be polled: Raise() from one thread, Clear() from the one that waits on fd().
class EventFd {
  public:
    EventFd() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
    ~EventFd() { close(fd_); }
    EventFd(const EventFd &) = delete;
    EventFd &operator=(const EventFd &) = delete;

    int fd() const { return fd_; }

    void Raise()
    {
        uint64_t one = 1;
        (void)!write(fd_, &one, sizeof(one)); // can only fail when it is readable anyway
    }

    void Clear()
    {
        uint64_t count;
        (void)!read(fd_, &count, sizeof(count));
    }

  private:
    int fd_;
};

} // namespace pulse::ingest
