#include "ingest/connection_check.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <set>

#include "ingest/thread.hpp"
#include "ingest/topic_pattern.hpp"
#include "kafka/consumer.hpp"

namespace pulse::ingest {

namespace {

constexpr int kTimeoutMs = 5000; // of one step
constexpr size_t kMaxTopics = 100;

struct KnownCause {
    const char *word; // in librdkafka's text or its error name
    const char *hint;
};

// The first that fits.
constexpr KnownCause kCauses[] = {
    {"TOPIC_AUTHORIZATION_FAILED",
     "Allow the user of sasl.username READ and DESCRIBE on the topic."},
    {"GROUP_AUTHORIZATION_FAILED", "Allow the user READ on the group, or set pulse.group_id = ''."},
    {"CLUSTER_AUTHORIZATION_FAILED", "Allow the user DESCRIBE on the cluster."},
    {"UNKNOWN_TOPIC_OR_PART", "Create the topic, or mend the name: pulse never creates topics."},
    {"SASL", "Look at sasl.mechanism in pulse.kafka_options and at user and password in "
             "pulse.secrets_file."},
    {"AUTHENTICATION", "Look at sasl.mechanism in pulse.kafka_options and at user and password in "
                       "pulse.secrets_file."},
    {"SSL", "Look at security.protocol and ssl.ca.location in pulse.kafka_options, and whether the "
            "port is a TLS port."},
    {"Connection refused",
     "Nothing listens there: look at pulse.brokers and whether the broker runs."},
    {"resolve", "The name is not known here: look at pulse.brokers and at the advertised.listeners "
                "of the brokers."},
    {"LEADER_NOT_AVAILABLE", "The partition has no leader: look at the brokers."},
    {"",
     "Look at pulse.brokers, firewalls, and whether the advertised.listeners of the brokers can "
     "be reached from this server."},
};

// Until then librdkafka sent its nonce twice in SCRAM's last message, against RFC 5802, and brokers
// from Kafka 4 on, which compare, take that for a wrong password.
constexpr int kRightScram = 0x02060100; // 2.6.1

constexpr const char *kWrongScram =
    "Look at user and password in pulse.secrets_file. Kafka 4 and later refuse SCRAM from "
    "librdkafka before 2.6.1, whatever the password, and this one is older: use PLAIN over TLS "
    "there.";

std::string
Plural(size_t count, const char *noun)
{
    return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

class Stopwatch {
  public:
    std::string Text() const
    {
        auto spent = std::chrono::duration_cast<std::chrono::milliseconds>(
            std::chrono::steady_clock::now() - start_);
        return std::to_string(spent.count()) + " ms";
    }
    bool IsOver(int limit_ms) const
    {
        return std::chrono::steady_clock::now() - start_ > std::chrono::milliseconds(limit_ms);
    }

  private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

} // namespace

std::string
HintFor(const std::string &text)
{
    if (text.find("invalid credentials with SASL mechanism SCRAM") != std::string::npos &&
        kafka::LibraryVersion() < kRightScram)
        return kWrongScram;
    for (const KnownCause &cause : kCauses)
        if (text.find(cause.word) != std::string::npos)
            return cause.hint;
    return "";
}

class ConnectionCheck::Impl {
  public:
    Impl(kafka::Config config, std::vector<std::string> topics)
        : config_(std::move(config)), topics_(std::move(topics)),
          thread_(StartThread([this] { Run(); }))
    {
    }

    ~Impl()
    {
        stop_ = true;
        thread_.join();
    }

    int fd() const { return event_.fd(); }

    bool Take(std::vector<Finding> *findings)
    {
        event_.Clear();
        std::lock_guard<std::mutex> guard(mutex_);
        for (Finding &finding : findings_)
            findings->push_back(std::move(finding));
        findings_.clear();
        if (is_finished_ && has_failed_)
            findings->push_back({"client", false, "the check ended early: out of memory", ""});
        return is_finished_;
    }

  private:
    // An exception that left this thread would end the process.
    void Run()
    {
        try {
            Check();
        } catch (...) {
            has_failed_ = true;
        }
        std::lock_guard<std::mutex> guard(mutex_);
        is_finished_ = true;
        event_.Raise();
    }

    void Add(std::string what, bool is_ok, std::string detail)
    {
        std::string hint = is_ok ? "" : HintFor(detail);
        std::lock_guard<std::mutex> guard(mutex_);
        findings_.push_back({std::move(what), is_ok, std::move(detail), std::move(hint)});
        event_.Raise();
    }

    void Check()
    {
        int version = kafka::LibraryVersion();
        std::string library = "librdkafka " + std::to_string((version >> 24) & 0xff) + "." +
                              std::to_string((version >> 16) & 0xff) + "." +
                              std::to_string((version >> 8) & 0xff);
        auto created = kafka::Consumer::Create(config_);
        Add("client", created.ok(), created.ok() ? library : library + ": " + created.message());
        if (!created.ok())
            return;
        consumer_ = std::move(created.value());
        if (!CheckBrokers())
            return;
        for (const std::string &topic : NamesOf(topics_)) {
            if (stop_)
                return;
            CheckTopic(topic);
        }
    }

    bool CheckBrokers()
    {
        Stopwatch watch;
        auto cluster = consumer_->DescribeCluster(kTimeoutMs);
        if (!cluster.ok()) {
            Add("brokers", false, cluster.message() + ErrorsSoFar() + ", after " + watch.Text());
            return false;
        }
        const std::vector<std::string> &brokers = cluster.value().brokers;
        std::string detail = Plural(brokers.size(), "broker") + " in " + watch.Text();
        for (size_t i = 0; i < brokers.size(); i++)
            detail += (i == 0 ? ": " : ", ") + brokers[i];
        Add("brokers", true, detail);
        detail = "id " + (cluster.value().id.empty() ? "unknown" : cluster.value().id);
        if (cluster.value().controller >= 0)
            detail += ", controller " + std::to_string(cluster.value().controller);
        Add("cluster", true, detail);
        return true;
    }

    // What the client's own threads had to say, each thing once: it names the cause where an
    // answer's error is only "timed out".
    std::string ErrorsSoFar()
    {
        std::set<std::string> texts;
        kafka::Message message;
        while (consumer_->Poll(0, &message) && texts.size() < 5)
            if (message.kind == kafka::Message::Kind::kClientError)
                texts.insert(message.error_text + " (" + message.error_name + ")");
        std::string joined;
        for (const std::string &text : texts)
            joined += "; " + text;
        return joined;
    }

    std::vector<std::string> NamesOf(const std::vector<std::string> &wanted)
    {
        std::set<std::string> names;
        for (const std::string &topic : wanted) {
            if (!topic.starts_with("^")) {
                names.insert(topic);
                continue;
            }
            auto all = consumer_->FetchMetadata({}, kTimeoutMs);
            if (!all.ok()) {
                Add("topics " + topic, false, all.message() + ErrorsSoFar());
                continue;
            }
            auto pattern = TopicPattern::Compile(topic);
            if (!pattern.ok()) {
                Add("topics " + topic, false, pattern.message());
                continue;
            }
            size_t before = names.size();
            for (const kafka::TopicMetadata &entry : all.value())
                if (pattern.value().Matches(entry.topic))
                    names.insert(entry.topic);
            size_t count = names.size() - before;
            Finding finding{"topics " + topic, count > 0, Plural(count, "topic") + " match", ""};
            if (count == 0)
                finding.hint = "Create a topic that matches, or mend the pattern; topics that this "
                               "user may not describe are not seen.";
            std::lock_guard<std::mutex> guard(mutex_);
            findings_.push_back(std::move(finding));
        }
        std::vector<std::string> list(names.begin(), names.end());
        if (list.size() > kMaxTopics) {
            Add("topics", true, "only the first " + std::to_string(kMaxTopics) + " are looked at");
            list.resize(kMaxTopics);
        }
        return list;
    }

    void CheckTopic(const std::string &topic)
    {
        std::string what = "topic " + topic;
        auto metadata = consumer_->FetchMetadata({topic}, kTimeoutMs);
        if (!metadata.ok())
            return Add(what, false, metadata.message() + ErrorsSoFar());
        if (metadata.value().empty())
            return Add(what, false, "UNKNOWN_TOPIC_OR_PART");
        const kafka::TopicMetadata &entry = metadata.value()[0];
        if (!entry.error_name.empty() || entry.partition_count == 0)
            return Add(what, false,
                       entry.error_name.empty() ? "LEADER_NOT_AVAILABLE" : entry.error_name);

        int64_t records = 0;
        std::vector<PartitionOffset> last;
        for (int32_t partition = 0; partition < entry.partition_count && !stop_; partition++) {
            auto watermarks = consumer_->QueryWatermarks(topic, partition, kTimeoutMs);
            if (!watermarks.ok())
                return Add(what, false, watermarks.message() + ErrorsSoFar());
            records += watermarks.value().high - watermarks.value().low;
            last.push_back(
                {topic, partition, std::max(watermarks.value().low, watermarks.value().high - 1)});
        }
        Add(what, true,
            Plural(static_cast<size_t>(entry.partition_count), "partition") + " with " +
                Plural(static_cast<size_t>(records), "offset"));
        CheckReading(topic, last);
    }

    // Metadata and offsets need DESCRIBE only; whether records may be read is known after a fetch.
    void CheckReading(const std::string &topic, const std::vector<PartitionOffset> &last)
    {
        std::string what = "reading " + topic;
        Stopwatch watch;
        Status status = consumer_->Assign(last);
        std::set<int32_t> pending;
        for (const PartitionOffset &partition : last)
            pending.insert(partition.partition);
        std::string error = status.ok() ? "" : status.message();
        kafka::Message message;
        while (!stop_ && error.empty() && !pending.empty() && !watch.IsOver(kTimeoutMs)) {
            if (!consumer_->Poll(100, &message) || message.topic != topic)
                continue;
            if (message.kind == kafka::Message::Kind::kPartitionError)
                error = "partition " + std::to_string(message.partition) + ": " +
                        message.error_text + " (" + message.error_name + ")";
            else if (message.kind == kafka::Message::Kind::kRecord ||
                     message.kind == kafka::Message::Kind::kEndOfPartition)
                pending.erase(message.partition);
        }
        if (error.empty() && !pending.empty())
            error = Plural(pending.size(), "partition") + " gave no answer" + ErrorsSoFar();
        (void)consumer_->Assign({});
        Add(what, error.empty(),
            error.empty() ? Plural(last.size(), "partition") + " in " + watch.Text()
                          : error + ", after " + watch.Text());
    }

    const kafka::Config config_;
    const std::vector<std::string> topics_;
    std::atomic<bool> stop_{false};
    EventFd event_;
    std::mutex mutex_; // guards this block
    std::vector<Finding> findings_;
    bool is_finished_ = false;
    bool has_failed_ = false;

    std::unique_ptr<kafka::Consumer> consumer_; // the thread's own
    std::thread thread_;                        // last: starts when all is there
};

ConnectionCheck::ConnectionCheck(kafka::Config config, std::vector<std::string> topics)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(topics)))
{
}

ConnectionCheck::~ConnectionCheck() = default;

int
ConnectionCheck::fd() const
{
    return impl_->fd();
}

bool
ConnectionCheck::Take(std::vector<Finding> *findings)
{
    return impl_->Take(findings);
}

} // namespace pulse::ingest
