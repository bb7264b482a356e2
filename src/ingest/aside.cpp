#include "ingest/aside.hpp"

#include <atomic>

#include "ingest/thread.hpp"

namespace pulse::ingest {

namespace {

std::atomic<int> closing_count{0};

} // namespace

int
ClosingCount()
{
    return closing_count;
}

void
DestroyAside(void *object, void (*destroy)(void *)) noexcept
{
    if (object == nullptr)
        return;
    closing_count++;
    auto close = [object, destroy] {
        destroy(object);
        closing_count--;
    };
    try {
        StartThread(close).detach();
    } catch (...) {
        close();
    }
}

} // namespace pulse::ingest
