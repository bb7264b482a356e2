// pulse.preview() and pulse.extract(): records as the pipeline would decode them, read in the
// caller's backend. Nothing is consumed: there is no group, no offset is stored anywhere. The same
// watcher, reader and decoder as in the workers; whichever way the call ends, they are closed on a
// thread of their own. Regime: PG and doors.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "ingest/aside.hpp"
#include "ingest/reader.hpp"
#include "ingest/watcher.hpp"
#include "pg/guc.hpp"
#include "pg/wait.hpp"
#include "sqlapi/called_pipeline.hpp"
#include "sqlapi/event_json.hpp"
#include "sqlapi/kafka_client.hpp"
#include "store/pipelines.hpp"
#include "store/positions.hpp"
#include "store/target.hpp"
#include "store/time.hpp"
#include "worker/config.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

namespace {

constexpr size_t kQueueBytes = 4 * 1024 * 1024; // of librdkafka, and as much decoded
constexpr uint32_t kBatchRows = 1000;
constexpr int64_t kPatienceUs = 15 * 1000000LL; // without a record or an answer

// The arguments of the call and what the tables say, all palloc'd.
struct Request {
    const char *pipeline;
    const char *topic; // null = every partition of the pipeline
    int32_t partition;
    int64_t from_offset;
    int64_t to_offset; // first that is not read
    int64_t max_records;
    const char *topics; // of the pipeline, newline separated
    const store::PartitionRow *known;
    int known_count;
    ingest::Position start;
};

// Where the rows go. PG regime.
struct Output {
    ReturnSetInfo *result;
    MemoryContext row_context;
};

struct Row {
    const std::string *topic;
    int32_t partition;
    const ingest::Record *record;
    const std::string *event; // null = rejected
};

void
PutRow(const Output &output, const Row &row)
{
    MemoryContext before = MemoryContextSwitchTo(output.row_context);
    const ingest::Record &record = *row.record;
    Datum values[8] = {};
    bool nulls[8] = {};
    values[0] = CStringGetTextDatum(row.topic->c_str());
    values[1] = Int32GetDatum(row.partition);
    values[2] = Int64GetDatum(record.kafka_offset);
    nulls[3] = !store::IsStorableMs(record.timestamp_ms);
    values[3] = TimestampTzGetDatum(store::FromUnixMs(record.timestamp_ms));
    nulls[4] = record.key.data() == nullptr;
    if (!nulls[4]) {
        bytea *key = static_cast<bytea *>(palloc(VARHDRSZ + record.key.size()));
        SET_VARSIZE(key, VARHDRSZ + record.key.size());
        memcpy(VARDATA(key), record.key.data(), record.key.size());
        values[4] = PointerGetDatum(key);
    }
    nulls[5] = row.event == nullptr;
    nulls[6] = nulls[7] = row.event != nullptr;
    if (row.event != nullptr) {
        values[5] = DirectFunctionCall1(jsonb_in, CStringGetDatum(row.event->c_str()));
    } else {
        const decode::Reject &reject = record.reject;
        values[6] = CStringGetTextDatum(decode::InfoOf(reject.code).name.data());
        values[7] = PointerGetDatum(cstring_to_text_with_len(
            reject.message.data(), static_cast<int>(reject.message.size())));
    }
    tuplestore_putvalues(output.result->setResult, output.result->setDesc, values, nulls);
    MemoryContextSwitchTo(before);
    MemoryContextReset(output.row_context);
}

[[noreturn]] void
FailUnanswered(const std::string &why)
{
    Fail("08000", "Kafka did not answer: " + why, "pulse.test_connection() says more.");
}

std::vector<std::string>
SplitLines(std::string_view text)
{
    std::vector<std::string> lines;
    while (!text.empty()) {
        size_t end = text.find('\n');
        lines.emplace_back(text.substr(0, end));
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    }
    return lines;
}

class Look {
  public:
    Look(const Request &request, const Output &output,
         std::shared_ptr<const decode::Mapping> mapping)
        : request_(request), output_(output), mapping_(std::move(mapping)), config_(SessionConfig())
    {
    }

