#include "worker/discovery.hpp"

#include <algorithm>
#include <utility>

#include "base/fault.hpp"
#include "pg/guc.hpp"
#include "pg/shmem.hpp"
#include "pg/xact.hpp"
#include "store/positions.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

constexpr int64_t kSecond = 1000000; // TimestampTz
constexpr int64_t kProbeEvery = 5 * kSecond;

constexpr const char *kSettingsHint =
    "Mend the setting, in postgresql.conf or with pulse.alter_pipeline, or the topics: drop the "
    "pipeline and create it with an expression that is valid. It goes on by itself.";

// Something is awaited: look more often.
int64_t
ProbeInterval(const KnownPipeline &known)
{
    return known.partitions.empty() || !known.broker_error.empty() ||
                   !known.missing_topics.empty() || !known.in_trouble.empty()
               ? kSecond / 2
               : kProbeEvery;
}

void
StartAt(const KnownPipeline &known, const PartitionOffset &where, int64_t low, const char *reason,
        bool is_another_log)
{
    pg::CallPg([&] {
        if (store::StartPartition(known.name.c_str(), known.version, where.topic.c_str(),
                                  where.partition,
                                  {where.next_offset, reason, is_another_log, low}))
            ereport(
                LOG,
                (errmsg("pulse pipeline \"%s\": partition %d of topic \"%s\" starts at offset %lld",
                        known.name.c_str(), where.partition, where.topic.c_str(),
                        static_cast<long long>(where.next_offset)),
                 is_another_log ? errdetail("The topic was made again since it was last read.")
                                : 0));
    });
}

std::map<std::pair<std::string, int32_t>, PartitionOffset>
ReadLeftovers(const std::string &pipeline)
{
    std::map<std::pair<std::string, int32_t>, PartitionOffset> found;
    pg::InTransaction([&] {
        store::PartitionRow *rows = nullptr;
        int count = pg::CallPg([&] { return store::ReadLeftovers(pipeline.c_str(), &rows); });
        for (int i = 0; i < count; i++)
            found[{rows[i].topic, rows[i].partition}] = {rows[i].topic, rows[i].partition,
                                                         rows[i].next_offset, rows[i].last};
    });
    return found;
}

// Of topics seen for the first time. Throws when the beginning is no place to start.
ingest::Position
StartPosition(const KnownPipeline &known)
{
    ingest::Position position;
    bool would_insert_again = false;
    pg::InTransaction([&] {
        position = pg::CallPg([&] { return store::ParsePosition(known.start_position.c_str()); });
        if (known.partitions.empty() && position.kind == ingest::Position::Kind::kEarliest)
            would_insert_again =
                pg::CallPg([&] { return store::WouldInsertAgain(known.name.c_str()); });
    });
    if (would_insert_again) {
        pg::Error error;
        error.sqlstate = "42704"; // the index; nothing that goes away by itself
        error.message = "the target has rows and no unique index that tells duplicates: what is "
                        "read again would be inserted again";
        error.hint =
            "Finish the restore, add a unique index, or say where to begin: start_position "
            "after_rows, latest, an offset or a time.";
        throw error;
    }
    return position;
}

// The end of the log went back, or its topic was away: workers look whether it is the same one.
bool
MayBeRecreated(const KnownPipeline &known, const ingest::WatchAnswer &answer)
{
    for (const ingest::PartitionWatermarks &entry : answer.watermarks) {
        auto before = known.highs.find({entry.topic, entry.partition});
        bool was_missing = known.missing_topics.contains(entry.topic);
        if ((before != known.highs.end() && entry.high < before->second) ||
            (was_missing && known.partitions.contains({entry.topic, entry.partition})))
            return true;
    }
    return false;
}

// Takes those out that shared memory has no room for: unseen by views and commands, a partition
// that stops would do so in silence. They begin at their beginning when there is room.
int32_t
EraseUnseen(const std::string &pipeline, std::vector<ingest::PartitionWatermarks> *fresh)
{
    return static_cast<int32_t>(std::erase_if(*fresh, [&](const auto &entry) {
        return pg::CallPg([&] {
            pg::LockSharedForRead();
            const bool is_seen = pg::FindPartition(pipeline.c_str(), entry.topic.c_str(),
                                                   entry.partition, false) != nullptr;
            pg::UnlockShared();
            return !is_seen;
        });
    }));
}

