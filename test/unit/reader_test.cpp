// The reader thread against librdkafka's mock brokers: order, hand-over, bounds, assignments,
// errors. Nothing sleeps: whoever waits, waits on the reader's descriptor until a condition or a
// deadline. src/ingest/reader.hpp.
#include "ingest/reader.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <dirent.h>
#include <fstream>
#include <functional>
#include <map>
#include <poll.h>
#include <set>
#include <unistd.h>

#include "base/crc32c.hpp"
#include "decode_fixture.hpp"
#include "mock_broker.hpp"

namespace pulse::ingest {

namespace {

using kafka::Deadline;
using kafka::MockBroker;

std::shared_ptr<const decode::Mapping>
NumberMapping()
{
    return decode::MappingBuilder().Add("n", decode::ColumnType::kInt8).Build();
}

ReaderOptions
OptionsFor(const std::string &brokers)
{
    ReaderOptions options;
    options.config.brokers = brokers;
    options.config.client_id = "pulse-test";
    // A mock broker holds a fetch for its whole wait time even when records arrive meanwhile.
    options.config.options = {{"fetch.wait.max.ms", "10"}, {"reconnect.backoff.max.ms", "200"}};
    return options;
}

std::unique_ptr<Reader>
StartReader(const ReaderOptions &options, std::vector<PartitionOffset> partitions,
            std::shared_ptr<const decode::Mapping> mapping = NumberMapping())
{
    auto reader = Reader::Start(options, std::move(mapping));
    if (!reader.ok())
        throw std::runtime_error(reader.message());
    if (!partitions.empty())
        reader.value()->Assign(std::move(partitions));
    return std::move(reader.value());
}

void
WaitForReader(const Reader &reader)
{
    pollfd fd = {reader.fd(), POLLIN, 0};
    (void)poll(&fd, 1, 10);
}

bool
WaitUntil(const Reader &reader, const std::function<bool()> &is_true)
{
    Deadline deadline;
    while (!deadline.IsOver()) {
        if (is_true())
            return true;
        WaitForReader(reader);
    }
    return false;
}

// Null when none came in time. Being asked in vain makes the reader hungry.
std::unique_ptr<Batch>
NextBatch(Reader &reader)
{
    std::unique_ptr<Batch> batch;
    (void)WaitUntil(reader, [&] { return (batch = reader.Take()) != nullptr; });
    return batch;
}

bool
WaitForNotice(Reader &reader, Notice::Kind kind, Notice *found)
{
    return WaitUntil(reader, [&] {
        for (Notice &notice : reader.TakeNotices()) {
            if (notice.kind != kind)
                continue;
            *found = notice;
            return true;
        }
        return false;
    });
}

using Start = std::map<int32_t, int64_t>; // partition -> offset

// Checks what a batch transaction relies on, and adds the batch to what has been read so far.
class Ledger {
  public:
    explicit Ledger(Start start) : next_(std::move(start)) {}

    void Add(const Batch &batch)
    {
        std::map<int32_t, uint32_t> counts;
        std::map<int32_t, int64_t> position = next_;
        for (const Record &record : batch.records) {
            const Range &range = batch.ranges.at(record.range_index);
            EXPECT_EQ(record.kafka_offset, position[range.partition]) << "nothing skipped or twice";
            position[range.partition] = record.kafka_offset + 1;
            counts[range.partition]++;
            EXPECT_EQ(record.value, std::to_string(record.kafka_offset));
        }
        std::set<int32_t> seen;
        for (const Range &range : batch.ranges) {
            EXPECT_TRUE(seen.insert(range.partition).second) << "one range per partition";
            EXPECT_EQ(range.topic, "events");
            EXPECT_EQ(range.expected_offset, next_[range.partition]);
            EXPECT_EQ(range.next_offset, position[range.partition]);
            EXPECT_EQ(range.record_count, counts[range.partition]);
            EXPECT_GE(range.high_watermark, range.next_offset);
        }
        next_ = position;
    }

    int64_t next(int32_t partition) { return next_[partition]; }

