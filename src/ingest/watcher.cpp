#include "ingest/watcher.hpp"

#include <chrono>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <set>

#include "base/crc32c.hpp"
#include "ingest/aside.hpp"
#include "ingest/batch.hpp"
#include "ingest/connection_check.hpp"
#include "ingest/thread.hpp"
#include "ingest/topic_pattern.hpp"
#include "kafka/consumer.hpp"

namespace pulse::ingest {

namespace {

constexpr const char *kNoSuchTopic = "UNKNOWN_TOPIC_OR_PART"; // as librdkafka names it
constexpr int kTimeoutMs = 5000;
constexpr std::chrono::milliseconds kLong = std::chrono::milliseconds(kTimeoutMs) - kEarly;

using Clock = LogEnds::Clock;

// One client for all pipelines that talk to the same brokers in the same way.
std::string
KeyOf(const kafka::Config &config)
{
    std::string key = config.brokers;
    for (const kafka::Properties *properties : {&config.options, &config.secrets})
        for (const auto &[name, value] : *properties)
            key += "\n" + name + "=" + value;
    return key;
}

} // namespace

class Watcher::Impl {
  public:
    Impl() : thread_(StartThread([this] { Run(); })) {}

    ~Impl()
    {
        {
            std::lock_guard<std::mutex> guard(mutex_);
            stop_ = true;
        }
        wake_.notify_one();
        thread_.join();
        for (auto &[key, client] : clients_)
            delete client.consumer.release(); // whoever takes us down waits for all of it
    }

    int fd() const { return answer_event_.fd(); }

    void Ask(WatchRequest request)
    {
        std::list<Job> fresh;
        fresh.push_back({std::move(request), {}, Clock::now()});
        Job &job = fresh.front();
        job.answer.kind = job.request.kind;
        job.answer.id = job.request.id;
        job.answer.pipeline = job.request.pipeline;
        job.answer.version = job.request.version;
        {
            std::lock_guard<std::mutex> guard(mutex_);
            requests_.splice(requests_.end(), fresh);
        }
        wake_.notify_one();
    }

    std::vector<WatchAnswer> TakeAnswers()
    {
        answer_event_.Clear();
        std::list<Job> done;
        {
            std::lock_guard<std::mutex> guard(mutex_);
            done.swap(answers_);
        }
        std::vector<WatchAnswer> answers;
        for (Job &job : done) {
            if (job.is_out_of_memory)
                job.answer.error = "out of memory";
            answers.push_back(std::move(job.answer));
        }
        return answers;
    }

  private:
    struct Job {
        WatchRequest request;
        WatchAnswer answer;
        Clock::time_point asked_at;
        bool is_out_of_memory = false;
    };

    struct Client {
        // Taking one down can block for ever (librdkafka 2.0.2); at worst a thread stays behind,
        // and a client that says nothing more.
        AsidePtr<kafka::Consumer> consumer;
        std::set<std::string> pipelines; // that use it
        Clock::time_point silent_at;     // when no broker answered at all, and we had to wait
        std::string silence;             // what was said then
        bool has_answered = false;       // any broker, in this job
        LogEnds ends;
    };

