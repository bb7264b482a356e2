// Whether what a client hands out is what comes next in a partition: also what no mock broker can
// be made to send, such as errors of an assignment that is over. src/ingest/reading_positions.hpp.
#include "ingest/reading_positions.hpp"

#include <gtest/gtest.h>

#include "base/crc32c.hpp"
#include "decode_fixture.hpp"

namespace pulse::ingest {

namespace {

using Verdict = ReadingPosition::Verdict;
using Trouble = ReadingPosition::Trouble;

// The value of each is its offset.
class Source {
  public:
    const kafka::Message &Record(int64_t offset) { return Record(offset, std::to_string(offset)); }

    const kafka::Message &Record(int64_t offset, std::string value)
    {
        value_ = std::move(value);
        message_ = {};
        message_.kind = kafka::Message::Kind::kRecord;
        message_.offset = offset;
        message_.broker = broker_;
        message_.value = value_;
        return message_;
    }

    const kafka::Message &End(int64_t offset)
    {
        message_ = {};
        message_.kind = kafka::Message::Kind::kEndOfPartition;
        message_.broker = broker_;
        message_.offset = offset;
        return message_;
    }

    const kafka::Message &Error(int64_t offset, bool is_out_of_range)
    {
        message_ = {};
        message_.kind = kafka::Message::Kind::kPartitionError;
        message_.offset = offset;
        message_.is_out_of_range = is_out_of_range;
        return message_;
    }

    Source &From(int32_t broker)
    {
        broker_ = broker;
        return *this;
    }

    const kafka::Message &OutOfRange(int64_t offset) { return Error(offset, true); }
    const kafka::Message &Damage(int64_t offset)
    {
        message_ = Error(offset, false);
        message_.is_damaged = true;
        return message_;
    }
    const kafka::Message &Refusal(int64_t offset = -1) { return Error(offset, false); }

