#include "store/replays.hpp"

#include "store/data_tables.hpp"
#include "store/letter_forwards.hpp"
#include "store/time.hpp"

namespace pulse::store {

namespace {

pg::Statement hold_pipeline = {
    "SELECT FROM pulse.pipelines WHERE name = $1 FOR KEY SHARE", 1, {TEXTOID}, nullptr};

pg::Statement next_pipeline = {
    "SELECT pg_catalog.min(name) FROM pulse.pipelines WHERE name > $1", 1, {TEXTOID}, nullptr};

// Whoever owns raw.dlq may change the types of its columns, and his triggers the values: what is
// read from it in binary form is cast, and may be NULL.

// What an operator set aside, or what crashed the server, comes back only when it is named; a
// record whose payload was never seen only with a corrected one.
#define PULSE_DUE_LETTERS                                                                          \
    " FROM raw.dlq WHERE pipeline = $1 AND dlq_id > $2"                                            \
    " AND (status = 'new' OR status = 'parked' AND $3 IS NOT NULL)"                                \
    " AND ($3 IS NULL OR dlq_id = ANY ($3)) AND ($4 IS NULL OR error_code = $4)"                   \
    " AND ($5 IS NULL OR first_seen_at >= $5)"                                                     \
    " AND (error_class <> 'operator' OR $3 IS NOT NULL OR $4 IS NOT NULL)"                         \
    " AND (value IS NOT NULL OR corrected_value IS NOT NULL OR error_code = 'tombstone')"          \
    " AND (kafka_topic IS NULL OR kafka_partition IS NOT NULL AND kafka_offset IS NOT NULL)"

pg::Statement lock_letters = {
    "SELECT dlq_id::int8,"
    " pg_catalog.octet_length(COALESCE(corrected_value, value))" PULSE_DUE_LETTERS
    " ORDER BY dlq_id LIMIT $6 FOR UPDATE SKIP LOCKED",
    6,
    {TEXTOID, INT8OID, INT8ARRAYOID, TEXTOID, TIMESTAMPTZOID, INT8OID},
    nullptr};

pg::Statement count_letters = {"SELECT pg_catalog.count(*)" PULSE_DUE_LETTERS,
                               5,
                               {TEXTOID, INT8OID, INT8ARRAYOID, TEXTOID, TIMESTAMPTZOID},
                               nullptr};

pg::Statement load_letters = {
    "SELECT d.dlq_id::int8, d.kafka_topic, d.kafka_partition::int4, d.topic_epoch::int4,"
    " d.kafka_offset::int8, d.kafka_timestamp::timestamptz, d.kafka_key::bytea,"
    " COALESCE(d.corrected_value, d.value)::bytea, h.keys, h.values"
    " FROM raw.dlq d LEFT JOIN LATERAL " PULSE_LETTER_HEADERS " h ON true"
    " WHERE d.dlq_id = ANY ($1) ORDER BY d.dlq_id",
    1,
    {INT8ARRAYOID},
    nullptr};

// Returns the records whose payload was corrected.
pg::Statement settle_letters = {
    "WITH settled AS (UPDATE raw.dlq SET status = 'replayed',"
    "  resolved_at = pg_catalog.clock_timestamp(), last_attempt_at = pg_catalog.clock_timestamp()"
    "  WHERE dlq_id = ANY ($1) RETURNING pipeline, kafka_topic, topic_epoch, kafka_partition,"
    "  kafka_offset, corrected_value IS NOT NULL AS is_corrected)"
    " SELECT pipeline::text, kafka_topic::text, topic_epoch::int4, kafka_partition::int4,"
    "  kafka_offset::int8 FROM settled WHERE is_corrected"
    " AND ROW(pipeline, kafka_topic, topic_epoch, kafka_partition, kafka_offset) IS NOT NULL",
    1,
    {INT8ARRAYOID},
    nullptr};

// Such a record is not decoded as it was when it is read again: it would be a second row.
pg::Statement set_corrected_aside = {
    "INSERT INTO pulse._set_aside (pipeline, topic, topic_epoch, partition, at_offset, error_code,"
    "  message) VALUES ($1, $2, $3, $4, $5, 'skipped', 'its corrected payload was replayed')"
    " ON CONFLICT DO NOTHING",
    5,
    {TEXTOID, TEXTOID, INT4OID, INT4OID, INT8OID},
    nullptr};

pg::Statement refuse_letter = {
    "UPDATE raw.dlq SET attempts = attempts + 1, last_attempt_at = pg_catalog.clock_timestamp(),"
    " error_class = $2, error_code = $3, error_message = $4, error_path = $5, stage = $6,"
    " sqlstate = $7, status = CASE WHEN attempts + 1 >= $8 THEN 'parked' ELSE status END"
    " WHERE dlq_id = $1",
    8,
    {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID},
    nullptr};

pg::Statement note_replay = {
    "INSERT INTO pulse.replays (pipeline, topic, partition, topic_epoch, replayed, duplicates,"
    " failed) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    7,
    {TEXTOID, TEXTOID, INT4OID, INT4OID, INT8OID, INT8OID, INT8OID},
    nullptr};

StoredLetter
GetLetter(uint64 row)
{
    StoredLetter letter{};
    letter.dlq_id = pg::GetInt64(row, 1);
    const char *topic = pg::GetText(row, 2);
    const bool is_record = topic != nullptr;
    letter.topic = is_record ? topic : "";
    letter.partition = is_record ? pg::GetInt32(row, 3) : -1;
    letter.topic_epoch = is_record ? pg::GetInt32(row, 4) : 0;
    letter.kafka_offset = is_record ? pg::GetInt64(row, 5) : 0;
    bool has_no_time = false;
    Datum timestamp = pg::GetDatum(row, 6, &has_no_time);
    letter.timestamp_ms = has_no_time || TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(timestamp))
                              ? -1
                              : ToUnixUs(DatumGetTimestampTz(timestamp)) / 1000;
    letter.key = GetBytes(row, 7);
    letter.value = GetBytes(row, 8);
    letter.headers = GetHeaders(row, 9, 0, &letter.header_count);
    return letter;
}

uint64
ExecuteFiltered(pg::Statement *statement, const char *pipeline, const LetterFilter &filter,
                int64_t after_id, int limit)
{
    char nulls[7] = "      ";
    nulls[2] = filter.ids == nullptr ? 'n' : ' ';
    nulls[3] = filter.error_code == nullptr ? 'n' : ' ';
    nulls[4] = filter.has_since ? ' ' : 'n';
    Datum arguments[6] = {
        CStringGetTextDatum(pipeline),
        Int64GetDatum(after_id),
        IdArray(filter.ids, filter.ids == nullptr ? 0 : filter.id_count),
        CStringGetTextDatum(filter.error_code == nullptr ? "" : filter.error_code),
        TimestampTzGetDatum(filter.since),
        Int64GetDatum(limit)};
    return pg::Execute(statement, arguments, nulls);
}

// Returns how many ids were filled in.
int
LockLetters(const char *pipeline, const LetterFilter &filter, int64_t after_id, int limit,
            int64_t max_bytes, int64_t *ids)
{
    int found = static_cast<int>(ExecuteFiltered(&lock_letters, pipeline, filter, after_id, limit));
    int64_t bytes = 0;
    for (int i = 0; i < found; i++) {
        bytes += pg::GetInt32(i, 2);
        if (i > 0 && bytes > max_bytes)
            return i;
        ids[i] = pg::GetInt64(i, 1);
    }
    return found;
}

} // namespace

