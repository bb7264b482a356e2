// pulse.skip(): one record becomes a dead letter at the operator's word.
#include "base/crc32c.hpp"
#include "pg/spi.hpp"
#include "store/dead_letters.hpp"
#include "store/earlier_rows.hpp"
#include "store/pipelines.hpp"
#include "store/offsets.hpp"
#include "store/positions.hpp"
#include "store/set_aside.hpp"
#include "store/target.hpp"

namespace pulse::store {

namespace {

pg::Statement lock_partition = {
    "SELECT next_offset, highest_offset, topic_epoch, records FROM pulse.offsets"
    " WHERE pipeline = $1 AND topic = $2 AND partition = $3 FOR UPDATE",
    3,
    {TEXTOID, TEXTOID, INT4OID},
    nullptr};

pg::Statement read_partition = {
    "SELECT next_offset, highest_offset, records, topic_epoch"
    " FROM pulse.offsets WHERE pipeline = $1 AND topic = $2 AND partition = $3",
    3,
    {TEXTOID, TEXTOID, INT4OID},
    nullptr};

pg::Statement pass_record = {
    "WITH passed AS (UPDATE pulse.offsets SET next_offset = $4,"
    "  highest_offset = GREATEST(highest_offset, $4), fence = fence + 1,"
    "  updated_at = pg_catalog.clock_timestamp()"
    "  WHERE pipeline = $1 AND topic = $2 AND partition = $3)"
    " INSERT INTO pulse.offset_log (pipeline, topic, partition, old_offset, new_offset, reason, "
    "changed_by) VALUES ($1, $2, $3, $5, $4, 'skip', $6)",
    6,
    {TEXTOID, TEXTOID, INT4OID, INT8OID, INT8OID, TEXTOID},
    nullptr};

struct Search {
    int32_t partition;
    int32_t topic_epoch;
    EpochSource source;
    RowLook *look;
};

void
Consider(const EarlierRow &row, void *argument)
{
    Search *wanted = static_cast<Search *>(argument);
    if (row.partition != wanted->partition)
        return;
    RowLook *look = wanted->look;
    if (wanted->source == EpochSource::kColumn)
        look->is_row = look->is_row || row.topic_epoch == wanted->topic_epoch;
    else if (wanted->topic_epoch == 0)
        look->is_row = true;
    else if (wanted->source == EpochSource::kTimestamp) {
        // Of the rows of all topics of that name the latest: SkipRecord compares it.
        look->timestamp_ms =
            look->is_row ? Max(look->timestamp_ms, row.timestamp_ms) : row.timestamp_ms;
        look->is_row = true;
    }
}

// In the rows that are committed by now: the caller's statement may have begun long ago.
void
FindRow(const Target &target, Oid role, const char *topic, int64_t kafka_offset, Search *wanted)
{
    wanted->source = EpochSourceOf(target);
    PushActiveSnapshot(GetTransactionSnapshot());
    VisitRows(target, role, {&topic, 1, kafka_offset, kafka_offset + 1}, Consider, wanted);
    PopActiveSnapshot();
}

std::string_view
ViewOf(bool is_there, const std::string &bytes)
{
    return is_there ? std::string_view(bytes) : std::string_view();
}

} // namespace

RowLook
LookForRow(const char *pipeline, const char *topic, int32_t partition, int64_t kafka_offset)
{
    static Target target; // large
    PipelineDefinition definition = {};
    RowLook look = {false, -1, kAnyTimestamp};
    Search wanted = {partition, 0, EpochSource::kNothing, &look};
    auto find = [&] {
        pg::InSpi([&] {
            Datum key[3] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(topic),
                            Int32GetDatum(partition)};
            if (pg::Execute(&read_partition, key) == 1 && pg::GetInt64(0, 1) == kafka_offset &&
                kafka_offset < pg::GetInt64(0, 2)) {
                look.records = pg::GetInt64(0, 3);
                wanted.topic_epoch = pg::GetInt32(0, 4);
            }
        });
        if (look.records >= 0 && LoadPipeline(pipeline, Scope::kCall, &definition)) {
            LoadTarget(definition, Scope::kCall, &target);
            if (HasCoordinates(target))
                FindRow(target, WriterRole(definition), topic, kafka_offset, &wanted);
        }
    };
    // Whoever may skip need not be allowed to read the tables of pulse.
    pg::AsRole(OwnerOfPulse(), find);
    return look;
}

bool
SkipRecord(const char *pipeline, const PartitionOffset &expected, const RowLook &look,
           const ingest::FetchedRecord &fetched, const char *error_code, const char *caller)
{
    ingest::Record record{};
    record.kafka_offset = fetched.kafka_offset;
    record.timestamp_ms = fetched.timestamp_ms;
    record.key = ViewOf(fetched.has_key, fetched.key);
    record.value = ViewOf(fetched.has_value, fetched.value);
    record.headers = ViewOf(!fetched.headers.empty(), fetched.headers);
    bool is_expected = false;
    pg::InSpi([&] {
        Datum key[3] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(expected.topic.c_str()),
                        Int32GetDatum(expected.partition)};
        if (pg::Execute(&lock_partition, key) != 1 || pg::GetInt64(0, 1) != expected.next_offset)
            return;
        is_expected = true;
        OwnedPartition partition = {};
        pg::CopyText(partition.topic, sizeof(partition.topic), expected.topic.c_str());
        partition.partition = expected.partition;
        partition.highest_offset = pg::GetInt64(0, 2);
        partition.topic_epoch = pg::GetInt32(0, 3);
        int64_t records = pg::GetInt64(0, 4);
        const char *message = psprintf("skipped by %s", caller);
        if (record.kafka_offset > expected.next_offset) {
            (void)SetAside(pipeline, partition, record.kafka_offset, decode::RejectCode::kSkipped,
                           message);
            return;
        }
        // A record read again after a seek may have become a row then.
        bool may_be_row = record.kafka_offset < partition.highest_offset;
        if (may_be_row && look.records != records) {
            is_expected = false;
            return;
        }
        bool is_row =
            may_be_row && look.is_row &&
            (look.timestamp_ms == kAnyTimestamp || look.timestamp_ms == record.timestamp_ms);
        const char *class_name = strcmp(error_code, "skipped") == 0 ? "operator" : "decode";
        bool is_letter =
            !is_row && WriteLetter(pipeline, partition, record,
                                   {class_name, error_code, nullptr, nullptr, message, {}});
        Datum passed[6] = {key[0],
                           key[1],
                           key[2],
                           Int64GetDatum(record.kafka_offset + 1),
                           Int64GetDatum(expected.next_offset),
                           CStringGetTextDatum(caller)};
        (void)pg::Execute(&pass_record, passed);
        AddCounts(
            pipeline, partition, {1, 0, is_letter ? 0 : 1, is_letter ? 1 : 0, 0},
            strcmp(error_code, "skipped") == 0
                ? FingerprintOf(record.kafka_offset, record.timestamp_ms, record.key, record.value)
                : Fingerprint{});
    });
    return is_expected;
}

} // namespace pulse::store