  private:
    std::map<int32_t, int64_t> next_;
};

std::map<std::string, uint64_t>
BlockedSignalsByThread()
{
    std::map<std::string, uint64_t> result;
    DIR *tasks = opendir("/proc/self/task");
    for (dirent *task = readdir(tasks); task != nullptr; task = readdir(tasks)) {
        if (task->d_name[0] == '.')
            continue;
        std::ifstream status(std::string("/proc/self/task/") + task->d_name + "/status");
        for (std::string line; std::getline(status, line);)
            if (line.rfind("SigBlk:", 0) == 0)
                result[task->d_name] = std::stoull(line.substr(7), nullptr, 16);
    }
    closedir(tasks);
    return result;
}

} // namespace

TEST(ReaderTest, HandsRecordsOverInOrder)
{
    MockBroker broker;
    broker.CreateTopic("events", 3);
    for (int32_t partition = 0; partition < 3; partition++)
        broker.ProduceNumbers("events", partition, 0, 2000);
    ReaderOptions options = OptionsFor(broker.brokers());
    options.batch_max_rows = 700;
    auto reader = StartReader(options, {{"events", 0, 0}, {"events", 1, 500}, {"events", 2, 1999}});
    Ledger ledger(Start{{0, 0}, {1, 500}, {2, 1999}});
    while (ledger.next(0) < 2000 || ledger.next(1) < 2000 || ledger.next(2) < 2000) {
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        ASSERT_FALSE(batch->records.empty());
        ASSERT_LE(batch->records.size(), 700u);
        ledger.Add(*batch);
        ASSERT_FALSE(HasFailure());
    }
    EXPECT_EQ(reader->QueuedRecords(), 0u);
    EXPECT_EQ(reader->Take(), nullptr);
}

TEST(ReaderTest, DoesNotDecodeWhatIsSetAside)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    broker.ProduceNumbers("events", 0, 0, 10);
    FlightMark mark{};
    ReaderOptions options = OptionsFor(broker.brokers());
    options.decoding = &mark;
    auto reader = StartReader(options, {});
    // The last one is of a partition that is not ours.
    reader->Assign({{"events", 0, 0}},
                   {{"events", 0, 5, decode::RejectCode::kSkipped, "because"},
                    {"events", 1, 6, decode::RejectCode::kQuarantined, "it crashes"}});
    Ledger ledger(Start{{0, 0}});
    while (ledger.next(0) < 10) {
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        ledger.Add(*batch);
        ASSERT_FALSE(HasFailure());
        for (const Record &record : batch->records) {
            bool is_aside = record.kafka_offset == 5;
            EXPECT_EQ(record.reject.code,
                      is_aside ? decode::RejectCode::kSkipped : decode::RejectCode::kNotObject);
            EXPECT_EQ(record.reject.message == "because", is_aside);
        }
    }
    EXPECT_FALSE(mark.IsSet());
    EXPECT_EQ(mark.topic_name(), "events");
}

TEST(ReaderTest, HandsOverWhatIsThereToAHungryBackend)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    auto reader = StartReader(OptionsFor(broker.brokers()), {{"events", 0, 0}});
    Ledger ledger(Start{{0, 0}});
    for (int number = 0; number < 5; number++) {
        ASSERT_EQ(reader->Take(), nullptr);
        broker.ProduceNumbers("events", 0, number, 1);
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        EXPECT_EQ(batch->records.size(), 1u);
        ledger.Add(*batch);
    }
}

TEST(ReaderTest, FillsBatchesWhileTheBackendIsBusy)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 1000);
    ReaderOptions options = OptionsFor(broker.brokers());
    options.batch_max_rows = 100;
    auto reader = StartReader(options, {{"events", 0, 0}});
    ASSERT_TRUE(WaitUntil(*reader, [&] { return reader->QueuedRecords() == 1000; }));
    Ledger ledger(Start{{0, 0}});
    for (int i = 0; i < 10; i++) {
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        EXPECT_EQ(batch->records.size(), 100u);
        ledger.Add(*batch);
    }
    EXPECT_EQ(reader->QueuedRecords(), 0u);
}