  private:
    std::string value_;
    int32_t broker_ = -1;
    kafka::Message message_;
};

Fingerprint
LastOf(int64_t offset)
{
    return {offset, Fingerprint::kUnknownTime, RecordCrc({}, std::to_string(offset))};
}

// Reading from an offset, perhaps after the record that was read last.
ReadingPosition
Reading(int64_t next_offset, Fingerprint last = {})
{
    ReadingPosition position({"events", 3, next_offset, last});
    (void)position.Restart();
    return position;
}

Verdict
Take(ReadingPosition &position, const kafka::Message &message)
{
    Verdict verdict = position.Judge(message);
    if (verdict == Verdict::kNext)
        position.Pass(message);
    return verdict;
}

} // namespace

TEST(ReadingPositionTest, TakesEachRecordOnce)
{
    Source source;
    ReadingPosition position = Reading(5);
    EXPECT_EQ(Take(position, source.Record(4)), Verdict::kNotNext) << "before its beginning";
    EXPECT_EQ(Take(position, source.Record(5)), Verdict::kNext);
    EXPECT_EQ(Take(position, source.Record(5)), Verdict::kNotNext);
    EXPECT_EQ(position.next_offset(), 6);
    EXPECT_EQ(Take(position, source.Record(9)), Verdict::kNext) << "compacted between";
    EXPECT_EQ(position.next_offset(), 10);
}

// Behind control records, which nobody sees.
TEST(ReadingPositionTest, GoesOnToTheEndOfItsPartition)
{
    Source source;
    ReadingPosition position = Reading(5);
    EXPECT_EQ(Take(position, source.End(4)), Verdict::kNotNext);
    EXPECT_EQ(Take(position, source.End(5)), Verdict::kNotNext) << "it is there already";
    EXPECT_EQ(Take(position, source.End(7)), Verdict::kNext);
    EXPECT_EQ(position.next_offset(), 7);
    EXPECT_EQ(Take(position, source.Record(6)), Verdict::kNotNext);
    EXPECT_EQ(Take(position, source.Record(7)), Verdict::kNext);
}

TEST(ReadingPositionTest, BeginsAtItsLastRecord)
{
    EXPECT_EQ(ReadingPosition({"events", 3, 5}).Restart().next_offset, 5);
    PartitionOffset start = ReadingPosition({"events", 3, 5, LastOf(3)}).Restart();
    EXPECT_EQ(start.topic, "events");
    EXPECT_EQ(start.partition, 3);
    EXPECT_EQ(start.next_offset, 3);
    EXPECT_EQ(ReadingPosition({"events", 3, 5, LastOf(9)}).Restart().next_offset, 5)
        << "it was sought back behind it";
}

TEST(ReadingPositionTest, KnowsItsLastRecordAgain)
{
    Source source;
    ReadingPosition position = Reading(5, LastOf(3));
    EXPECT_EQ(Take(position, source.Record(2)), Verdict::kNotNext) << "of the time before";
    EXPECT_EQ(Take(position, source.Record(3)), Verdict::kNotNext) << "the same, but not again";
    EXPECT_EQ(Take(position, source.Record(4)), Verdict::kNotNext);
    EXPECT_EQ(Take(position, source.Record(5)), Verdict::kNext);

    ReadingPosition compacted = Reading(5, LastOf(3));
    EXPECT_EQ(Take(compacted, source.Record(6)), Verdict::kNext);

    ReadingPosition empty = Reading(5, LastOf(3));
    EXPECT_EQ(Take(empty, source.End(5)), Verdict::kNotNext) << "the log is as long as it was";
    EXPECT_EQ(Take(empty, source.Record(5)), Verdict::kNext);
}

TEST(ReadingPositionTest, IsLostWhereItsLastRecordIsAnotherOne)
{
    Source source;
    ReadingPosition changed = Reading(5, LastOf(4));
    EXPECT_EQ(changed.Judge(source.Record(4, "x")), Verdict::kTopicChanged);
    ReadingPosition shorter = Reading(5, LastOf(4));
    EXPECT_EQ(shorter.Judge(source.End(4)), Verdict::kTopicChanged);
    ReadingPosition much_shorter = Reading(5, LastOf(4));
    EXPECT_EQ(much_shorter.Judge(source.End(0)), Verdict::kTopicChanged);
    for (ReadingPosition *position : {&changed, &shorter, &much_shorter}) {
        EXPECT_TRUE(position->IsLost());
        EXPECT_EQ(position->next_offset(), 5);
        EXPECT_EQ(position->Judge(source.Record(5)), Verdict::kNotNext);
        EXPECT_EQ(position->Judge(source.End(9)), Verdict::kNotNext);
        EXPECT_EQ(position->JudgeError(source.OutOfRange(5)), Trouble::kNone) << "said once";
    }
}

// After an unclean election it may be another log, filled beyond what was read.
TEST(ReadingPositionTest, LooksAtItsLastRecordAgainWhenAnotherBrokerHasThePartition)
{
    auto read_on = [](std::string last_value) {
        Source source;
        ReadingPosition position = Reading(2, LastOf(1));
        EXPECT_EQ(Take(position, source.From(1).Record(1)), Verdict::kNotNext);
        EXPECT_EQ(Take(position, source.Record(2)), Verdict::kNext);
        EXPECT_EQ(Take(position, source.From(2).Record(3)), Verdict::kOtherBroker);
        EXPECT_EQ(Take(position, source.Record(4)), Verdict::kNotNext) << "of a log not looked at";
        EXPECT_EQ(Take(position, source.End(5)), Verdict::kNotNext);
        EXPECT_EQ(position.Restart().next_offset, 1);
        return Take(position, source.Record(1, std::move(last_value)));
    };
    EXPECT_EQ(read_on("another"), Verdict::kTopicChanged);
    EXPECT_EQ(read_on("1"), Verdict::kNotNext) << "it has the same log";
}

TEST(ReadingPositionTest, GoesOnWithAnotherBrokerWhenThereIsNothingToCompare)
{
    Source source;
    ReadingPosition position = Reading(5);
    EXPECT_EQ(Take(position, source.From(1).End(5)), Verdict::kNotNext);
    EXPECT_EQ(Take(position, source.From(2).Record(5)), Verdict::kOtherBroker);
    EXPECT_EQ(position.Restart().next_offset, 5);
    EXPECT_EQ(Take(position, source.Record(5)), Verdict::kNext);
    EXPECT_EQ(Take(position, source.From(-1).Record(6)), Verdict::kNext) << "no broker is named";
}

TEST(ReadingPositionTest, TakesNothingBehindAnErrorBeforeItIsReadAgain)
{
    Source source;
    ReadingPosition position = Reading(5);
    EXPECT_EQ(Take(position, source.Record(5)), Verdict::kNext);
    EXPECT_EQ(position.JudgeError(source.Refusal(6)), Trouble::kPassing);
    EXPECT_EQ(Take(position, source.Record(6)), Verdict::kNotNext);
    EXPECT_EQ(Take(position, source.End(9)), Verdict::kNotNext);
    EXPECT_EQ(position.Restart().next_offset, 6);
    EXPECT_EQ(Take(position, source.Record(6)), Verdict::kNext);
}

// Behind a damaged batch librdkafka asks for an offset of its own invention.
TEST(ReadingPositionTest, TellsTheFirstErrorOnly)
{
    Source source;
    ReadingPosition position = Reading(5);
    EXPECT_EQ(position.JudgeError(source.Refusal(5)), Trouble::kPassing);
    EXPECT_EQ(position.JudgeError(source.OutOfRange(77)), Trouble::kNone);
    EXPECT_EQ(position.JudgeError(source.OutOfRange(5)), Trouble::kNone);
    EXPECT_EQ(position.failure_count(), 1);
    EXPECT_FALSE(position.IsLost());
    (void)position.Restart();
    EXPECT_EQ(position.JudgeError(source.OutOfRange(5)), Trouble::kLost);
}

TEST(ReadingPositionTest, MindsDamageOnlyWhereItHasNotRead)
{
    Source source;
    ReadingPosition behind = Reading(20, LastOf(9)); // moved there by an operator
    EXPECT_EQ(Take(behind, source.Record(9)), Verdict::kNotNext);
    EXPECT_EQ(behind.JudgeError(source.Damage(10)), Trouble::kLastGone);
    EXPECT_EQ(behind.Restart().next_offset, 20);
    EXPECT_EQ(Take(behind, source.Record(20)), Verdict::kNext);

    ReadingPosition at_last = Reading(20, LastOf(19));
    EXPECT_EQ(at_last.JudgeError(source.Damage(10)), Trouble::kLastGone);
    EXPECT_EQ(at_last.Restart().next_offset, 20);
    EXPECT_EQ(at_last.JudgeError(source.Damage(10)), Trouble::kPassing) << "it goes on to there";
    EXPECT_EQ(at_last.Restart().next_offset, 20);
    EXPECT_EQ(at_last.JudgeError(source.Damage(20)), Trouble::kPassing);
    EXPECT_EQ(Take(at_last, source.Record(30)), Verdict::kNotNext) << "nothing is passed over";
}

TEST(ReadingPositionTest, CountsFailuresUntilItIsBack)
{
    Source source;
    ReadingPosition position = Reading(5);
    for (int i = 1; i <= 3; i++) {
        EXPECT_EQ(position.JudgeError(source.Refusal()), Trouble::kPassing);
        EXPECT_EQ(position.failure_count(), i);
        (void)position.Restart();
    }
    EXPECT_FALSE(position.IsBack());
    EXPECT_EQ(Take(position, source.End(5)), Verdict::kNotNext) << "nothing new";
    EXPECT_EQ(position.failure_count(), 0);
    EXPECT_TRUE(position.IsBack());
    EXPECT_FALSE(position.IsBack()) << "said once";
    EXPECT_EQ(Take(position, source.Record(6)), Verdict::kNext);
    EXPECT_FALSE(position.IsBack());

    ReadingPosition damaged = Reading(10, LastOf(9));
    EXPECT_EQ(damaged.JudgeError(source.Damage(10)), Trouble::kPassing);
    (void)damaged.Restart();
    EXPECT_EQ(Take(damaged, source.Record(9)), Verdict::kNotNext);
    EXPECT_FALSE(damaged.IsBack()) << "the damage is behind its last record";
    EXPECT_EQ(damaged.failure_count(), 1);
}

TEST(ReadingPositionTest, IsLostWhereItsNextOffsetIsNotInTheLog)
{
    Source source;
    for (int64_t offset : {5, -1}) { // -1: the client did not say
        ReadingPosition position = Reading(5);
        EXPECT_EQ(position.JudgeError(source.OutOfRange(offset)), Trouble::kLost);
        EXPECT_TRUE(position.IsLost());
        EXPECT_EQ(position.Judge(source.Record(5)), Verdict::kNotNext);
    }
    ReadingPosition checked = Reading(5, LastOf(3));
    EXPECT_EQ(Take(checked, source.Record(3)), Verdict::kNotNext);
    EXPECT_EQ(checked.JudgeError(source.OutOfRange(5)), Trouble::kLost);
}

// It names the offset of an assignment that is over.
TEST(ReadingPositionTest, IsNotLostByAStaleError)
{
    Source source;
    ReadingPosition position = Reading(5);
    EXPECT_EQ(position.JudgeError(source.OutOfRange(1000)), Trouble::kPassing);
    EXPECT_FALSE(position.IsLost());
    EXPECT_EQ(position.Restart().next_offset, 5);
    EXPECT_EQ(Take(position, source.Record(5)), Verdict::kNext);

    ReadingPosition checking = Reading(5, LastOf(3));
    EXPECT_EQ(checking.JudgeError(source.OutOfRange(5)), Trouble::kPassing);
    EXPECT_EQ(checking.Restart().next_offset, 3) << "its last record is still to be checked";
}

// Retention may have passed the last record and not the next one.
TEST(ReadingPositionTest, GoesOnWhereOnlyItsLastRecordIsGone)
{
    Source source;
    ReadingPosition position = Reading(5, LastOf(4));
    EXPECT_EQ(position.JudgeError(source.OutOfRange(4)), Trouble::kLastGone);
    EXPECT_EQ(position.failure_count(), 0);
    EXPECT_EQ(Take(position, source.Record(5)), Verdict::kNotNext) << "before Restart()";
    EXPECT_EQ(position.Restart().next_offset, 5);
    EXPECT_EQ(Take(position, source.Record(5)), Verdict::kNext);

    ReadingPosition gone = Reading(5, LastOf(4));
    (void)gone.JudgeError(source.OutOfRange(4));
    (void)gone.Restart();
    EXPECT_EQ(gone.JudgeError(source.OutOfRange(5)), Trouble::kLost);
}

TEST(ReadingPositionTest, FindsWhatIsSetAside)
{
    ReadingPosition position = Reading(5);
    EXPECT_EQ(position.FindSetAside(5), nullptr);
    position.Add({"events", 3, 5, decode::RejectCode::kSkipped, "so"});
    ASSERT_NE(position.FindSetAside(5), nullptr);
    EXPECT_EQ(position.FindSetAside(5)->reason, "so");
    EXPECT_EQ(position.FindSetAside(6), nullptr);
}

TEST(ReadingPositionsTest, FindsThoseOfTheAssignment)
{
    ReadingPositions positions;
    EXPECT_EQ(positions.Find("events", 0), nullptr);
    positions.Replace({{"events", 0, 5}, {"events", 1, 6}, {"others", 0, 7}},
                      {{"events", 1, 6, decode::RejectCode::kSkipped, "so"},
                       {"nobody's", 1, 6, decode::RejectCode::kSkipped, "so"}});
    for (int i = 0; i < 2; i++) {
        EXPECT_EQ(positions.Find("events", 0)->next_offset(), 5);
        EXPECT_EQ(positions.Find("events", 1)->next_offset(), 6);
        EXPECT_EQ(positions.Find("events", 1)->next_offset(), 6);
        EXPECT_EQ(positions.Find("others", 0)->next_offset(), 7);
        EXPECT_EQ(positions.Find("others", 1), nullptr);
        EXPECT_EQ(positions.Find("event", 1), nullptr);
    }
    EXPECT_NE(positions.Find("events", 1)->FindSetAside(6), nullptr);
    EXPECT_EQ(positions.Find("events", 0)->FindSetAside(6), nullptr);

    ASSERT_NE(positions.Find("events", 1), nullptr);
    positions.Replace({{"others", 0, 8}}, {});
    EXPECT_EQ(positions.Find("events", 1), nullptr);
    EXPECT_EQ(positions.Find("others", 0)->next_offset(), 8);
}

TEST(ReadingPositionsTest, LeavesOutWhatIsLost)
{
    ReadingPositions positions;
    positions.Replace({{"events", 0, 5}, {"events", 1, 6}, {"events", 2, 7}}, {});
    positions.At(1).Lose();
    EXPECT_EQ(positions.Readable(), (std::vector<size_t>{0, 2}));
    std::vector<PartitionOffset> starts = positions.Restart();
    ASSERT_EQ(starts.size(), 2u);
    EXPECT_EQ(starts[0].partition, 0);
    EXPECT_EQ(starts[1].partition, 2);
    positions.Replace({{"events", 1, 6}}, {});
    EXPECT_EQ(positions.Readable(), std::vector<size_t>{0}) << "another chance";
}

// What is read again after an error is the last record of the batch being filled.
TEST(ReadingPositionsTest, RemembersTheLastRecordsOfABatch)
{
    Source source;
    ReadingPositions positions;
    positions.Replace({{"events", 0, 5}, {"events", 1, 6, LastOf(2)}, {"events", 2, 7}}, {});
    auto mapping = decode::MappingBuilder().Build();
    decode::Decoder decoder(mapping);
    Batch batch;
    batch.mapping = mapping;
    positions.BeginBatch();
    (void)positions.Restart();
    int32_t ranges = 0;
    for (int32_t partition : {2, 0}) {
        ReadingPosition *position = positions.Find("events", partition);
        ASSERT_EQ(position->range_index(), -1);
        position->SetRange(ranges++);
        batch.ranges.push_back({"events", partition, position->next_offset(), -1, -1, 0});
    }
    for (int64_t offset : {7, 8}) {
        ReadingPosition *position = positions.Find("events", 2);
        ASSERT_EQ(Take(*position, source.Record(offset)), Verdict::kNext);
        batch.Append(source.Record(offset), 0, decoder, 0);
    }
    ASSERT_EQ(Take(positions.At(0), source.End(9)), Verdict::kNext); // a range without a record
    positions.Remember(batch);

    std::vector<PartitionOffset> starts = positions.Restart();
    EXPECT_EQ(starts[0].next_offset, 9);
    EXPECT_EQ(starts[1].next_offset, 2) << "not in the batch";
    EXPECT_EQ(starts[2].next_offset, 8);
    EXPECT_EQ(positions.At(2).Judge(source.Record(8, "x")), Verdict::kTopicChanged);

    positions.BeginBatch();
    for (size_t i = 0; i < 3; i++)
        EXPECT_EQ(positions.At(i).range_index(), -1);
}

} // namespace pulse::ingest
