// Which slice of a batch to insert next, so that the rows PostgreSQL refuses end up alone. A
// failure whose row is known costs one aborted subtransaction; one raised at the end of the
// statement is halved. After max_attempts subtransactions the batch ends at reached(): more would
// overflow the cache of subtransactions in PGPROC and slow every snapshot of the server (W18).
// Regime: C++, pure.
#pragma once

#include <cstdint>
#include <vector>

namespace pulse::ingest {

struct Slice {
    uint32_t begin;
    uint32_t end;
};

class Bisect {
  public:
    Bisect(uint32_t begin, uint32_t end, int max_attempts);

    // The next slice to try, left to right; false when all is settled or the attempts are used up.
    // Taking the next one means the one before is settled or was reported as failed.
    bool Next(Slice *slice);
    // The statement failed while it worked on this record: it is bad, what precedes it is tried
    // again.
    void FailedAt(uint32_t record);
    // The statement failed as a whole. Returns true when the slice was one record, which is then
    // bad.
    bool FailedSomewhere();

    // Every record before it is settled: inserted or bad.
    uint32_t reached() const;

  private:
    std::vector<Slice> pending_; // back = leftmost
    Slice current_{};
    uint32_t end_;
    int attempts_left_;
};

} // namespace pulse::ingest