TEST(ReaderTest, CutsABatchByItsBytes)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    std::string value(1000, '1');
    for (int i = 0; i < 100; i++)
        broker.Produce("events", 0, {std::nullopt, value, {}, 0});
    ReaderOptions options = OptionsFor(broker.brokers());
    options.batch_max_bytes = 10000;
    auto reader = StartReader(options, {{"events", 0, 0}});
    ASSERT_TRUE(WaitUntil(*reader, [&] { return reader->QueuedRecords() == 100; }));
    for (int i = 0; i < 10; i++) {
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        EXPECT_EQ(batch->records.size(), 10u);
    }
}

// What is read but not taken never needs more than queue_bytes and one batch.
TEST(ReaderTest, StaysWithinItsMemory)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    constexpr int kRecords = 400; // a mock broker keeps 5 MB
    std::string value(10000, '1');
    for (int i = 0; i < kRecords; i++)
        broker.Produce("events", 0, {std::nullopt, value, {}, 0});
    ReaderOptions options = OptionsFor(broker.brokers());
    options.batch_max_bytes = 100000;
    options.queue_bytes = 1024 * 1024;
    constexpr size_t kMost = (1024 * 1024 + 100000) / 10000 + 1;
    auto reader = StartReader(options, {{"events", 0, 0}});
    int64_t next_offset = 0;
    while (next_offset < kRecords) {
        // So much arrives without the backend doing anything.
        size_t wanted = std::min<size_t>(15, static_cast<size_t>(kRecords - next_offset));
        ASSERT_TRUE(WaitUntil(*reader,
                              [&] {
                                  EXPECT_LE(reader->QueuedRecords(), kMost);
                                  return reader->QueuedRecords() >= wanted;
                              }))
            << reader->QueuedRecords() << " after " << next_offset;
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        for (const Record &record : batch->records)
            ASSERT_EQ(record.kafka_offset, next_offset++);
        ASSERT_LE(reader->QueuedRecords(), kMost);
    }
}

// A batch is never larger than the queue, however much payload it may hold.
TEST(ReaderTest, EndsABatchThatHasGrownToTheSizeOfTheQueue)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    constexpr int kRecords = 400;
    std::string value(10000, '1');
    for (int i = 0; i < kRecords; i++)
        broker.Produce("events", 0, {std::nullopt, value, {}, 0});
    ReaderOptions options = OptionsFor(broker.brokers());
    options.batch_max_bytes = 64 * 1024 * 1024;
    options.queue_bytes = 1024 * 1024;
    auto reader = StartReader(options, {{"events", 0, 0}});
    ASSERT_TRUE(WaitUntil(*reader, [&] { return reader->QueuedRecords() >= 50; }));
    int64_t next_offset = 0;
    while (next_offset < kRecords) {
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        EXPECT_LE(batch->bytes(), options.queue_bytes + Arena::kChunkBytes);
        for (const Record &record : batch->records)
            ASSERT_EQ(record.kafka_offset, next_offset++);
    }
}

TEST(ReaderTest, WaitsForMoreRecordsWhenTold)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    ReaderOptions options = OptionsFor(broker.brokers());
    options.batch_max_rows = 2;
    options.batch_max_wait_us = 60LL * 1000000;
    auto reader = StartReader(options, {{"events", 0, 0}});
    EXPECT_EQ(reader->Take(), nullptr);
    broker.ProduceNumbers("events", 0, 0, 1);
    ASSERT_TRUE(WaitUntil(*reader, [&] { return reader->QueuedRecords() == 1; }));
    EXPECT_EQ(reader->Take(), nullptr);
    broker.ProduceNumbers("events", 0, 1, 1);
    auto batch = NextBatch(*reader);
    ASSERT_NE(batch, nullptr);
    EXPECT_EQ(batch->records.size(), 2u);
}

TEST(ReaderTest, HandsOverWhenTheWaitIsOver)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    ReaderOptions options = OptionsFor(broker.brokers());
    options.batch_max_wait_us = 50000;
    auto reader = StartReader(options, {{"events", 0, 0}});
    EXPECT_EQ(reader->Take(), nullptr);
    broker.ProduceNumbers("events", 0, 0, 3);
    Ledger ledger(Start{{0, 0}});
    while (ledger.next(0) < 3) {
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        ledger.Add(*batch);
    }
}