bool
HoldPipeline(const char *name)
{
    bool is_held = false;
    pg::InSpi([&] {
        Datum argument = CStringGetTextDatum(name);
        is_held = pg::Execute(&hold_pipeline, &argument) == 1;
    });
    return is_held;
}

char *
NextPipeline(const char *behind)
{
    MemoryContext context = CurrentMemoryContext;
    char *name = nullptr;
    pg::InSpi([&] {
        Datum argument = CStringGetTextDatum(behind);
        (void)pg::Execute(&next_pipeline, &argument);
        const char *found = pg::GetText(0, 1);
        name = found == nullptr ? nullptr : MemoryContextStrdup(context, found);
    });
    return name;
}

int64_t
CountLetters(const char *pipeline, const LetterFilter &filter)
{
    int64_t count = 0;
    pg::InSpi([&] {
        AsOwnerOfLetters(
            [&] { (void)ExecuteFiltered(&count_letters, pipeline, filter, PG_INT64_MIN, 0); });
        count = pg::GetInt64(0, 1);
    });
    return count;
}

void
TakeLetters(const char *pipeline, const LetterFilter &filter, int64_t after_id, int limit,
            int64_t max_bytes, void (*visit)(const StoredLetter &letter, void *argument),
            void *argument)
{
    pg::InSpi([&] {
        int64_t *ids = static_cast<int64_t *>(palloc(sizeof(int64_t) * (limit + 1)));
        HoldLetterMarks(); // or those being marked would be passed over
        int count = 0;
        AsOwnerOfLetters(
            [&] { count = LockLetters(pipeline, filter, after_id, limit, max_bytes, ids); });
        ReleaseLetterMarks();
        if (count == 0)
            return;
        Datum array = IdArray(ids, count);
        uint64 found = 0;
        AsOwnerOfLetters([&] { found = pg::Execute(&load_letters, &array); });
        for (uint64 row = 0; row < found; row++)
            visit(GetLetter(row), argument);
    });
}

