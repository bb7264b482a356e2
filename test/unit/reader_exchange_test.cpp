// What the backend and the reader thread exchange, without either: which batches and notices reach
// the backend, who is woken when, what counts as queued. src/ingest/reader_exchange.hpp.
#include "ingest/reader_exchange.hpp"

#include <gtest/gtest.h>

#include <poll.h>
#include <random>
#include <thread>

namespace pulse::ingest {

namespace {

constexpr size_t kQueueBytes = 100000;

std::shared_ptr<const decode::Mapping>
NewMapping()
{
    return std::make_shared<decode::Mapping>();
}

std::unique_ptr<Batch>
NewBatch(uint64_t assignment, size_t records = 1)
{
    auto batch = std::make_unique<Batch>();
    batch->assignment = assignment;
    batch->records.resize(records);
    return batch;
}

// It alone fills the queue.
std::unique_ptr<Batch>
LargeBatch(uint64_t assignment)
{
    return NewBatch(assignment, kQueueBytes / sizeof(Record) + 1);
}

Notice
AboutPartition(int64_t next_offset = 7)
{
    return {Notice::Kind::kOffsetLost, "events", 0, next_offset, "why"};
}

Notice
AboutBroker()
{
    return {Notice::Kind::kClientError, "", -1, -1, "why"};
}

// Assigns as the backend does, and takes it as the thread does.
uint64_t
AssignAndTake(ReaderExchange &exchange)
{
    exchange.Assign({{"events", 0, 7}}, {});
    return exchange.TakeCommands().assignment->number;
}

bool
IsBackendWoken(const ReaderExchange &exchange)
{
    pollfd fd = {exchange.fd(), POLLIN, 0};
    return poll(&fd, 1, 0) == 1;
}

// Since it was asked last.
bool
IsThreadWoken(ReaderExchange &exchange)
{
    return exchange.WaitForCommand(0);
}

} // namespace

TEST(ReaderExchangeTest, HandsBatchesOverInOrder)
{
    ReaderExchange exchange(kQueueBytes, NewMapping());
    uint64_t assignment = AssignAndTake(exchange);
    exchange.Offer(NewBatch(assignment, 1));
    exchange.Offer(NewBatch(assignment, 2));
    exchange.NoteFilling(1000, 3);
    EXPECT_EQ(exchange.QueuedRecords(), 6u);
    EXPECT_EQ(exchange.Take()->records.size(), 1u);
    EXPECT_EQ(exchange.Take()->records.size(), 2u);
    EXPECT_EQ(exchange.Take(), nullptr);
    EXPECT_EQ(exchange.QueuedRecords(), 3u);
    exchange.Offer(NewBatch(assignment, 3));
    EXPECT_EQ(exchange.QueuedRecords(), 3u) << "no longer being filled";
}

TEST(ReaderExchangeTest, DropsBatchesOfAnOldAssignment)
{
    ReaderExchange exchange(kQueueBytes, NewMapping());
    uint64_t before = AssignAndTake(exchange);
    exchange.Offer(NewBatch(before));
    exchange.NoteFilling(1000, 1);
    exchange.Assign({}, {});
    exchange.Offer(NewBatch(before)); // the thread does not know yet
    EXPECT_EQ(exchange.QueuedRecords(), 0u);
    EXPECT_EQ(exchange.Take(), nullptr);
    EXPECT_FALSE(IsBackendWoken(exchange));

    uint64_t after = exchange.TakeCommands().assignment->number;
    exchange.Offer(NewBatch(before));
    exchange.Offer(NewBatch(after));
    ASSERT_TRUE(IsBackendWoken(exchange));
    EXPECT_EQ(exchange.Take()->assignment, after);
    EXPECT_EQ(exchange.Take(), nullptr);
}

TEST(ReaderExchangeTest, GivesEachCommandOnce)
{
    auto mapping = NewMapping();
    ReaderExchange exchange(kQueueBytes, mapping);
    ReaderCommands nothing = exchange.TakeCommands();
    EXPECT_FALSE(nothing.assignment.has_value());
    EXPECT_EQ(nothing.mapping, mapping);
    EXPECT_TRUE(nothing.mirror.empty());
    EXPECT_FALSE(IsThreadWoken(exchange));

    exchange.Assign({{"events", 0, 1}}, {});
    exchange.Assign({{"events", 1, 5}}, {{"events", 1, 6, decode::RejectCode::kSkipped, "so"}});
    exchange.Mirror({{"events", 1, 4}});
    auto other = NewMapping();
    exchange.SetMapping(other);
    EXPECT_TRUE(IsThreadWoken(exchange));
    ReaderCommands commands = exchange.TakeCommands();
    ASSERT_TRUE(commands.assignment.has_value());
    ASSERT_EQ(commands.assignment->partitions.size(), 1u) << "the newest";
    EXPECT_EQ(commands.assignment->partitions[0].next_offset, 5);
    ASSERT_EQ(commands.assignment->set_aside.size(), 1u);
    EXPECT_EQ(commands.assignment->set_aside[0].kafka_offset, 6);
    EXPECT_EQ(commands.mapping, other);
    ASSERT_EQ(commands.mirror.size(), 1u);
    EXPECT_EQ(commands.mirror[0].next_offset, 4);

    ReaderCommands again = exchange.TakeCommands();
    EXPECT_FALSE(again.assignment.has_value());
    EXPECT_EQ(again.mapping, other);
    EXPECT_TRUE(again.mirror.empty());
}

TEST(ReaderExchangeTest, WakesTheThreadWhenTheQueueIsNoLongerFull)
{
    ReaderExchange exchange(kQueueBytes, NewMapping());
    uint64_t assignment = AssignAndTake(exchange);
    (void)IsThreadWoken(exchange);
    exchange.NoteFilling(kQueueBytes, 1);
    EXPECT_FALSE(exchange.IsFull()) << "the backend could take nothing";

    exchange.Offer(LargeBatch(assignment));
    EXPECT_TRUE(exchange.IsFull());
    ASSERT_NE(exchange.Take(), nullptr);
    EXPECT_TRUE(IsThreadWoken(exchange));
    EXPECT_FALSE(exchange.IsFull());

    exchange.Offer(NewBatch(assignment));
    EXPECT_FALSE(exchange.IsFull());
    exchange.NoteFilling(kQueueBytes, 1);
    EXPECT_TRUE(exchange.IsFull()) << "with what is being filled";
    ASSERT_NE(exchange.Take(), nullptr);
    EXPECT_TRUE(IsThreadWoken(exchange));

    exchange.Offer(NewBatch(assignment));
    ASSERT_NE(exchange.Take(), nullptr);
    EXPECT_FALSE(IsThreadWoken(exchange)) << "it was not waiting";
}

TEST(ReaderExchangeTest, HasRoomAgainAfterAnAssignment)
{
    ReaderExchange exchange(kQueueBytes, NewMapping());
    exchange.Offer(LargeBatch(AssignAndTake(exchange)));
    ASSERT_TRUE(exchange.IsFull());
    uint64_t assignment = AssignAndTake(exchange);
    EXPECT_TRUE(IsThreadWoken(exchange));
    exchange.Offer(NewBatch(assignment));
    EXPECT_FALSE(exchange.IsFull());
    EXPECT_EQ(exchange.QueuedRecords(), 1u);
}

TEST(ReaderExchangeTest, IsHungryFromATakeInVainToTheNextBatch)
{
    ReaderExchange exchange(kQueueBytes, NewMapping());
    uint64_t assignment = AssignAndTake(exchange);
    (void)IsThreadWoken(exchange);
    EXPECT_FALSE(exchange.IsHungry());
    EXPECT_EQ(exchange.Take(), nullptr);
    EXPECT_TRUE(exchange.IsHungry());
    EXPECT_TRUE(IsThreadWoken(exchange));
    EXPECT_EQ(exchange.Take(), nullptr);
    EXPECT_FALSE(IsThreadWoken(exchange)) << "it knows";

    exchange.Offer(NewBatch(assignment + 1));
    EXPECT_TRUE(exchange.IsHungry()) << "that one was dropped";
    exchange.Offer(NewBatch(assignment));
    EXPECT_FALSE(exchange.IsHungry());
    EXPECT_NE(exchange.Take(), nullptr);
    EXPECT_FALSE(exchange.IsHungry());
}

TEST(ReaderExchangeTest, DropsNoticesAboutPartitionsOfAnOldAssignment)
{
    ReaderExchange exchange(kQueueBytes, NewMapping());
    (void)AssignAndTake(exchange);
    exchange.AddNotice(AboutPartition());
    exchange.AddNotice(AboutBroker());
    exchange.Assign({}, {});
    exchange.AddNotice(AboutPartition()); // the thread does not know yet
    exchange.AddNotice(AboutBroker());
    std::vector<Notice> notices = exchange.TakeNotices();
    ASSERT_EQ(notices.size(), 2u);
    EXPECT_EQ(notices[0].kind, Notice::Kind::kClientError);
    EXPECT_EQ(notices[1].kind, Notice::Kind::kClientError);

    (void)exchange.TakeCommands();
    exchange.AddNotice(AboutPartition());
    notices = exchange.TakeNotices();
    ASSERT_EQ(notices.size(), 1u);
    EXPECT_EQ(notices[0].kind, Notice::Kind::kOffsetLost);
    EXPECT_TRUE(exchange.TakeNotices().empty());
}

// The others are said only once: none may be lost.
TEST(ReaderExchangeTest, BoundsTheNoticesThatComeAgain)
{
    ReaderExchange exchange(kQueueBytes, NewMapping());
    (void)AssignAndTake(exchange);
    for (size_t i = 0; i < ReaderExchange::kMaxNotices; i++) {
        exchange.AddNotice(AboutBroker());
        exchange.AddNotice({Notice::Kind::kPartitionError, "events", 0, 7, "why"});
    }
    for (Notice::Kind kind :
         {Notice::Kind::kTooLarge, Notice::Kind::kOffsetLost, Notice::Kind::kTopicChanged})
        exchange.AddNotice({kind, "events", 0, 7, "why"});
    exchange.AddNotice(AboutBroker());
    std::vector<Notice> notices = exchange.TakeNotices();
    ASSERT_EQ(notices.size(), ReaderExchange::kMaxNotices + 3);
    EXPECT_EQ(notices.back().kind, Notice::Kind::kTopicChanged);
    exchange.AddNotice(AboutBroker());
    EXPECT_EQ(exchange.TakeNotices().size(), 1u) << "there is room again";
}

TEST(ReaderExchangeTest, TellsOnceThatTheThreadEnded)
{
    ReaderExchange exchange(kQueueBytes, NewMapping());
    exchange.Fail(std::string(1000, 'x').c_str());
    EXPECT_TRUE(IsBackendWoken(exchange));
    std::vector<Notice> notices = exchange.TakeNotices();
    ASSERT_EQ(notices.size(), 1u);
    EXPECT_EQ(notices[0].kind, Notice::Kind::kFailed);
    EXPECT_EQ(notices[0].text, std::string(255, 'x'));
    EXPECT_TRUE(exchange.TakeNotices().empty());
}

TEST(ReaderExchangeTest, WakesTheBackend)
{
    ReaderExchange exchange(kQueueBytes, NewMapping());
    uint64_t assignment = AssignAndTake(exchange);
    EXPECT_FALSE(IsBackendWoken(exchange));
    exchange.Offer(NewBatch(assignment));
    EXPECT_TRUE(IsBackendWoken(exchange));
    (void)exchange.Take();
    EXPECT_FALSE(IsBackendWoken(exchange));
    exchange.AddNotice(AboutPartition());
    EXPECT_TRUE(IsBackendWoken(exchange));
}

TEST(ReaderExchangeTest, StopsTheThread)
{
    ReaderExchange exchange(kQueueBytes, NewMapping());
    EXPECT_FALSE(exchange.IsStopped());
    exchange.Stop();
    EXPECT_TRUE(exchange.IsStopped());
    EXPECT_TRUE(IsThreadWoken(exchange));
}

// Both sides at once: from Assign() on, nothing of an assignment before it.
TEST(ReaderExchangeTest, NothingOfAnOldAssignmentArrivesWhileBothSidesAreBusy)
{
    ReaderExchange exchange(kQueueBytes, NewMapping());
    std::thread thread([&exchange] {
        uint64_t assignment = 0;
        while (!exchange.IsStopped()) {
            ReaderCommands commands = exchange.TakeCommands();
            if (commands.assignment.has_value())
                assignment = commands.assignment->number;
            exchange.Offer(NewBatch(assignment));
            exchange.AddNotice(AboutPartition(static_cast<int64_t>(assignment)));
            if (exchange.IsFull())
                (void)exchange.WaitForCommand(10);
        }
    });
    std::mt19937 random(1);
    uint64_t assignment = 0;
    size_t taken = 0;
    while (assignment < 2000 || taken < 2000) {
        if (random() % 4 == 0) {
            exchange.Assign({}, {});
            assignment++;
        }
        if (std::unique_ptr<Batch> batch = exchange.Take()) {
            taken++;
            EXPECT_EQ(batch->assignment, assignment);
        }
        for (const Notice &notice : exchange.TakeNotices())
            EXPECT_EQ(notice.next_offset, static_cast<int64_t>(assignment));
    }
    exchange.Stop();
    thread.join();
}

// What is handed over counts as being filled or as ready, never as both.
TEST(ReaderExchangeTest, CountsABatchOnceWhileItIsHandedOver)
{
    constexpr size_t kRecords = 10;
    ReaderExchange exchange(kQueueBytes, NewMapping());
    uint64_t assignment = AssignAndTake(exchange);
    std::thread thread([&exchange, assignment] {
        while (!exchange.IsStopped()) {
            exchange.NoteFilling(1000, kRecords);
            exchange.Offer(NewBatch(assignment, kRecords));
            while (!exchange.IsStopped() && !exchange.IsHungry())
                (void)exchange.WaitForCommand(10);
        }
    });
    for (int taken = 0; taken < 5000;) {
        EXPECT_LE(exchange.QueuedRecords(), kRecords);
        if (exchange.Take() != nullptr)
            taken++;
    }
    exchange.Stop();
    thread.join();
}

} // namespace pulse::ingest