TEST(ReaderTest, DiscardsWhatWasReadUnderTheAssignmentBefore)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    broker.ProduceNumbers("events", 0, 0, 1000);
    broker.ProduceNumbers("events", 1, 0, 1000);
    ReaderOptions options = OptionsFor(broker.brokers());
    options.batch_max_rows = 100;
    auto reader = StartReader(options, {{"events", 0, 0}, {"events", 1, 0}});
    ASSERT_TRUE(WaitUntil(*reader, [&] { return reader->QueuedRecords() >= 500; }));

    for (int64_t offset : {900, 17, 450}) {
        reader->Assign({{"events", 1, offset}});
        Ledger ledger(Start{{1, offset}});
        while (ledger.next(1) < 1000) {
            auto batch = NextBatch(*reader);
            ASSERT_NE(batch, nullptr);
            ledger.Add(*batch);
            ASSERT_FALSE(HasFailure()) << "assigned at " << offset;
        }
        EXPECT_EQ(reader->QueuedRecords(), 0u) << "discarded records are not queued";
    }
}

TEST(ReaderTest, ReadsNothingWithoutPartitions)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 100);
    auto reader = StartReader(OptionsFor(broker.brokers()), {{"events", 0, 0}});
    ASSERT_TRUE(WaitUntil(*reader, [&] { return reader->QueuedRecords() == 100; }));
    reader->Assign({});
    ASSERT_TRUE(WaitUntil(*reader, [&] { return reader->QueuedRecords() == 0; }));
    EXPECT_EQ(reader->Take(), nullptr);
    reader->Assign({{"events", 0, 99}});
    auto batch = NextBatch(*reader);
    ASSERT_NE(batch, nullptr);
    EXPECT_EQ(batch->records[0].kafka_offset, 99);
}

// Two mappings never share a batch: its cells have the columns of one.
TEST(ReaderTest, AChangedMappingCutsTheBatch)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.Produce("events", 0, {std::nullopt, R"({"n":1,"m":"a"})", {}, 0});
    auto before = NumberMapping();
    auto reader = StartReader(OptionsFor(broker.brokers()), {{"events", 0, 0}}, before);
    ASSERT_TRUE(WaitUntil(*reader, [&] { return reader->QueuedRecords() == 1; }));
    auto after = decode::MappingBuilder().Add("m", decode::ColumnType::kText).Build();
    reader->SetMapping(after);
    broker.Produce("events", 0, {std::nullopt, R"({"n":2,"m":"b"})", {}, 0});

    auto first = NextBatch(*reader);
    ASSERT_NE(first, nullptr);
    EXPECT_EQ(first->mapping, before);
    ASSERT_EQ(first->records.size(), 1u);
    EXPECT_EQ(first->records[0].cells[0].integer, 1);
    auto second = NextBatch(*reader);
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(second->mapping, after);
    ASSERT_EQ(second->records.size(), 1u);
    EXPECT_EQ(second->records[0].cells[0].view(), "b");
    EXPECT_EQ(second->ranges[0].expected_offset, first->ranges[0].next_offset);
}

TEST(ReaderTest, RejectsTravelWithTheirNeighbours)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    for (const char *value : {R"({"n":1})", "{broken", R"({"n":3})"})
        broker.Produce("events", 0, {std::nullopt, value, {}, 0});
    broker.Produce("events", 0, {"key", std::nullopt, {{"why", "gone"}}, 0});
    ReaderOptions options = OptionsFor(broker.brokers());
    options.batch_max_rows = 4;
    auto reader = StartReader(options, {{"events", 0, 0}});
    ASSERT_TRUE(WaitUntil(*reader, [&] { return reader->QueuedRecords() == 4; }));
    auto batch = NextBatch(*reader);
    ASSERT_NE(batch, nullptr);
    ASSERT_EQ(batch->records.size(), 4u);
    EXPECT_EQ(batch->records[0].reject.code, decode::RejectCode::kNone);
    EXPECT_EQ(batch->records[1].reject.code, decode::RejectCode::kSyntax);
    EXPECT_EQ(batch->records[1].value, "{broken");
    EXPECT_EQ(batch->records[2].reject.code, decode::RejectCode::kNone);
    EXPECT_EQ(batch->records[3].reject.code, decode::RejectCode::kTombstone);
    EXPECT_EQ(batch->records[3].key, "key");
    EXPECT_EQ(batch->ranges[0].next_offset, 4);
}

