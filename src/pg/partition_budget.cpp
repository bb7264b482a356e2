#include "pg/partition_budget.hpp"

#include "pg/guc.hpp"
#include "pg/shmem.hpp"
#include "pg/prelude.hpp"

namespace pulse::pg {

int64_t
PartitionBudgetFrom(const char *pipeline)
{
    const int64_t now = GetCurrentTimestamp();
    const int64_t hour = static_cast<int64_t>(guc_budget_hour_ms) * 1000;
    int64_t from = 0;
    LockShared();
    if (PipelineSlot *slot = FindPipeline(pipeline, false); slot != nullptr) {
        if (slot->budget_from == 0 || now - slot->budget_from >= hour) {
            slot->budget_from = now;
            slot->budget_spent = 0;
        }
        if (slot->budget_spent >= kPartitionsPerHour)
            from = slot->budget_from + hour;
    }
    UnlockShared();
    return from;
}

void
SpendPartition(const char *pipeline)
{
    LockShared();
    if (PipelineSlot *slot = FindPipeline(pipeline, false); slot != nullptr)
        slot->budget_spent++;
    UnlockShared();
}

} // namespace pulse::pg
