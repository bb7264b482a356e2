#include "ingest/bisect.hpp"

namespace pulse::ingest {

Bisect::Bisect(uint32_t begin, uint32_t end, int max_attempts)
    : end_(end), attempts_left_(max_attempts)
{
    if (begin < end)
        pending_.push_back({begin, end});
}

bool
Bisect::Next(Slice *slice)
{
    if (pending_.empty() || attempts_left_ == 0)
        return false;
    attempts_left_--;
    current_ = pending_.back();
    pending_.pop_back();
    *slice = current_;
    return true;
}

void
Bisect::FailedAt(uint32_t record)
{
    if (record + 1 < current_.end)
        pending_.push_back({record + 1, current_.end});
    if (current_.begin < record)
        pending_.push_back({current_.begin, record});
}

bool
Bisect::FailedSomewhere()
{
    uint32_t size = current_.end - current_.begin;
    if (size == 1)
        return true;
    uint32_t middle = current_.begin + size / 2;
    pending_.push_back({middle, current_.end});
    pending_.push_back({current_.begin, middle});
    return false;
}

uint32_t
Bisect::reached() const
{
    return pending_.empty() ? end_ : pending_.back().begin;
}

} // namespace pulse::ingest
