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

// The counter in shared memory is what CountOutbox() says, unless that was asked a moment ago.
pg::OutboxDepth
Recount()
{
    pg::OutboxCount count;
    if (pg::BeginOutboxCount(&count))
        pg::EndOutboxCount(count, store::CountOutbox(pg::GetOutboxDepth().mine));
    return pg::GetOutboxDepth();
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
    if (!pg::IsHome())
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("pulse does not run in this database: nothing would be sent"),
                        errhint("Produce in the database that pulse.database names, \"%s\".",
                                pg::guc_database)));
    PreventCommandDuringRecovery("pulse.produce()");
    pg::OutboxDepth depth = pg::GetOutboxDepth();
    if (!depth.is_known) // the first call since the server started
        depth = sqlapi::Recount();
    if (depth.rows + depth.mine >= pg::guc_max_queue_depth &&
        depth.mine < pg::guc_max_queue_depth) // rows may be gone that nobody has sent
        depth = sqlapi::Recount();
    if (depth.rows + depth.mine >= pg::guc_max_queue_depth)
        sqlapi::Refuse(depth);
    pg::CountOutgoing();
    PG_RETURN_VOID();
}

PULSE_SQL_FUNCTION(pulse_outbox_depth)
{
    if (pg::shared == nullptr)
        PG_RETURN_NULL();
    // Shared memory is not about the rows of a standby, nor about those of another database.
    if (RecoveryInProgress() || !pg::IsHome())
        PG_RETURN_INT64(store::CountOutbox(0));
    pg::OutboxDepth depth = pg::GetOutboxDepth();
    if (!depth.is_known)
        depth = sqlapi::Recount();
    PG_RETURN_INT64(depth.rows);
}