    void Run()
    {
        // An exception that left this thread would end the process, and with it every session of
        // the server: so jobs only change lists here, which allocates nothing.
        std::list<Job> current;
        for (;;) {
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [this] { return stop_ || !requests_.empty(); });
                if (stop_)
                    return;
                current.splice(current.begin(), requests_, requests_.begin());
            }
            Job &job = current.front();
            try {
                ServeOrExplain(job);
            } catch (...) {
                job.is_out_of_memory = true;
            }
            if (job.request.kind == WatchRequest::Kind::kForget) {
                current.clear();
                continue;
            }
            std::lock_guard<std::mutex> guard(mutex_);
            answers_.splice(answers_.end(), current);
            answer_event_.Raise();
        }
    }

    void ServeOrExplain(Job &job)
    {
        try {
            if (job.request.kind == WatchRequest::Kind::kForget)
                Leave(job.request.pipeline, nullptr);
            else
                Serve(job);
        } catch (const std::exception &error) {
            job.answer.error = error.what();
        }
    }

    void Serve(Job &job)
    {
        Client *client = ClientFor(job.request, &job.answer);
        if (client == nullptr)
            return;
        for (auto &[key, other] : clients_)
            Drain(other.consumer.get());
        // Whoever asked before the broker kept somebody waiting does not wait once more: of many
        // pipelines each would take its timeout from the next.
        if (client->silent_at >= job.asked_at) {
            job.answer.error = client->silence;
            return;
        }
        Clock::time_point began = Clock::now();
        client->has_answered = false;
        if (job.request.kind == WatchRequest::Kind::kProbe)
            Probe(job, client);
        else if (job.request.kind == WatchRequest::Kind::kRead)
            Read(job.request, client, &job.answer);
        else
            Resolve(job, client);
        if (job.answer.error.empty())
            return;
        // "Transport failure" is what a wrong password looks like to the one who asked.
        std::string cause = CauseOf(client->consumer.get());
        if (!cause.empty())
            job.answer.error += " (" + cause + ")";
        if (client->has_answered || Clock::now() - began < kLong)
            return;
        client->silent_at = Clock::now();
        client->silence = job.answer.error;
    }

    // What the client itself last said was wrong; why it cannot get in comes before that nobody is
    // there. Empties its queue.
    static std::string CauseOf(kafka::Consumer *consumer)
    {
        std::string cause;
        bool is_refusal = false;
        kafka::Message message;
        while (consumer->Poll(0, &message)) {
            if (message.kind != kafka::Message::Kind::kClientError)
                continue;
            bool is_one = message.error_name == "_AUTHENTICATION" || message.error_name == "_SSL";
            if (!is_one && (is_refusal || message.error_name == "_ALL_BROKERS_DOWN"))
                continue;
            cause = message.error_text;
            is_refusal = is_one;
        }
        return cause;
    }

    // Keeps its event queue from growing.
    static void Drain(kafka::Consumer *consumer)
    {
        kafka::Message message;
        while (consumer->Poll(0, &message))
            continue;
    }

    Client *ClientFor(const WatchRequest &request, WatchAnswer *answer)
    {
        std::string key = KeyOf(request.config);
        auto found = clients_.find(key);
        if (found == clients_.end()) {
            auto created = kafka::Consumer::Create(request.config);
            if (!created.ok()) {
                answer->error = created.message();
                answer->is_definition = true;
                return nullptr;
            }
            found = clients_.try_emplace(key).first;
            found->second.consumer.reset(created.value().release());
        }
        found->second.pipelines.insert(request.pipeline);
        Leave(request.pipeline, &found->second);
        return &found->second;
    }

    // The pipeline uses no other client than this one (null: none at all). What nobody uses goes.
    void Leave(const std::string &pipeline, const Client *current)
    {
        for (auto entry = clients_.begin(); entry != clients_.end();) {
            Client &client = entry->second;
            if (&client != current)
                client.pipelines.erase(pipeline);
            if (!client.pipelines.empty()) {
                ++entry;
                continue;
            }
            entry = clients_.erase(entry);
        }
    }

    // topics empty = all of the cluster. False when nobody answered.
    static bool FetchMetadata(const std::vector<std::string> &topics, Client *client,
                              WatchAnswer *answer, std::vector<kafka::TopicMetadata> *found)
    {
        auto metadata = client->consumer->FetchMetadata(topics, kTimeoutMs);
        if (!metadata.ok()) {
            answer->error = metadata.message();
            return false;
        }
        client->has_answered = true;
        *found = std::move(metadata.value());
        return true;
    }

    static void Probe(Job &job, Client *client)
    {
        WatchAnswer *answer = &job.answer;
        std::vector<std::string> names;
        std::vector<std::string> patterns;
        for (const std::string &topic : job.request.topics)
            (topic.starts_with("^") ? patterns : names).push_back(topic);

        std::map<std::string, kafka::TopicMetadata> found;
        if (!patterns.empty() && !FindMatching(patterns, client, &found, answer))
            return;
        std::vector<kafka::TopicMetadata> named;
        if (!names.empty() && !FetchMetadata(names, client, answer, &named))
            return;
        for (kafka::TopicMetadata &topic : named) {
            if (topic.error_name.empty() && topic.partition_count > 0)
                found[topic.topic] = std::move(topic);
            else
                answer->missing_topics[topic.topic] = topic.error_name;
        }
        std::vector<kafka::TopicMetadata> topics;
        for (auto &[name, topic] : found)
            topics.push_back(std::move(topic));
        AddEnds(LogEnds::AllOf(topics), job, client);
    }

    static bool FindMatching(const std::vector<std::string> &patterns, Client *client,
                             std::map<std::string, kafka::TopicMetadata> *found,
                             WatchAnswer *answer)
    {
        std::vector<kafka::TopicMetadata> all;
        if (!FetchMetadata({}, client, answer, &all))
            return false;
        for (const std::string &text : patterns) {
            auto pattern = TopicPattern::Compile(text);
            if (!pattern.ok()) {
                answer->error = pattern.message();
                answer->is_definition = true;
                return false;
            }
            for (const kafka::TopicMetadata &topic : all)
                if (topic.error_name.empty() && pattern.value().Matches(topic.topic))
                    (*found)[topic.topic] = topic;
        }
        return true;
    }

    static void AddEnds(const std::vector<LogEnds::Wanted> &wanted, Job &job, Client *client)
    {
        // Probes come again, and others wait for this thread meanwhile.
        bool is_patient = job.request.kind != WatchRequest::Kind::kProbe || job.request.id != 0;
        LogEnds::Answer ends =
            client->ends.Ask(wanted, client->consumer.get(), job.asked_at, is_patient, kTimeoutMs);
        job.answer.watermarks = std::move(ends.watermarks);
        job.answer.troubles = std::move(ends.troubles);
    }

    // Those that the request names, with their leaders. False when nobody answered.
    static bool FindWanted(const WatchRequest &request, Client *client, WatchAnswer *answer,
                           std::vector<LogEnds::Wanted> *wanted)
    {
        std::set<std::string> names;
        for (const PartitionOffset &partition : request.partitions)
            names.insert(partition.topic);
        std::vector<kafka::TopicMetadata> topics;
        if (names.empty() || !FetchMetadata({names.begin(), names.end()}, client, answer, &topics))
            return false;
        for (const PartitionOffset &partition : request.partitions)
            wanted->push_back(LogEnds::OneOf(topics, partition.topic, partition.partition));
        return true;
    }

    static void Resolve(Job &job, Client *client)
    {
        const WatchRequest &request = job.request;
        WatchAnswer *answer = &job.answer;
        kafka::Consumer *consumer = client->consumer.get();
        std::vector<LogEnds::Wanted> wanted;
        if (!FindWanted(request, client, answer, &wanted))
            return;
        AddEnds(wanted, job, client);
        if (!answer->troubles.empty() && request.kind != WatchRequest::Kind::kJudge) {
            answer->error = Describe(answer->troubles.front());
            return;
        }
        // Both are in the same order.
        for (const PartitionOffset &partition : request.partitions) {
            size_t i = answer->resolved.size();
            if (i < answer->watermarks.size() && partition.topic == answer->watermarks[i].topic &&
                partition.partition == answer->watermarks[i].partition)
                answer->resolved.push_back(partition);
        }
        for (size_t i = 0; i < answer->resolved.size(); i++)
            if (!Identify(answer->resolved[i], answer->watermarks[i], consumer, answer))
                return;
        if (request.position.kind == Position::Kind::kTime) {
            for (PartitionOffset &entry : answer->resolved)
                entry.next_offset = request.position.value;
            Status status = consumer->OffsetsForTimes(&answer->resolved, kTimeoutMs);
            if (!status.ok()) {
                answer->error = status.message();
                return;
            }
        }
        for (size_t i = 0; i < answer->resolved.size(); i++) {
            const PartitionWatermarks &watermarks = answer->watermarks[i];
            int64_t *next_offset = &answer->resolved[i].next_offset;
            if (request.position.kind == Position::Kind::kEarliest)
                *next_offset = watermarks.low;
            else if (request.position.kind == Position::Kind::kLatest)
                *next_offset = watermarks.high;
            else if (request.position.kind == Position::Kind::kOffset)
                *next_offset = request.position.value;
            else if (request.position.kind == Position::Kind::kAfterRows)
                *next_offset = answer->logs[i] == LogIdentity::kAnother || *next_offset == 0
                                   ? watermarks.low
                                   : *next_offset;
            else if (*next_offset < 0 || *next_offset > watermarks.high)
                *next_offset = watermarks.high;
        }
    }

    // With a client of its own: see ReadFrom().
    static void Read(const WatchRequest &request, Client *client, WatchAnswer *answer)
    {
        const PartitionOffset &where = request.partitions.front();
        std::vector<LogEnds::Wanted> wanted;
        if (!FindWanted(request, client, answer, &wanted))
            return;
        if (wanted.front().leader < 0) {
            answer->error = Describe({where.topic, where.partition, wanted.front().trouble});
            return;
        }
        auto created = kafka::Consumer::Create(request.config);
        if (!created.ok()) {
            answer->error = created.message();
            return;
        }
        AsidePtr<kafka::Consumer> consumer(created.value().release());
        FetchedRecord *record = &answer->record;
        auto found = consumer->ReadFrom(where, kTimeoutMs, [&](const kafka::Message &message) {
            Arena arena;
            record->kafka_offset = message.offset;
            record->timestamp_ms = message.timestamp_ms;
            record->has_key = message.key.data() != nullptr;
            record->has_value = message.value.data() != nullptr;
            record->key = message.key;
            record->value = message.value;
            if (!message.headers.empty())
                record->headers = EncodeHeaders(message.headers, arena);
        });
        if (!found.ok()) {
            answer->error = found.message();
            return;
        }
        record->is_found = found.value() != kafka::Found::kNothing;
        record->is_too_large = found.value() == kafka::Found::kTooLarge;
        if (record->is_too_large)
            record->kafka_offset = where.next_offset;
    }

    // False when the broker could not be asked.
    static bool Identify(const PartitionOffset &known, const PartitionWatermarks &marks,
                         kafka::Consumer *consumer, WatchAnswer *answer)
    {
        LogIdentity identity = LogIdentity::kUnproved;
        if (known.next_offset > marks.high || known.last.kafka_offset >= marks.high) {
            identity = LogIdentity::kAnother;
        } else if (known.last.kafka_offset >= marks.low) {
            PartitionOffset where = {known.topic, known.partition, known.last.kafka_offset, {}};
            auto found = consumer->ReadFrom(where, kTimeoutMs, [&](const kafka::Message &message) {
                // What is not there any more may have been compacted away.
                if (message.offset == known.last.kafka_offset)
                    identity =
                        IsSameRecord(known.last, FingerprintOf(message.offset, message.timestamp_ms,
                                                               message.key, message.value))
                            ? LogIdentity::kSame
                            : LogIdentity::kAnother;
            });
            if (!found.ok()) {
                answer->error = found.message();
                return false;
            }
        }
        answer->logs.push_back(identity);
        return true;
    }

    EventFd answer_event_;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool stop_ = false;
    std::list<Job> requests_;
    std::list<Job> answers_;
    std::map<std::string, Client> clients_; // the thread's own
    std::thread thread_;                    // last: starts when all is there
};

std::string
Describe(const MissingTopics::value_type &missing)
{
    const auto &[topic, why] = missing;
    if (why.empty() || why == kNoSuchTopic)
        return "topic \"" + topic + "\" does not exist";
    return "topic \"" + topic + "\" cannot be read (" + why + ")";
}

std::string
HintFor(const MissingTopics::value_type &missing)
{
    return HintFor(missing.second.empty() ? kNoSuchTopic : missing.second);
}

Watcher::Watcher() : impl_(std::make_unique<Impl>()) {}

Watcher::~Watcher() = default;

int
Watcher::fd() const
{
    return impl_->fd();
}

void
Watcher::Ask(WatchRequest request)
{
    impl_->Ask(std::move(request));
}

void
Watcher::Forget(const std::string &pipeline)
{
    WatchRequest request;
    request.kind = WatchRequest::Kind::kForget;
    request.pipeline = pipeline;
    impl_->Ask(std::move(request));
}

std::vector<WatchAnswer>
Watcher::TakeAnswers()
{
    return impl_->TakeAnswers();
}

} // namespace pulse::ingest