pg::Error
NoRoom(int32_t unseen)
{
    pg::Error error;
    error.sqlstate = "54000";
    error.message = std::to_string(unseen) + " partitions are not read: pulse has room for " +
                    std::to_string(pg::guc_partition_slots) + " of all pipelines";
    error.hint = "Those that are read go on. Use topics with fewer partitions, drop a pipeline, or "
                 "read some topics in another cluster.";
    return error;
}

void
NoteStart(KnownPipeline *known, const pg::Error &trouble)
{
    const bool is_news = known->start_error.message != trouble.message;
    known->start_error = trouble;
    if (is_news)
        pg::CallPg([&] {
            ereport(
                trouble.message.empty() ? LOG : WARNING,
                (trouble.message.empty()
                     ? errmsg("pulse pipeline \"%s\": new partitions begin", known->name.c_str())
                     : errmsg("pulse pipeline \"%s\": new partitions cannot begin: %s",
                              known->name.c_str(), trouble.message.c_str()),
                 trouble.hint.empty() ? 0 : errhint("%s", trouble.hint.c_str())));
        });
}

// One line for all that a broker takes with it.
void
LogTroubles(const KnownPipeline &known, const KnownPipeline::Troubles &before)
{
    auto news = known.in_trouble;
    std::erase_if(news, [&](const auto &entry) { return before.contains(entry.first); });
    auto over = before;
    std::erase_if(over, [&](const auto &entry) { return known.in_trouble.contains(entry.first); });
    for (const auto *list : {&news, &over}) {
        if (list->empty())
            continue;
        const auto &[partition, text] = *list->begin();
        const std::string others =
            list->size() == 1 ? "" : " (and " + std::to_string(list->size() - 1) + " more)";
        pg::CallPg([&, &where = partition, &why = text] {
            ereport(LOG, (errmsg("pulse pipeline \"%s\": partition %d of topic \"%s\"%s %s%s",
                                 known.name.c_str(), where.second, where.first.c_str(),
                                 others.c_str(), list == &news ? "cannot be read: " : "is back",
                                 list == &news ? why.c_str() : "")));
        });
    }
}

// Into shared memory, for the views, and into the log when it begins and ends.
void
PublishTroubles(KnownPipeline *known, const std::vector<ingest::PartitionTrouble> &troubles)
{
    auto before = std::exchange(known->in_trouble, {});
    for (const ingest::PartitionTrouble &entry : troubles)
        known->in_trouble[{entry.topic, entry.partition}] = entry.text;
    auto texts = before; // of those that are well, none
    for (auto &[partition, text] : texts)
        text.clear();
    for (const auto &[partition, text] : known->in_trouble)
        texts[partition] = text;
    if (texts.empty())
        return;
    pg::CallPg([&] {
        pg::LockShared();
        for (const auto &[where, text] : texts)
            if (pg::PartitionSlot *slot = pg::FindPartition(
                    known->name.c_str(), where.first.c_str(), where.second, false))
                pg::CopyText(slot->trouble, pg::kTroubleBytes, text.c_str());
        pg::UnlockShared();
    });
    LogTroubles(*known, before);
}

// Whether any partition of it has begun.
bool
KnowsTopic(const KnownPipeline &known, const std::string &topic)
{
    auto first = known.partitions.lower_bound({topic, 0});
    return first != known.partitions.end() && first->first.first == topic;
}

// A topic begins when all its partitions can be asked: one that comes later is taken for a new one
// and begins at its beginning, whatever start_position is.
std::vector<ingest::PartitionWatermarks>
WithoutHalfTopics(const KnownPipeline &known, const ingest::WatchAnswer &answer)
{
    std::set<std::string> half;
    for (const ingest::PartitionTrouble &entry : answer.troubles)
        if (!KnowsTopic(known, entry.topic))
            half.insert(entry.topic);
    std::vector<ingest::PartitionWatermarks> whole = answer.watermarks;
    std::erase_if(whole, [&](const auto &entry) { return half.contains(entry.topic); });
    return whole;
}

} // namespace

