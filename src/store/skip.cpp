// pulse.skip(): one record becomes a dead letter at the operator's word.
#include "base/crc32c.hpp"
#include "pg/spi.hpp"
#include "store/dead_letters.hpp"
#include "store/earlier_rows.hpp"
#include "store/offsets.hpp"
#include "store/positions.hpp"
#include "store/set_aside.hpp"
#include "store/target.hpp"

namespace pulse::store {

namespace {

pg::Statement lock_partition = {
    "SELECT o.next_offset, o.highest_offset, o.topic_epoch, p.target, p.owner FROM pulse.offsets o"
    " JOIN pulse.pipelines p ON p.name = o.pipeline"
    " WHERE o.pipeline = $1 AND o.topic = $2 AND o.partition = $3 FOR UPDATE OF o",
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

// A record read again after a seek may have become a row then.
bool
IsRow(const OwnedPartition &partition, const PipelineDefinition &definition, int64_t kafka_offset)
{
    static Target target;
    LoadTarget(definition, Scope::kCall, &target);
    if (!HasCoordinates(target))
        return false;
    struct Search {
        int32_t partition;
        bool is_found;
    } search = {partition.partition, false};
    const char *topic = partition.topic;
    VisitRows(
        target, get_role_oid(definition.owner, false), {&topic, 1, kafka_offset, kafka_offset + 1},
        [](const char *, int32_t row_partition, int64_t, void *argument) {
            Search *wanted = static_cast<Search *>(argument);
            wanted->is_found = wanted->is_found || row_partition == wanted->partition;
        },
        &search);
    return search.is_found;
}

std::string_view
ViewOf(bool is_there, const std::string &bytes)
{
    return is_there ? std::string_view(bytes) : std::string_view();
}

} // namespace

bool
SkipRecord(const char *pipeline, const PartitionOffset &expected,
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
        const char *message = psprintf("skipped by %s", caller);
        if (record.kafka_offset > expected.next_offset) {
            (void)SetAside(pipeline, partition, record.kafka_offset, decode::RejectCode::kSkipped,
                           message);
            return;
        }
        PipelineDefinition definition = {};
        pg::CopyText(definition.name, sizeof(definition.name), pipeline);
        pg::CopyText(definition.target, sizeof(definition.target), pg::GetText(0, 4));
        pg::CopyText(definition.owner, sizeof(definition.owner), pg::GetText(0, 5));
        bool is_row = record.kafka_offset < partition.highest_offset &&
                      IsRow(partition, definition, record.kafka_offset);
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
