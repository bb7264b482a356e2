#include "worker/earlier_rows.hpp"

#include <algorithm>
#include <set>

#include "base/fault.hpp"
#include "pg/xact.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

constexpr int64_t kMaxBits = 256LL * 1024 * 1024; // 32 MB, of all partitions together
constexpr int64_t kBitsOfStamp = 8 * 2 * sizeof(std::pair<int64_t, int64_t>); // a vector's slack

} // namespace

const EarlierRows::Window *
EarlierRows::Find(const char *topic, int32_t partition, int64_t kafka_offset) const
{
    for (const Window &window : windows_)
        if (window.partition == partition && kafka_offset >= window.begin &&
            kafka_offset < window.end && window.topic == topic)
            return &window;
    return nullptr;
}

bool
EarlierRows::Knows(const store::OwnedPartition &partition, int64_t kafka_offset) const
{
    return Find(partition.topic, partition.partition, kafka_offset) != nullptr;
}

bool
EarlierRows::Contains(const store::OwnedPartition &partition, int64_t kafka_offset,
                      int64_t timestamp_ms) const
{
    const Window *window = Find(partition.topic, partition.partition, kafka_offset);
    return window != nullptr &&
           (window->is_row[static_cast<size_t>(kafka_offset - window->begin)] ||
            std::binary_search(window->stamped.begin(), window->stamped.end(),
                               std::pair(kafka_offset, timestamp_ms)));
}

void
EarlierRows::Mark(const store::EarlierRow &row)
{
    auto *window = const_cast<Window *>(Find(row.topic, row.partition, row.kafka_offset));
    if (window == nullptr)
        return;
    bool is_present = source_ == store::EpochSource::kColumn
                          ? row.topic_epoch == window->topic_epoch
                          : window->topic_epoch == 0;
    if (is_present)
        window->is_row[static_cast<size_t>(row.kafka_offset - window->begin)] = true;
    else if (source_ == store::EpochSource::kTimestamp)
        window->stamped.emplace_back(row.kafka_offset, row.timestamp_ms);
}

void
EarlierRows::Load(const char *pipeline, const store::Target &target, unsigned int role,
                  const std::vector<store::OwnedPartition> &partitions)
{
    windows_.clear();
    source_ = store::EpochSourceOf(target);
    int64_t share = kMaxBits / std::max<int64_t>(static_cast<int64_t>(partitions.size()), 1);
    std::set<std::string> names;
    int64_t begin = INT64_MAX;
    int64_t end = 0;
    for (const store::OwnedPartition &partition : partitions) {
        if (partition.next_offset >= partition.highest_offset)
            continue;
        bool is_stamped = partition.topic_epoch > 0 && source_ == store::EpochSource::kTimestamp;
        int64_t last =
            std::min(partition.highest_offset,
                     partition.next_offset + (is_stamped ? share / kBitsOfStamp : share));
        windows_.push_back({partition.topic,
                            partition.partition,
                            partition.next_offset,
                            last,
                            partition.topic_epoch,
                            std::vector<bool>(static_cast<size_t>(last - partition.next_offset)),
                            {}});
        names.insert(partition.topic);
        begin = std::min(begin, partition.next_offset);
        end = std::max(end, last);
    }
    if (windows_.empty() || !store::HasCoordinates(target))
        return;
    std::vector<const char *> topics;
    for (const std::string &name : names)
        topics.push_back(name.c_str());
    try {
        PULSE_FAULT("during_look_up");
        Scan(pipeline, target, role, {topics.data(), static_cast<int>(topics.size()), begin, end});
    } catch (...) {
        windows_.clear();
        throw;
    }
    for (Window &window : windows_)
        std::sort(window.stamped.begin(), window.stamped.end());
}

void
EarlierRows::Scan(const char *pipeline, const store::Target &target, unsigned int role,
                  const store::OffsetSpan &span)
{
    pg::InTransaction([&] {
        pg::CallPg([&] {
            TimestampTz began_at = GetCurrentTimestamp();
            pgstat_report_activity(STATE_RUNNING,
                                   "pulse: looking for the rows of rejected records");
            store::VisitRows(
                target, role, span,
                [](const store::EarlierRow &row, void *self) {
                    static_cast<EarlierRows *>(self)->Mark(row);
                },
                this);
            ereport(LOG,
                    (errmsg("pulse pipeline \"%s\": read %s once to find the rows of "
                            "records that are rejected now",
                            pipeline, target.qualified_name),
                     errdetail("It took %lld ms.",
                               static_cast<long long>((GetCurrentTimestamp() - began_at) / 1000))));
        });
    });
}

} // namespace pulse::worker