void
Discovery::Probe(KnownPipeline *known)
{
    int64_t now = GetCurrentTimestamp();
    if (known->is_probing ||
        (known->probed_at != 0 && now - known->probed_at < ProbeInterval(*known)))
        return;
    auto config = ConfigOf(*known);
    known->probed_at = now;
    if (!config.ok()) {
        known->config_error = config.message();
        known->config_hint = kSettingsHint;
        return;
    }
    ingest::WatchRequest request;
    request.pipeline = known->name;
    request.version = known->version;
    request.config = std::move(config.value());
    request.topics = known->topics;
    PULSE_FAULT("before_probe");
    watcher_->Ask(std::move(request));
    known->is_probing = true;
}

void
Discovery::TakeProbe(KnownPipeline *known, const ingest::WatchAnswer &answer)
{
    known->is_probing = false;
    known->config_error = answer.is_definition ? answer.error : "";
    known->config_hint = kSettingsHint;
    bool was_down = !known->broker_error.empty();
    known->broker_error = answer.is_definition ? "" : answer.error;
    if (was_down != !known->broker_error.empty())
        pg::CallPg([&] {
            if (known->broker_error.empty())
                ereport(LOG,
                        (errmsg("pulse pipeline \"%s\": broker is back", known->name.c_str())));
            else
                ereport(LOG, (errmsg("pulse pipeline \"%s\": broker cannot be reached: %s",
                                     known->name.c_str(), answer.error.c_str())));
        });
    if (!answer.error.empty())
        return;
    known->has_probed = true;
    if (MayBeRecreated(*known, answer))
        known->assignment_version = NextAssignment();
    for (const ingest::PartitionWatermarks &entry : answer.watermarks)
        known->highs[{entry.topic, entry.partition}] = entry.high;
    if (WaitsFor(*known).reason.empty())
        known->waiting_since = GetCurrentTimestamp();
    known->missing_topics = answer.missing_topics;
    PublishWatermarks(known->name, answer.watermarks);
    PublishTroubles(known, answer.troubles);
    StartNewPartitions(known, WithoutHalfTopics(*known, answer));
    PublishPipeline(*known); // before a command that waits for this probe looks
}

// A topic seen for the first time begins at start_position; a partition added to a known topic at
// its beginning, for whatever is in it was written after we knew the topic.
void
Discovery::StartNewPartitions(KnownPipeline *known,
                              const std::vector<ingest::PartitionWatermarks> &watermarks)
{
    std::vector<ingest::PartitionWatermarks> fresh = watermarks;
    std::erase_if(fresh, [&](const auto &entry) {
        return known->partitions.contains({entry.topic, entry.partition});
    });
    known->unseen = EraseUnseen(known->name, &fresh);
    pg::Error trouble = known->unseen > 0 ? NoRoom(known->unseen) : pg::Error();
    ingest::Position position;
    auto is_of_new_topic = [known](const auto &entry) { return !KnowsTopic(*known, entry.topic); };
    try {
        if (std::any_of(fresh.begin(), fresh.end(), is_of_new_topic))
            position = StartPosition(*known);
    } catch (const pg::Error &error) {
        trouble = error;
        std::erase_if(fresh, is_of_new_topic); // the others need no position
    }
    bool is_asked = false;
    try {
        is_asked = !fresh.empty() && Begin(known, fresh, position);
    } catch (const pg::Error &error) {
        trouble = error;
    }
    if (!trouble.message.empty() || !is_asked) // else TakeStart() says how it went
        NoteStart(known, trouble);
}

