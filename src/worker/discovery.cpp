#include "worker/discovery.hpp"

#include <algorithm>

#include "base/fault.hpp"
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
    return known.partitions.empty() || !known.broker_error.empty() || !known.missing_topics.empty()
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

// Throws when the beginning is no place to start.
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
        error.sqlstate = "55000";
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
        bool was_missing = std::find(known.missing_topics.begin(), known.missing_topics.end(),
                                     entry.topic) != known.missing_topics.end();
        if ((before != known.highs.end() && entry.high < before->second) ||
            (was_missing && known.partitions.contains({entry.topic, entry.partition})))
            return true;
    }
    return false;
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
    known->is_probing = true;
    ingest::WatchRequest request;
    request.pipeline = known->name;
    request.version = known->version;
    request.config = std::move(config.value());
    request.topics = known->topics;
    PULSE_FAULT("before_probe");
    watcher_->Ask(std::move(request));
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
    known->missing_topics = answer.missing_topics;
    PublishWatermarks(known->name, answer.watermarks);
    try {
        StartNewPartitions(known, answer.watermarks);
        known->start_error.clear();
        known->start_hint.clear();
    } catch (const pg::Error &error) {
        known->start_error = error.message; // a bad start_position must not hold the others up
        known->start_hint = error.hint;
    }
}

// A topic seen for the first time begins at start_position; a partition added to a known topic at
// its beginning, for whatever is in it was written after we knew the topic.
void
Discovery::StartNewPartitions(KnownPipeline *known,
                              const std::vector<ingest::PartitionWatermarks> &watermarks)
{
    std::set<std::string> known_topics;
    for (const auto &[key, next_offset] : known->partitions)
        known_topics.insert(key.first);
    std::vector<ingest::PartitionWatermarks> fresh;
    for (const ingest::PartitionWatermarks &entry : watermarks)
        if (!known->partitions.contains({entry.topic, entry.partition}))
            fresh.push_back(entry);
    if (fresh.empty())
        return;
    ingest::Position position = StartPosition(*known);
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
            bool is_added = known_topics.contains(entry.topic);
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
    if (!to_ask.empty())
        ResolveStart(*known, std::move(to_ask), position);
    if (!added_to_ask.empty())
        ResolveStart(*known, std::move(added_to_ask), {});
    SetLatch(MyLatch); // look at them at once
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
    if (known == nullptr || !answer.error.empty())
        return; // the next probe asks again
    pg::InTransaction([&] {
        for (size_t i = 0; i < answer.resolved.size(); i++) {
            bool is_another = answer.logs[i] == ingest::LogIdentity::kAnother;
            StartAt(*known, answer.resolved[i], answer.watermarks[i].low,
                    is_another ? "start, topic recreated" : "start", is_another);
        }
    });
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
