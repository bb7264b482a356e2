#include "store/outbox.hpp"

#include "pg/spi.hpp"
#include "store/time.hpp"

namespace pulse::store {

namespace {

#define PULSE_OUTBOX_BYTES PULSE_OUTGOING_BYTES("key", "headers")

constexpr int kOwnHeaders = 2;
constexpr int kPruneRows = 100; // at a time: large values take long to delete
constexpr int64_t kPruneForUs = 100000;

// From one topic to the next in outbox_waiting_idx.
pg::Statement select_topics = {
    "WITH RECURSIVE found AS ("
    " (SELECT topic FROM pulse.outbox WHERE sent_at IS NULL ORDER BY topic LIMIT 1)"
    " UNION ALL"
    " SELECT (SELECT o.topic FROM pulse.outbox o WHERE o.sent_at IS NULL AND o.topic > f.topic"
    "         ORDER BY o.topic LIMIT 1) FROM found f WHERE f.topic IS NOT NULL)"
    " SELECT topic FROM found WHERE topic IS NOT NULL",
    0,
    {},
    nullptr};

// All that the snapshot shows, from the smallest id on. So of two records of a key the one whose
// transaction was committed when the other was produced is never behind it.
pg::Statement select_waiting = {
    "(SELECT outbox_id, " PULSE_OUTBOX_BYTES " FROM pulse.outbox"
    "  WHERE topic = $1 AND sent_at IS NULL AND send_after IS NULL"
    "  AND outbox_id <> ALL ($2) ORDER BY send_after, outbox_id LIMIT $3)"
    " UNION ALL"
    " (SELECT outbox_id, " PULSE_OUTBOX_BYTES " FROM pulse.outbox"
    "  WHERE topic = $1 AND sent_at IS NULL AND send_after <= pg_catalog.now()"
    "  AND outbox_id <> ALL ($2) ORDER BY send_after, outbox_id LIMIT $3) LIMIT $3",
    3,
    {TEXTOID, INT8ARRAYOID, INT8OID},
    nullptr};

pg::Statement load_rows = {"SELECT o.outbox_id, o.queued_at, o.key, o.value, h.keys, h.values"
                           " FROM pulse.outbox o LEFT JOIN LATERAL " PULSE_OUTBOX_HEADERS
                           " h ON true"
                           " WHERE o.outbox_id = ANY ($1) ORDER BY o.outbox_id",
                           1,
                           {INT8ARRAYOID},
                           nullptr};

pg::Statement mark_sent = {
    "UPDATE pulse.outbox o SET sent_at = pg_catalog.clock_timestamp(), error = NULL,"
    " send_after = NULL, kafka_partition = r.partition,"
    " kafka_offset = NULLIF(r.kafka_offset, -1)"
    " FROM ROWS FROM (pg_catalog.unnest($1),"
    " pg_catalog.unnest($2), pg_catalog.unnest($3)) AS r (id, partition, kafka_offset)"
    " WHERE o.outbox_id = r.id",
    3,
    {INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID},
    nullptr};

pg::Statement postpone_row = {
    "UPDATE pulse.outbox SET error = $2, attempts = attempts + 1,"
    " send_after = pg_catalog.clock_timestamp()"
    "  + LEAST(interval '1 minute' * 2 ^ LEAST(attempts, 10), interval '1 hour')"
    " WHERE outbox_id = $1",
    2,
    {INT8OID, TEXTOID},
    nullptr};

pg::Statement count_rows = {
    "SELECT pg_catalog.count(*) FROM pulse.outbox WHERE sent_at IS NULL", 0, {}, nullptr};

pg::Statement prune_rows = {
    "DELETE FROM pulse.outbox WHERE outbox_id = ANY (ARRAY(SELECT outbox_id FROM pulse.outbox"
    " WHERE sent_at < pg_catalog.now() - interval '7 days' ORDER BY sent_at LIMIT $1"
    " FOR UPDATE SKIP LOCKED))",
    1,
    {INT8OID},
    nullptr};

OutgoingRow
GetRow(uint64 row)
{
    OutgoingRow outgoing{};
    outgoing.id = pg::GetInt64(row, 1);
    bool is_null = false;
    const int64_t queued_us = ToUnixUs(DatumGetTimestampTz(pg::GetDatum(row, 2, &is_null)));
    outgoing.timestamp_ms = queued_us / 1000;
    outgoing.key = GetBytes(row, 3);
    outgoing.value = GetBytes(row, 4);
    StoredHeader *headers = GetHeaders(row, 5, kOwnHeaders, &outgoing.header_count);
    const char *id = pg::GetText(row, 1);
    headers[outgoing.header_count++] = {"pulse.outbox_id", id};
    // After a restore to an earlier point in time other records get the ids that were sent.
    headers[outgoing.header_count++] = {
        "pulse.dedup_key", psprintf("outbox/%s/%lld", id, static_cast<long long>(queued_us))};
    outgoing.headers = headers;
    return outgoing;
}

} // namespace

int
ReadOutboxTopics(char ***topics)
{
    MemoryContext context = CurrentMemoryContext;
    int count = 0;
    pg::InSpi([&] {
        count = static_cast<int>(pg::Execute(&select_topics));
        *topics =
            static_cast<char **>(MemoryContextAllocZero(context, sizeof(char *) * (count + 1)));
        for (int i = 0; i < count; i++)
            (*topics)[i] = MemoryContextStrdup(context, pg::GetText(i, 1));
    });
    return count;
}

int
TakeOutboxRows(const char *topic, const int64_t *except, int except_count, const TakeLimits &limits,
               VisitOutgoing visit, void *argument)
{
    return TakeRows(&select_waiting, &load_rows, topic, except, except_count, limits, GetRow, visit,
                    argument);
}

void
MarkSent(const int64_t *ids, const int64_t *partitions, const int64_t *offsets, int count)
{
    pg::InSpi([&] {
        Datum arguments[3] = {IdArray(ids, count), IdArray(partitions, count),
                              IdArray(offsets, count)};
        (void)pg::Execute(&mark_sent, arguments);
    });
}

void
PostponeOutboxRow(int64_t id, const char *reason)
{
    pg::InSpi([&] {
        Datum arguments[2] = {Int64GetDatum(id), CStringGetTextDatum(reason)};
        (void)pg::Execute(&postpone_row, arguments);
    });
}

int64_t
CountOutbox(int64_t own)
{
    int64_t count = 0;
    // Planned while the table was small, the plan would read all of it once it is large.
    int level = NewGUCNestLevel();
    (void)set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
                            true, ERROR, false);
    pg::InSpi([&] {
        (void)pg::ExecuteAsOfNow(&count_rows);
        count = pg::GetInt64(0, 1);
    });
    AtEOXact_GUC(true, level);
    return Max(count - own, 0);
}

bool
PruneOutbox()
{
    bool may_be_more = true;
    const TimestampTz deadline = GetCurrentTimestamp() + kPruneForUs;
    // Whoever asks has other things to do than to wait for a VACUUM FULL.
    (void)set_config_option("lock_timeout", "100ms", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
                            true, ERROR, false);
    pg::InSpi([&] {
        Datum argument = Int64GetDatum(kPruneRows);
        while (may_be_more && GetCurrentTimestamp() < deadline)
            may_be_more = pg::Execute(&prune_rows, &argument) == kPruneRows;
    });
    return may_be_more;
}

} // namespace pulse::store
