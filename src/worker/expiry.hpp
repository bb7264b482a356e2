// Retention of a pipeline's rows: drops what is older, oldest first, and says in shared memory (and
// in the log, when it changes) why it cannot, if it cannot. In the upkeep process. Regime: C++ with
// doors.
#pragma once

#include <string>

namespace pulse::worker {

void DropExpiredPartitions(const std::string &pipeline);

// No pipeline has a retention any more: nothing is in its way.
void ForgetExpiryTrouble();

} // namespace pulse::worker