    void Run()
    {
        FindSpans();
        if (!spans_.empty() && request_.max_records > 0)
            Read();
    }

  private:
    struct Span {
        std::string topic;
        int32_t partition;
        int64_t position;
        int64_t end;
        int64_t low;
        int64_t high;
    };

    // ---- what there is to read ----

    ingest::WatchAnswer Ask(ingest::Watcher *watcher, ingest::WatchRequest question)
    {
        question.pipeline = request_.pipeline;
        question.config = config_;
        watcher->Ask(std::move(question));
        for (;;) {
            pg::Wait(watcher->fd(), 1000);
            for (ingest::WatchAnswer &answer : watcher->TakeAnswers()) {
                if (answer.error.empty())
                    return std::move(answer);
                FailUnanswered(answer.error);
            }
        }
    }

    void FindSpans()
    {
        ingest::AsidePtr<ingest::Watcher> watcher(new ingest::Watcher);
        ingest::WatchRequest probe;
        probe.topics = SplitLines(request_.topics);
        ingest::WatchAnswer found = Ask(watcher.get(), std::move(probe));
        if (request_.topic != nullptr) {
            for (const ingest::PartitionWatermarks &entry : found.watermarks)
                if (entry.topic == request_.topic && entry.partition == request_.partition)
                    AddSpan(entry, request_.from_offset);
            for (const ingest::PartitionTrouble &entry : found.troubles)
                if (entry.topic == request_.topic && entry.partition == request_.partition)
                    FailUnanswered(ingest::Describe(entry));
            if (!has_partition_)
                Fail("22023",
                     "pipeline \"" + std::string(request_.pipeline) +
                         "\" does not read partition " + std::to_string(request_.partition) +
                         " of topic \"" + request_.topic + "\"",
                     "pulse.stat_partition lists what it reads.");
            return;
        }
        if (found.watermarks.empty() && !found.missing_topics.empty())
            Fail("42704", ingest::Describe(*found.missing_topics.begin()),
                 ingest::HintFor(*found.missing_topics.begin()));
        if (found.watermarks.empty() && !found.troubles.empty())
            FailUnanswered(ingest::Describe(found.troubles.front()));
        for (const ingest::PartitionTrouble &entry : found.troubles)
            pg::CallPg([&] {
                ereport(WARNING,
                        (errmsg("records are missing: %s", ingest::Describe(entry).c_str())));
            });
        AddKnown(found);
        AddUnknown(watcher.get(), found);
    }

    bool IsKnown(const std::string &topic, int32_t partition, int64_t *next_offset) const
    {
        for (int i = 0; i < request_.known_count; i++) {
            const store::PartitionRow &row = request_.known[i];
            if (topic != row.topic || (partition >= 0 && partition != row.partition))
                continue;
            *next_offset = row.next_offset;
            return true;
        }
        return false;
    }

    void AddKnown(const ingest::WatchAnswer &found)
    {
        int64_t next_offset = 0;
        for (const ingest::PartitionWatermarks &entry : found.watermarks)
            if (IsKnown(entry.topic, entry.partition, &next_offset))
                AddSpan(entry, next_offset);
    }

    // What the coordinator will do with them: a new partition of a known topic begins at its
    // beginning, a new topic at start_position.
    void AddUnknown(ingest::Watcher *watcher, const ingest::WatchAnswer &found)
    {
        ingest::WatchRequest resolve;
        resolve.kind = ingest::WatchRequest::Kind::kResolve;
        resolve.position = request_.start;
        int64_t unused = 0;
        for (const ingest::PartitionWatermarks &entry : found.watermarks) {
            if (IsKnown(entry.topic, entry.partition, &unused))
                continue;
            if (IsKnown(entry.topic, -1, &unused))
                AddSpan(entry, entry.low);
            else
                resolve.partitions.push_back({entry.topic, entry.partition, 0});
        }
        if (resolve.partitions.empty())
            return;
        ingest::WatchAnswer answer = Ask(watcher, std::move(resolve));
        for (size_t i = 0; i < answer.resolved.size(); i++)
            AddSpan(answer.watermarks[i], answer.resolved[i].next_offset);
    }