TEST(ReaderTest, ReportsALostOffsetAndReadsTheOthers)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    broker.ProduceNumbers("events", 0, 0, 10);
    broker.ProduceNumbers("events", 1, 0, 10);
    auto reader =
        StartReader(OptionsFor(broker.brokers()), {{"events", 0, 1000}, {"events", 1, 0}});
    Notice notice;
    ASSERT_TRUE(WaitForNotice(*reader, Notice::Kind::kOffsetLost, &notice));
    EXPECT_EQ(notice.topic, "events");
    EXPECT_EQ(notice.partition, 0);
    EXPECT_EQ(notice.next_offset, 1000);
    EXPECT_FALSE(notice.text.empty());
    Ledger ledger(Start{{1, 0}});
    while (ledger.next(1) < 10) {
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        ledger.Add(*batch);
    }

    // A new assignment gives the partition another chance.
    reader->Assign({{"events", 0, 8}});
    Ledger again(Start{{0, 8}});
    while (again.next(0) < 10) {
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        again.Add(*batch);
    }
}

// The record read last is read again first; it is not handed over twice.
TEST(ReaderTest, KnowsItsLastRecordAgain)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 10);
    Fingerprint last = {4, Fingerprint::kUnknownTime, RecordCrc({}, "4")};
    auto reader = StartReader(OptionsFor(broker.brokers()), {{"events", 0, 5, last}});
    Ledger ledger(Start{{0, 5}});
    while (ledger.next(0) < 10) {
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        ledger.Add(*batch);
    }
}

TEST(ReaderTest, StopsWhereTheLastRecordIsAnotherOne)
{
    MockBroker broker;
    broker.CreateTopic("events", 2);
    broker.ProduceNumbers("events", 0, 0, 10);
    broker.ProduceNumbers("events", 1, 0, 10);
    Fingerprint changed = {4, Fingerprint::kUnknownTime, RecordCrc({}, "something else")};
    Fingerprint beyond = {10, Fingerprint::kUnknownTime, RecordCrc({}, "10")};
    for (const Fingerprint &last : {changed, beyond}) {
        auto reader = StartReader(OptionsFor(broker.brokers()),
                                  {{"events", 0, last.kafka_offset + 1, last}, {"events", 1, 0}});
        Notice notice;
        ASSERT_TRUE(WaitForNotice(*reader, Notice::Kind::kTopicChanged, &notice));
        EXPECT_EQ(notice.partition, 0);
        EXPECT_EQ(notice.next_offset, last.kafka_offset + 1);
        EXPECT_NE(notice.text.find(std::to_string(last.kafka_offset)), std::string::npos);
        Ledger ledger(Start{{1, 0}}); // nothing of partition 0
        while (ledger.next(1) < 10) {
            auto batch = NextBatch(*reader);
            ASSERT_NE(batch, nullptr);
            ledger.Add(*batch);
        }
    }
}

// An offset that was lost under the assignment before says nothing about the new one.
// (librdkafka drops most such errors itself: the mock has not been seen to let one through.)
TEST(ReaderTest, AStaleErrorLosesNoPartition)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 10);
    auto reader = StartReader(OptionsFor(broker.brokers()), {});
    for (int round = 0; round < 30; round++) {
        reader->Assign({{"events", 0, 1000 + round}});
        if (round % 2 == 0) {
            Notice notice;
            ASSERT_TRUE(WaitForNotice(*reader, Notice::Kind::kOffsetLost, &notice));
            ASSERT_EQ(notice.next_offset, 1000 + round);
        }
        reader->Assign({{"events", 0, 9}});
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr) << "round " << round;
        ASSERT_EQ(batch->records.at(0).kafka_offset, 9);
        for (const Notice &notice : reader->TakeNotices())
            ASSERT_FALSE(notice.kind == Notice::Kind::kOffsetLost && notice.next_offset == 9);
    }
}

