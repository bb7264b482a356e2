// The part of pulse.produce() that is not SQL: is there room in the outbox, and counting. Regime:
// PG.
#include <cmath>

#include "base/topic_name.hpp"
#include "pg/guc.hpp"
#include "pg/outbox_depth.hpp"
#include "pg/shmem.hpp"
#include "store/outbox.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

namespace {

constexpr double kRetryUnknownMs = 5000; // nothing was sent lately
constexpr double kRetryMaxMs = 60000;

// Until a twentieth of the queue is free, at the rate of the last second.
int64_t
RetryAfterMs(const pg::OutboxDepth &depth)
{
    if (depth.sent_per_second <= 0)
        return static_cast<int64_t>(kRetryUnknownMs);
    double limit = pg::guc_max_queue_depth;
    double rows = static_cast<double>(depth.rows) - limit + limit / 20 + 1;
    double wait_ms = std::ceil(rows * 1000 / depth.sent_per_second);
    return static_cast<int64_t>(Min(Max(wait_ms, 10), kRetryMaxMs));
}

void
Refuse(const pg::OutboxDepth &depth)
{
    if (depth.mine >= pg::guc_max_queue_depth)
        ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                        errmsg("this transaction has produced %lld records, as many as "
                               "pulse.max_queue_depth allows to wait",
                               static_cast<long long>(depth.mine)),
                        errhint("Commit now and then, or raise pulse.max_queue_depth.")));
    ereport(ERROR,
            (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
             errmsg("%lld records wait to be sent, pulse.max_queue_depth is %d",
                    static_cast<long long>(depth.rows + depth.mine), pg::guc_max_queue_depth),
             errdetail("pulse.stat_sender says how sending goes."),
             errhint("retry after %lld ms", static_cast<long long>(RetryAfterMs(depth)))));
}

} // namespace

} // namespace pulse::sqlapi

using namespace pulse;

PULSE_SQL_FUNCTION(pulse_admit_outgoing)
{
    const char *topic = text_to_cstring(PG_GETARG_TEXT_PP(0));
    if (!IsTopicName(topic))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("bad topic name \"%s\"", topic), errhint("%s", kTopicNameHint)));
    pg::RequireSharedMemory();
    pg::OutboxDepth depth = pg::GetOutboxDepth();
    if (!depth.is_known) { // the first call since the server started
        pg::SetOutboxDepth(store::CountOutbox());
        depth = pg::GetOutboxDepth();
    }
    if (depth.rows + depth.mine >= pg::guc_max_queue_depth)
        sqlapi::Refuse(depth);
    pg::CountOutgoing();
    PG_RETURN_VOID();
}

PULSE_SQL_FUNCTION(pulse_outbox_depth)
{
    if (pg::shared == nullptr)
        PG_RETURN_NULL();
    pg::OutboxDepth depth = pg::GetOutboxDepth();
    if (!depth.is_known) {
        pg::SetOutboxDepth(store::CountOutbox());
        depth = pg::GetOutboxDepth();
    }
    PG_RETURN_INT64(depth.rows);
}
