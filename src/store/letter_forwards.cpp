#include "store/letter_forwards.hpp"

#include "pg/spi.hpp"
#include "store/time.hpp"

namespace pulse::store {

namespace {

#define PULSE_LETTER_BYTES PULSE_OUTGOING_BYTES("kafka_key", "kafka_headers")

constexpr int kMaxOwnHeaders = 20;

pg::Statement select_pipelines = {
    "SELECT name, pg_catalog.array_to_string(topics, E'\\n'), dlq_topic, brokers, kafka_options,"
    " secrets_file FROM (SELECT name, topics,"
    "  COALESCE(settings->>'dlq_topic', pg_catalog.current_setting('pulse.dlq_topic')) AS "
    "dlq_topic,"
    "  COALESCE(settings->>'brokers', pg_catalog.current_setting('pulse.brokers')) AS brokers,"
    "  COALESCE(settings->>'kafka_options', pg_catalog.current_setting('pulse.kafka_options'))"
    "   AS kafka_options,"
    "  COALESCE(settings->>'secrets_file', pg_catalog.current_setting('pulse.secrets_file'))"
    "   AS secrets_file FROM pulse.pipelines) p"
    " WHERE dlq_topic <> '' AND brokers <> '' ORDER BY name",
    0,
    {},
    nullptr};

// Two ranges of the index dlq_forward_idx.
pg::Statement select_waiting = {
    "(SELECT dlq_id::int8, " PULSE_LETTER_BYTES " FROM raw.dlq"
    "  WHERE pipeline = $1 AND forwarded_at IS NULL AND forward_after IS NULL"
    "  AND dlq_id <> ALL ($2) ORDER BY forward_after, dlq_id LIMIT $3)"
    " UNION ALL"
    " (SELECT dlq_id::int8, " PULSE_LETTER_BYTES " FROM raw.dlq"
    "  WHERE pipeline = $1 AND forwarded_at IS NULL AND forward_after <= pg_catalog.now()"
    "  AND dlq_id <> ALL ($2) ORDER BY forward_after, dlq_id LIMIT $3) LIMIT $3",
    3,
    {TEXTOID, INT8ARRAYOID, INT8OID},
    nullptr};

pg::Statement load_letters = {
    "SELECT d.dlq_id::int8, d.kafka_timestamp::timestamptz, d.kafka_key::bytea, d.value::bytea,"
    " h.keys, h.values,"
    " d.kafka_topic, d.kafka_partition, d.kafka_offset, d.topic_epoch, d.pipeline, d.stage,"
    " d.error_class, d.error_code, d.error_message, d.error_path, d.sqlstate, d.status,"
    " d.first_seen_at::timestamptz"
    " FROM raw.dlq d LEFT JOIN LATERAL " PULSE_LETTER_HEADERS " h ON true"
    " WHERE d.dlq_id = ANY ($1) ORDER BY d.dlq_id",
    1,
    {INT8ARRAYOID},
    nullptr};

pg::Statement mark_forwarded = {
    "WITH free AS (SELECT dlq_id FROM raw.dlq WHERE dlq_id = ANY ($1) AND forwarded_at IS NULL"
    "  FOR NO KEY UPDATE SKIP LOCKED)"
    " UPDATE raw.dlq d SET forwarded_at = pg_catalog.clock_timestamp(), forward_error = NULL,"
    " forward_after = NULL FROM free f WHERE d.dlq_id = f.dlq_id",
    1,
    {INT8ARRAYOID},
    nullptr};

pg::Statement select_unmarked = {
    "SELECT dlq_id::int8 FROM raw.dlq WHERE dlq_id = ANY ($1) AND forwarded_at IS NULL",
    1,
    {INT8ARRAYOID},
    nullptr};

pg::Statement postpone_letter = {
    "UPDATE raw.dlq SET forward_error = $2, forward_attempts = forward_attempts + 1,"
    " forward_after = pg_catalog.clock_timestamp()"
    "  + LEAST(interval '1 minute' * 2 ^ LEAST(forward_attempts, 10), interval '1 hour')"
    " WHERE dlq_id = (SELECT dlq_id FROM raw.dlq WHERE dlq_id = $1 FOR NO KEY UPDATE SKIP LOCKED)",
    2,
    {INT8OID, TEXTOID},
    nullptr};

// What Kafka Connect's error handling calls the place where it happened.
const char *
ConnectStage(const char *stage)
{
    if (stage == nullptr)
        return "KAFKA_CONSUME";
    if (strcmp(stage, "decode") == 0)
        return "VALUE_CONVERTER";
    return strcmp(stage, "insert") == 0 ? "TASK_PUT" : "TRANSFORMATION";
}

struct HeaderList {
    StoredHeader *headers;
    int count;

