#include "store/outgoing.hpp"

#include "pg/spi.hpp"

namespace pulse::store {

namespace {

pg::Statement has_letters = {
    "SELECT EXISTS (SELECT FROM pulse.pipelines p CROSS JOIN LATERAL ("
    "  (SELECT FROM raw.dlq d WHERE d.pipeline = p.name AND d.forwarded_at IS NULL"
    "   AND d.forward_after IS NULL LIMIT 1) UNION ALL"
    "  (SELECT FROM raw.dlq d WHERE d.pipeline = p.name AND d.forwarded_at IS NULL"
    "   AND d.forward_after <= pg_catalog.now() LIMIT 1)) waiting"
    " WHERE COALESCE(p.settings->>'dlq_topic', pg_catalog.current_setting('pulse.dlq_topic')) <> "
    "''"
    " AND COALESCE(p.settings->>'brokers', pg_catalog.current_setting('pulse.brokers')) <> '')",
    0,
    {},
    nullptr};

// What it reads and writes runs as the superuser that pulse is: see the function.
pg::Statement owns_letters = {"SELECT pulse._has_letters()", 0, {}, nullptr};

pg::Statement has_outbox_rows = {
    "SELECT EXISTS (SELECT FROM pulse.outbox WHERE sent_at IS NULL AND send_after IS NULL)"
    " OR EXISTS (SELECT FROM pulse.outbox WHERE sent_at IS NULL AND send_after <= "
    "pg_catalog.now())",
    0,
    {},
    nullptr};

} // namespace

void
FlushVisible()
{
    // At the begin of a page that is not written yet, the position is behind the page's header,
    // which nothing flushes. The first page of a segment has a longer one.
    XLogRecPtr end = GetXLogInsertRecPtr();
    bool is_first_page = XLogSegmentOffset(end, wal_segment_size) < XLOG_BLCKSZ;
    if (end % XLOG_BLCKSZ == (is_first_page ? SizeOfXLogLongPHD : SizeOfXLogShortPHD))
        end -= end % XLOG_BLCKSZ;
    XLogFlush(end);
}

bool
HaveLetters()
{
    // Whoever they belong to, they belong to him until the transaction ends.
    (void)RangeVarGetRelid(makeRangeVar(pstrdup("raw"), pstrdup("dlq"), -1), AccessShareLock, true);
    return pg::IsTrue(&owns_letters);
}

int
TakeRows(pg::Statement *select, pg::Statement *load, const char *name, const int64_t *except,
         int except_count, const TakeLimits &limits, OutgoingRow (*get)(uint64_t row),
         VisitOutgoing visit, void *argument)
{
    int visited = 0;
    pg::InSpi([&] {
        Datum arguments[3] = {CStringGetTextDatum(name), IdArray(except, except_count),
                              Int64GetDatum(limits.rows)};
        int found = static_cast<int>(pg::Execute(select, arguments));
        if (found == 0)
            return;
        int64_t *ids = static_cast<int64_t *>(palloc(sizeof(int64_t) * found));
        int count = 0;
        int64_t bytes = 0;
        for (int i = 0; i < found; i++) {
            bytes += pg::GetInt32(i, 2);
            if (count > 0 && bytes > limits.bytes)
                break;
            ids[count++] = pg::GetInt64(i, 1);
        }
        FlushVisible();
        Datum array = IdArray(ids, count);
        uint64 loaded = pg::Execute(load, &array);
        for (uint64 row = 0; row < loaded; row++) {
            visited++;
            if (!visit(get(row), argument))
                break;
        }
    });
    return visited;
}

bool
HasOutgoing()
{
    // Planned while the table was small, the plan would read all of it once it is large.
    int level = NewGUCNestLevel();
    (void)set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
                            true, ERROR, false);
    // Whoever asks has other things to do than to wait for a VACUUM FULL.
    (void)set_config_option("lock_timeout", "100ms", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
                            true, ERROR, false);
    bool has_outgoing = pg::IsTrue(&has_outbox_rows) || (HaveLetters() && pg::IsTrue(&has_letters));
    AtEOXact_GUC(true, level);
    return has_outgoing;
}

} // namespace pulse::store
