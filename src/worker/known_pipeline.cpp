#include "worker/known_pipeline.hpp"

#include <algorithm>

#include "pg/prelude.hpp"

namespace pulse::worker {

Result<kafka::Config>
ConfigOf(const KnownPipeline &known)
{
    return ConnectionConfig(known.connection, "pulse-coordinator");
}

int64_t
NextAssignment()
{
    static int64_t last = 0;
    last = std::max(last + 1, GetCurrentTimestamp());
    return last;
}

} // namespace pulse::worker
