// Giving up a client of Kafka without waiting for it: closing one may take as long as the network
// does, so a session that is done with it, or was cancelled in the middle, leaves that to a thread
// of its own. The process must then end by _exit(), for the thread may still be at it. Regime: C++.
#pragma once

#include <memory>

namespace pulse::ingest {

// Threads of this process that are closing something.
int ClosingCount();

// Runs destroy(object) on a thread, or here when there can be no further thread.
void DestroyAside(void *object, void (*destroy)(void *)) noexcept;

struct AsideDeleter {
    template <typename T> void operator()(T *object) const noexcept
    {
        DestroyAside(object, [](void *bytes) { delete static_cast<T *>(bytes); });
    }
};

// For a Reader, a Watcher or a ConnectionCheck inside a SQL function: whichever way the function is
// left, nothing of it stays behind and nobody waits.
template <typename T> using AsidePtr = std::unique_ptr<T, AsideDeleter>;

} // namespace pulse::ingest