void
SettleLetters(const int64_t *ids, int count)
{
    if (count == 0)
        return;
    pg::InSpi([&] {
        Datum array = IdArray(ids, count);
        uint64 corrected = 0;
        AsOwnerOfLetters([&] { corrected = pg::Execute(&settle_letters, &array); });
        SPITupleTable *records = SPI_tuptable; // of the caller's SPI connection, until it ends
        for (uint64 row = 0; row < corrected; row++) {
            Datum record[5];
            bool is_null = false;
            for (int i = 0; i < 5; i++)
                record[i] = SPI_getbinval(records->vals[row], records->tupdesc, i + 1, &is_null);
            (void)pg::Execute(&set_corrected_aside, record);
        }
    });
}

void
RefuseLetter(int64_t dlq_id, const LetterReason &reason, int max_replays)
{
    pg::InSpi([&] {
        auto text = [](std::string_view view) {
            return PointerGetDatum(
                cstring_to_text_with_len(view.data(), static_cast<int>(view.size())));
        };
        char nulls[9] = "        ";
        nulls[4] = reason.path.data() == nullptr ? 'n' : ' ';
        nulls[5] = reason.stage == nullptr ? 'n' : ' ';
        nulls[6] = reason.sqlstate == nullptr ? 'n' : ' ';
        Datum arguments[8] = {
            Int64GetDatum(dlq_id),
            CStringGetTextDatum(reason.error_class),
            CStringGetTextDatum(reason.error_code),
            text(reason.message),
            text(reason.path),
            CStringGetTextDatum(reason.stage == nullptr ? "" : reason.stage),
            CStringGetTextDatum(reason.sqlstate == nullptr ? "" : reason.sqlstate),
            Int32GetDatum(max_replays)};
        AsOwnerOfLetters([&] { (void)pg::Execute(&refuse_letter, arguments, nulls); });
    });
}

void
NoteReplay(const char *pipeline, const OwnedPartition &partition, const ReplayCounts &counts)
{
    pg::InSpi([&] {
        Datum arguments[7] = {
            CStringGetTextDatum(pipeline),      CStringGetTextDatum(partition.topic),
            Int32GetDatum(partition.partition), Int32GetDatum(partition.topic_epoch),
            Int64GetDatum(counts.replayed),     Int64GetDatum(counts.duplicates),
            Int64GetDatum(counts.failed)};
        (void)pg::Execute(&note_replay, arguments);
    });
}

} // namespace pulse::store