TEST(ReaderTest, GoesOnByItselfAfterAPartitionError)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 100);
    rd_kafka_mock_push_request_errors(broker.cluster(), kafka::kFetchRequest, 2,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    auto reader = StartReader(OptionsFor(broker.brokers()), {{"events", 0, 0}});
    Notice notice;
    ASSERT_TRUE(WaitForNotice(*reader, Notice::Kind::kPartitionError, &notice));
    EXPECT_EQ(notice.partition, 0);
    EXPECT_EQ(notice.next_offset, 0);
    EXPECT_NE(notice.text.find("TOPIC_AUTHORIZATION_FAILED"), std::string::npos) << notice.text;
    ASSERT_TRUE(WaitForNotice(*reader, Notice::Kind::kPartitionBack, &notice));
    EXPECT_EQ(notice.partition, 0);
    Ledger ledger(Start{{0, 0}});
    while (ledger.next(0) < 100) {
        auto batch = NextBatch(*reader);
        ASSERT_NE(batch, nullptr);
        ledger.Add(*batch);
    }
}

TEST(ReaderTest, SaysThatAnIdlePartitionIsBack)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 10);
    rd_kafka_mock_push_request_errors(broker.cluster(), kafka::kFetchRequest, 2,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    auto reader = StartReader(OptionsFor(broker.brokers()), {{"events", 0, 10}});
    Notice notice;
    ASSERT_TRUE(WaitForNotice(*reader, Notice::Kind::kPartitionError, &notice));
    ASSERT_TRUE(WaitForNotice(*reader, Notice::Kind::kPartitionBack, &notice));
    EXPECT_EQ(notice.next_offset, 10);
}

TEST(ReaderTest, GoesOnAfterALostBroker)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 10);
    auto reader = StartReader(OptionsFor(broker.brokers()), {{"events", 0, 0}});
    Ledger ledger(Start{{0, 0}});
    auto read_to = [&](int64_t end) {
        while (ledger.next(0) < end) {
            auto batch = NextBatch(*reader);
            ASSERT_NE(batch, nullptr);
            ledger.Add(*batch);
        }
    };
    read_to(10);
    rd_kafka_mock_broker_set_down(broker.cluster(), 1);
    Notice notice;
    ASSERT_TRUE(WaitForNotice(*reader, Notice::Kind::kClientError, &notice));
    EXPECT_FALSE(notice.text.empty());
    rd_kafka_mock_broker_set_up(broker.cluster(), 1);
    broker.ProduceNumbers("events", 0, 10, 10);
    read_to(20);
}

TEST(ReaderTest, RefusesSettingsThatLibrdkafkaRefuses)
{
    ReaderOptions options = OptionsFor("localhost:1");
    options.config.options = {{"fetch.wait.max.ms", "a while"}};
    auto reader = Reader::Start(options, NumberMapping());
    ASSERT_FALSE(reader.ok());
    EXPECT_NE(reader.message().find("fetch.wait.max.ms"), std::string::npos) << reader.message();
}

TEST(ReaderTest, RunsItsThreadsWithAllSignalsBlocked)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 1);
    std::map<std::string, uint64_t> before = BlockedSignalsByThread();
    auto reader = StartReader(OptionsFor(broker.brokers()), {{"events", 0, 0}});
    ASSERT_NE(NextBatch(*reader), nullptr);
    size_t threads = 0;
    for (const auto &[task, blocked] : BlockedSignalsByThread()) {
        if (before.contains(task))
            continue;
        threads++;
        for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT, SIGALRM, SIGCHLD})
            EXPECT_TRUE(blocked & (uint64_t{1} << (signal - 1)))
                << "signal " << signal << " reaches thread " << task;
    }
    EXPECT_GE(threads, 2u);
    EXPECT_EQ(BlockedSignalsByThread()[std::to_string(getpid())], before[std::to_string(getpid())])
        << "the mask of the thread that starts it is as it was";
}

TEST(ReaderTest, CanBeDestroyedAtAnyMoment)
{
    MockBroker broker;
    broker.CreateTopic("events", 1);
    broker.ProduceNumbers("events", 0, 0, 1000);
    for (int i = 0; i < 10; i++) {
        auto reader = StartReader(OptionsFor(broker.brokers()), {{"events", 0, i}});
        if (i % 3 == 1)
            reader->Assign({{"events", 0, 500}});
        if (i % 3 == 2) {
            ASSERT_NE(NextBatch(*reader), nullptr);
        }
    }
}

} // namespace pulse::ingest