    void AddSpan(const ingest::PartitionWatermarks &found, int64_t from_offset)
    {
        has_partition_ = true;
        Span span{found.topic, found.partition,
                  from_offset, std::min(found.high, request_.to_offset),
                  found.low,   found.high};
        if (from_offset < found.low || from_offset > found.high)
            FailOutside(span);
        if (span.position < span.end)
            spans_.push_back(std::move(span));
    }

    [[noreturn]] static void FailOutside(const Span &span)
    {
        Fail("22023",
             "offset " + std::to_string(span.position) + " of partition " +
                 std::to_string(span.partition) + " of topic \"" + span.topic +
                 "\" is not in the log",
             span.low < span.high
                 ? "It holds the offsets " + std::to_string(span.low) + " to " +
                       std::to_string(span.high - 1) + "."
                 : "It is empty; the next record gets offset " + std::to_string(span.high) + ".");
    }

    // ---- the records ----

    ingest::AsidePtr<ingest::Reader> StartReader()
    {
        kafka::Config config = config_;
        config.queue_bytes = kQueueBytes;
        ingest::ReaderOptions options;
        options.config = std::move(config);
        options.batch_max_rows =
            static_cast<uint32_t>(std::min<int64_t>(request_.max_records, kBatchRows));
        options.batch_max_bytes = kQueueBytes / 4;
        options.queue_bytes = kQueueBytes;
        auto started = ingest::Reader::Start(options, mapping_);
        if (!started.ok())
            Fail("08000", started.message(), "pulse.test_connection() says more.");
        return ingest::AsidePtr<ingest::Reader>(started.value().release());
    }

    void Read()
    {
        ingest::AsidePtr<ingest::Reader> reader = StartReader();
        std::vector<PartitionOffset> assignment;
        for (const Span &span : spans_)
            assignment.push_back({span.topic, span.partition, span.position});
        reader->Assign(std::move(assignment));
        TimestampTz last_news = GetCurrentTimestamp();
        while (!IsDone()) {
            pg::CheckInterrupts();
            for (const ingest::Notice &notice : reader->TakeNotices())
                Take(notice);
            if (std::unique_ptr<ingest::Batch> batch = reader->Take()) {
                Take(*batch);
                last_news = GetCurrentTimestamp();
            } else if (GetCurrentTimestamp() - last_news > kPatienceUs) {
                Fail("08000",
                     trouble_.empty() ? "Kafka sends no records"
                                      : "Kafka sends no records: " + trouble_,
                     "pulse.test_connection() says more.");
            } else {
                pg::Wait(reader->fd(), 1000);
            }
        }
    }

    bool IsDone() const
    {
        return count_ >= request_.max_records ||
               std::all_of(spans_.begin(), spans_.end(),
                           [](const Span &span) { return span.position >= span.end; });
    }

    Span *Find(const std::string &topic, int32_t partition)
    {
        for (Span &span : spans_)
            if (span.partition == partition && span.topic == topic)
                return &span;
        return nullptr;
    }

    void Take(const ingest::Notice &notice)
    {
        trouble_ = notice.text;
        Span *span = Find(notice.topic, notice.partition);
        if (notice.kind == ingest::Notice::Kind::kFailed)
            Fail("08000", notice.text);
        if (notice.kind == ingest::Notice::Kind::kTooLarge)
            Fail("54000",
                 "offset " + std::to_string(notice.next_offset) + " of partition " +
                     std::to_string(notice.partition) + " of topic \"" + notice.topic +
                     "\": " + notice.text,
                 "pulse.skip makes it a dead letter when the pipeline has come to it.");
        // Deleted since we asked for the watermarks.
        if (notice.kind == ingest::Notice::Kind::kOffsetLost && span != nullptr)
            Fail("22023",
                 "offset " + std::to_string(span->position) + " of partition " +
                     std::to_string(span->partition) + " of topic \"" + span->topic +
                     "\" is no longer in the log",
                 "Kafka deleted it during the call.");
    }