    void Add(const char *key, const char *value)
    {
        if (value != nullptr)
            headers[count++] = {key, value};
    }
};

// Of the record, not of the row: after a restore to an earlier point in time (or the failover to a
// standby that had not got everything) the ids begin there again, and a letter that was sent may
// come again under another one. A letter of ingest() has no record, but nobody else's time.
const char *
DedupKey(uint64 row)
{
    const char *pipeline = pg::GetText(row, 11);
    const char *topic = pg::GetText(row, 7);
    if (topic != nullptr)
        return psprintf("%s/%s/%s/%s/%s", pipeline, topic, pg::GetText(row, 10),
                        pg::GetText(row, 8), pg::GetText(row, 9));
    bool is_null = false;
    const int64_t us = ToUnixUs(DatumGetTimestampTz(pg::GetDatum(row, 19, &is_null)));
    return psprintf("%s/ingest/%s/%lld", pipeline, pg::GetText(row, 1), static_cast<long long>(us));
}

// Those of Kafka Connect's dead-letter queues, whose tools then read ours too, and our own. They
// come behind the record's own, so that they count where a name is there twice.
void
AddErrorHeaders(uint64 row, HeaderList *list)
{
    const char *id = pg::GetText(row, 1);
    const char *pipeline = pg::GetText(row, 11);
    const char *stage = pg::GetText(row, 12);
    const char *error_class = pg::GetText(row, 13);
    const char *error_code = pg::GetText(row, 14);
    const char *topic = pg::GetText(row, 7);
    list->Add("__connect.errors.topic", topic);
    list->Add("__connect.errors.partition", pg::GetText(row, 8));
    list->Add("__connect.errors.offset", pg::GetText(row, 9));
    list->Add("__connect.errors.connector.name", pipeline);
    list->Add("__connect.errors.task.id", "0");
    list->Add("__connect.errors.stage", ConnectStage(stage));
    list->Add("__connect.errors.class.name", "pulse");
    list->Add("__connect.errors.exception.class.name",
              psprintf("pulse.%s.%s", error_class, error_code));
    list->Add("__connect.errors.exception.message", pg::GetText(row, 15));
    list->Add("pulse.dlq_id", id);
    list->Add("pulse.dedup_key", DedupKey(row));
    list->Add("pulse.pipeline", pipeline);
    list->Add("pulse.topic_epoch", topic == nullptr ? nullptr : pg::GetText(row, 10));
    list->Add("pulse.error_class", error_class);
    list->Add("pulse.error_code", error_code);
    list->Add("pulse.error_path", pg::GetText(row, 16));
    list->Add("pulse.stage", stage);
    list->Add("pulse.sqlstate", pg::GetText(row, 17));
    list->Add("pulse.status", pg::GetText(row, 18));
}

OutgoingRow
GetLetter(uint64 row)
{
    OutgoingRow letter{};
    letter.id = pg::GetInt64(row, 1);
    bool has_no_time = false;
    Datum timestamp = pg::GetDatum(row, 2, &has_no_time);
    if (!has_no_time && !TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(timestamp)))
        letter.timestamp_ms = Max(0, ToUnixUs(DatumGetTimestampTz(timestamp)) / 1000);
    letter.key = GetBytes(row, 3);
    letter.value = GetBytes(row, 4);
    HeaderList list{};
    list.headers = GetHeaders(row, 5, kMaxOwnHeaders, &list.count);
    AddErrorHeaders(row, &list);
    letter.headers = list.headers;
    letter.header_count = list.count;
    return letter;
}

LOCKTAG
MarksTag()
{
    LOCKTAG tag;
    SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 1886743667, 2, 2); // "puls"
    return tag;
}

} // namespace

int
ReadForwardingPipelines(ForwardingPipeline **pipelines)
{
    MemoryContext context = CurrentMemoryContext;
    int count = 0;
    pg::InSpi([&] {
        count = static_cast<int>(pg::Execute(&select_pipelines));
        *pipelines = static_cast<ForwardingPipeline *>(
            MemoryContextAllocZero(context, sizeof(ForwardingPipeline) * (count + 1)));
        for (int i = 0; i < count; i++) {
            auto text = [&](int column) {
                return MemoryContextStrdup(context, pg::GetText(i, column));
            };
            (*pipelines)[i] = {text(1), text(2), text(3), text(4), text(5), text(6)};
        }
    });
    return count;
}

int
TakeWaitingLetters(const char *pipeline, const int64_t *except, int except_count,
                   const TakeLimits &limits, VisitOutgoing visit, void *argument)
{
    if (!HaveLetters()) // any more
        return 0;
    return TakeRows(&select_waiting, &load_letters, pipeline, except, except_count, limits,
                    GetLetter, visit, argument);
}

int
MarkForwarded(const int64_t *ids, int count, int64_t *left)
{
    int left_count = 0;
    if (!HaveLetters())
        return 0;
    pg::InSpi([&] {
        Datum array = IdArray(ids, count);
        if (pg::Execute(&mark_forwarded, &array) == static_cast<uint64>(count))
            return;
        left_count = static_cast<int>(pg::Execute(&select_unmarked, &array)); // the rest is gone
        for (int i = 0; i < left_count; i++)
            left[i] = pg::GetInt64(i, 1);
    });
    return left_count;
}

bool
PostponeLetter(int64_t dlq_id, const char *reason)
{
    if (!HaveLetters())
        return true;
    bool is_noted = false;
    pg::InSpi([&] {
        Datum arguments[2] = {Int64GetDatum(dlq_id), CStringGetTextDatum(reason)};
        if (pg::Execute(&postpone_letter, arguments) == 1) {
            is_noted = true;
            return;
        }
        Datum array = IdArray(&dlq_id, 1);
        is_noted = pg::Execute(&select_unmarked, &array) == 0;
    });
    return is_noted;
}

void
LockLetterMarks()
{
    LOCKTAG tag = MarksTag();
    (void)LockAcquire(&tag, ExclusiveLock, false, false);
}

void
HoldLetterMarks()
{
    LOCKTAG tag = MarksTag();
    (void)LockAcquire(&tag, ShareLock, false, false);
}

void
ReleaseLetterMarks()
{
    LOCKTAG tag = MarksTag();
    (void)LockRelease(&tag, ShareLock, false);
}

} // namespace pulse::store
