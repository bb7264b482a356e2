#include "worker/discovery.hpp"

#include "base/fault.hpp"
#include "pg/shmem.hpp"
#include "pg/xact.hpp"
#include "store/pipelines.hpp"
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
StartAt(const KnownPipeline &known, const std::string &topic, int32_t partition, int64_t start,
        const char *reason)
{
    pg::CallPg([&] {
        if (store::StartPartition(known.name.c_str(), known.version, topic.c_str(), partition,
                                  start, reason))
            ereport(
                LOG,
                (errmsg("pulse pipeline \"%s\": partition %d of topic \"%s\" starts at offset %lld",
                        known.name.c_str(), partition, topic.c_str(),
                        static_cast<long long>(start))));
    });
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
    known->missing_topics = answer.missing_topics;
    PublishWatermarks(known->name, answer.watermarks);
    try {
        StartNewPartitions(known, answer.watermarks);
        known->start_error.clear();
    } catch (const pg::Error &error) {
        known->start_error = error.message; // a bad start_position must not hold the others up
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
    ingest::Position position;
    pg::InTransaction([&] {
        position = pg::CallPg([&] { return store::ParsePosition(known->start_position.c_str()); });
    });
    std::vector<PartitionOffset> by_time;
    PULSE_FAULT("before_start");
    pg::InTransaction([&] {
        for (const ingest::PartitionWatermarks &entry : fresh) {
            bool is_added = known_topics.contains(entry.topic);
            if (!is_added && position.kind == ingest::Position::Kind::kTime) {
                by_time.push_back({entry.topic, entry.partition, 0});
                continue;
            }
            int64_t start = is_added || position.kind == ingest::Position::Kind::kEarliest
                                ? entry.low
                            : position.kind == ingest::Position::Kind::kLatest ? entry.high
                                                                               : position.value;
            StartAt(*known, entry.topic, entry.partition, start,
                    is_added ? "new partition" : "start");
        }
    });
    known->assignment_version = NextAssignment();
    if (!by_time.empty())
        ResolveStart(*known, std::move(by_time), position);
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
        for (const PartitionOffset &resolved : answer.resolved)
            StartAt(*known, resolved.topic, resolved.partition, resolved.next_offset, "start");
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
            if (slot->next_offset >= slot->high)
                slot->caught_up_at = now;
        }
        pg::UnlockShared();
    });
}

} // namespace pulse::worker