bool
Discovery::Begin(KnownPipeline *known, const std::vector<ingest::PartitionWatermarks> &fresh,
                 ingest::Position position)
{
    auto leftovers = ReadLeftovers(known->name);
    PULSE_FAULT("before_start");
    // A time is the broker's to resolve, and where an earlier pipeline has read it is asked whether
    // this is the same log.
    std::set<std::string> topics_to_ask;
    for (const auto &[key, leftover] : leftovers)
        topics_to_ask.insert(key.first);
    std::vector<PartitionOffset> to_ask;
    std::vector<PartitionOffset> added_to_ask;
    pg::InTransaction([&] {
        for (const ingest::PartitionWatermarks &entry : fresh) {
            bool is_added = KnowsTopic(*known, entry.topic);
            auto leftover = leftovers.find({entry.topic, entry.partition});
            PartitionOffset where = {entry.topic, entry.partition, 0, {}};
            if (leftover != leftovers.end())
                where = leftover->second;
            if (is_added ? leftover != leftovers.end()
                         : position.kind == ingest::Position::Kind::kTime ||
                               topics_to_ask.contains(entry.topic)) {
                (is_added ? added_to_ask : to_ask).push_back(where);
                continue;
            }
            where.next_offset =
                !is_added && position.kind == ingest::Position::Kind::kLatest   ? entry.high
                : !is_added && position.kind == ingest::Position::Kind::kOffset ? position.value
                                                                                : entry.low;
            StartAt(*known, where, entry.low, is_added ? "new partition" : "start", false);
        }
    });
    known->assignment_version = NextAssignment();
    const bool must_ask = !to_ask.empty() || !added_to_ask.empty();
    if (!to_ask.empty())
        ResolveStart(*known, std::move(to_ask), position);
    if (!added_to_ask.empty())
        ResolveStart(*known, std::move(added_to_ask), {});
    SetLatch(MyLatch); // look at them at once
    return must_ask;
}

void
Discovery::ResolveStart(const KnownPipeline &known, std::vector<PartitionOffset> partitions,
                        ingest::Position position)
{
    auto config = ConfigOf(known);
    if (!config.ok() || !resolving_start_.insert({known.name, known.version}).second)
        return;
    ingest::WatchRequest request;
    request.version = known.version;
    request.kind = ingest::WatchRequest::Kind::kResolve;
    request.pipeline = known.name;
    request.config = std::move(config.value());
    request.partitions = std::move(partitions);
    request.position = position;
    watcher_->Ask(std::move(request));
}

void
Discovery::TakeStart(KnownPipeline *known, const ingest::WatchAnswer &answer)
{
    resolving_start_.erase({answer.pipeline, answer.version});
    if (known == nullptr)
        return;
    pg::Error trouble; // the next probe asks again
    if (!answer.error.empty()) {
        trouble.sqlstate = "08000";
        trouble.message = answer.error;
    }
    try {
        pg::InTransaction([&] {
            for (size_t i = 0; i < answer.resolved.size() && answer.error.empty(); i++) {
                bool is_another = answer.logs[i] == ingest::LogIdentity::kAnother;
                StartAt(*known, answer.resolved[i], answer.watermarks[i].low,
                        is_another ? "start, topic recreated" : "start", is_another);
            }
        });
    } catch (const pg::Error &error) {
        trouble = error;
    }
    if (!trouble.message.empty() || known->unseen == 0) // what the probe said of them stands
        NoteStart(known, trouble);
}

void
PublishWatermarks(const std::string &name,
                  const std::vector<ingest::PartitionWatermarks> &watermarks)
{
    pg::CallPg([&] {
        TimestampTz now = GetCurrentTimestamp();
        pg::LockShared();
        for (const ingest::PartitionWatermarks &entry : watermarks) {
            pg::PartitionSlot *slot =
                pg::FindPartition(name.c_str(), entry.topic.c_str(), entry.partition, true);
            if (slot == nullptr)
                continue;
            double seconds = static_cast<double>(now - slot->watched_at) / kSecond;
            if (slot->watched_high >= 0 && entry.high >= slot->watched_high && seconds >= 0.1)
                slot->arrivals_per_second =
                    static_cast<double>(entry.high - slot->watched_high) / seconds;
            slot->watched_high = entry.high;
            slot->watched_at = now;
            slot->low = entry.low;
            slot->high = entry.high;
            slot->watermarks_at = now;
            slot->trouble[0] = '\0'; // also one that an earlier coordinator had
            // Retention has deleted the record that could not be fetched.
            if (slot->state == pg::State::kQuarantined && entry.low > slot->lost_offset) {
                slot->state = pg::State::kOffsetLost;
                slot->is_judged = false;
            }
            if (slot->next_offset >= slot->high)
                slot->caught_up_at = now;
        }
        pg::UnlockShared();
    });
}

} // namespace pulse::worker