    void Take(const ingest::Batch &batch)
    {
        std::vector<Span *> spans;
        for (const ingest::Range &range : batch.ranges)
            spans.push_back(Find(range.topic, range.partition));
        std::string event;
        for (const ingest::Record &record : batch.records) {
            const Span *span = spans[record.range_index];
            if (span == nullptr || record.kafka_offset >= span->end)
                continue;
            if (count_ >= request_.max_records)
                return;
            bool is_event = record.reject.code == decode::RejectCode::kNone;
            if (is_event)
                event = EventJson(*mapping_, record.cells);
            Row row{&span->topic, span->partition, &record, is_event ? &event : nullptr};
            pg::CallPg([&] { PutRow(output_, row); });
            count_++;
        }
        for (size_t i = 0; i < spans.size(); i++)
            if (spans[i] != nullptr)
                spans[i]->position = batch.ranges[i].next_offset;
    }

    const Request &request_;
    const Output output_;
    std::shared_ptr<const decode::Mapping> mapping_;
    kafka::Config config_;
    std::vector<Span> spans_;
    bool has_partition_ = false;
    int64_t count_ = 0;
    std::string trouble_; // the last one
};

// Lays the pipeline's settings over the session's until the caller's GUC nest level ends.
const store::Target &
FillRequest(Request *request)
{
    store::PipelineDefinition definition;
    const store::Target &target = UseTarget(request->pipeline, &definition);
    request->topics = TopicsOf(request->pipeline);
    store::PartitionRow *known = nullptr;
    request->known_count = store::ReadPartitions(request->pipeline, &known);
    request->known = known;
    request->start = store::ParsePosition(pg::guc_start_position);
    return target;
}

Datum
ShowRecords(FunctionCallInfo fcinfo, Request *request)
{
    InitMaterializedSRF(fcinfo, 0);
    Output output = {
        reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo),
        AllocSetContextCreate(CurrentMemoryContext, "pulse record", ALLOCSET_DEFAULT_SIZES)};
    const int level = NewGUCNestLevel();
    const store::Target &target = FillRequest(request);
    pg::CallCpp([&] {
        PrepareForKafka();
        Look(*request, output, worker::MappingOf(target)).Run();
    });
    AtEOXact_GUC(true, level);
    return static_cast<Datum>(0);
}

void
RequireArguments(FunctionCallInfo fcinfo, int count)
{
    for (int i = 0; i < count; i++)
        if (PG_ARGISNULL(i))
            ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                            errmsg("only the last argument may be NULL")));
}

} // namespace

} // namespace pulse::sqlapi

using namespace pulse;

// preview(name, n)
PULSE_SQL_FUNCTION(pulse_preview)
{
    sqlapi::Request request = {};
    request.pipeline = text_to_cstring(PG_GETARG_TEXT_PP(0));
    request.max_records = PG_GETARG_INT32(1);
    request.to_offset = PG_INT64_MAX;
    if (request.max_records < 0)
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("n must not be negative")));
    return sqlapi::ShowRecords(fcinfo, &request);
}

// extract(name, topic, partition, from_offset, to_offset)
PULSE_SQL_FUNCTION(pulse_extract)
{
    sqlapi::RequireArguments(fcinfo, 4);
    sqlapi::Request request = {};
    request.pipeline = text_to_cstring(PG_GETARG_TEXT_PP(0));
    request.topic = text_to_cstring(PG_GETARG_TEXT_PP(1));
    request.partition = PG_GETARG_INT32(2);
    request.from_offset = PG_GETARG_INT64(3);
    request.max_records = PG_INT64_MAX;
    if (request.from_offset < 0 || request.from_offset == PG_INT64_MAX)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("from_offset %lld is out of range",
                               static_cast<long long>(request.from_offset))));
    request.to_offset = PG_ARGISNULL(4) ? request.from_offset + 1 : PG_GETARG_INT64(4);
    if (request.to_offset < request.from_offset)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("to_offset must not be before from_offset")));
    return sqlapi::ShowRecords(fcinfo, &request);
}
