#include "ingest/watcher.hpp"

#include <atomic>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>

#include "ingest/thread.hpp"
#include "ingest/topic_pattern.hpp"
#include "kafka/consumer.hpp"

namespace pulse::ingest {

namespace {

constexpr int kTimeoutMs = 5000;

// One handle for all pipelines that talk to the same brokers in the same way.
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
    }

    int fd() const { return answer_event_.fd(); }

    void Ask(WatchRequest request)
    {
        std::list<Job> fresh;
        fresh.push_back({std::move(request), {}});
        Job &job = fresh.front();
        job.answer.kind = job.request.kind;
        job.answer.id = job.request.id;
        job.answer.pipeline = job.request.pipeline;
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
        bool is_out_of_memory = false;
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
                ServeOrExplain(job.request, &job.answer);
            } catch (...) {
                job.is_out_of_memory = true;
            }
            std::lock_guard<std::mutex> guard(mutex_);
            answers_.splice(answers_.end(), current);
            answer_event_.Raise();
        }
    }

    void ServeOrExplain(const WatchRequest &request, WatchAnswer *answer)
    {
        try {
            Serve(request, answer);
        } catch (const std::exception &error) {
            answer->error = error.what();
        }
    }

    void Serve(const WatchRequest &request, WatchAnswer *answer)
    {
        kafka::Consumer *consumer = ConsumerFor(request.config, &answer->error);
        if (consumer == nullptr)
            return;
        kafka::Message message;
        while (consumer->Poll(0, &message)) // keeps its event queue from growing
            continue;
        if (request.kind == WatchRequest::Kind::kProbe)
            Probe(request, consumer, answer);
        else
            Resolve(request, consumer, answer);
    }

    kafka::Consumer *ConsumerFor(const kafka::Config &config, std::string *error)
    {
        std::unique_ptr<kafka::Consumer> &consumer = consumers_[KeyOf(config)];
        if (consumer == nullptr) {
            auto created = kafka::Consumer::Create(config);
            if (!created.ok()) {
                *error = created.message();
                return nullptr;
            }
            consumer = std::move(created.value());
        }
        return consumer.get();
    }

    void Probe(const WatchRequest &request, kafka::Consumer *consumer, WatchAnswer *answer)
    {
        std::vector<std::string> names;
        std::vector<std::string> patterns;
        for (const std::string &topic : request.topics)
            (topic.starts_with("^") ? patterns : names).push_back(topic);

        std::map<std::string, int32_t> partition_counts;
        if (!patterns.empty() && !FindMatching(patterns, consumer, &partition_counts, answer))
            return;
        if (!names.empty()) {
            auto metadata = consumer->FetchMetadata(names, kTimeoutMs);
            if (!metadata.ok()) {
                answer->error = metadata.message();
                return;
            }
            for (const kafka::TopicMetadata &topic : metadata.value()) {
                if (topic.error_name.empty() && topic.partition_count > 0)
                    partition_counts[topic.topic] = topic.partition_count;
                else
                    answer->missing_topics.push_back(topic.topic);
            }
        }
        for (const auto &[topic, count] : partition_counts)
            for (int32_t partition = 0; partition < count && answer->error.empty(); partition++)
                AddWatermarks(topic, partition, consumer, answer);
    }

    bool FindMatching(const std::vector<std::string> &patterns, kafka::Consumer *consumer,
                      std::map<std::string, int32_t> *partition_counts, WatchAnswer *answer)
    {
        auto metadata = consumer->FetchMetadata({}, kTimeoutMs);
        if (!metadata.ok()) {
            answer->error = metadata.message();
            return false;
        }
        for (const std::string &pattern : patterns) {
            TopicPattern expression(pattern); // throws on a bad one
            for (const kafka::TopicMetadata &topic : metadata.value())
                if (topic.error_name.empty() && expression.Matches(topic.topic))
                    (*partition_counts)[topic.topic] = topic.partition_count;
        }
        return true;
    }

    bool AddWatermarks(const std::string &topic, int32_t partition, kafka::Consumer *consumer,
                       WatchAnswer *answer)
    {
        auto watermarks = consumer->QueryWatermarks(topic, partition, kTimeoutMs);
        if (!watermarks.ok()) {
            answer->error = watermarks.message();
            return false;
        }
        answer->watermarks.push_back(
            {topic, partition, watermarks.value().low, watermarks.value().high});
        return true;
    }

    void Resolve(const WatchRequest &request, kafka::Consumer *consumer, WatchAnswer *answer)
    {
        for (const PartitionOffset &wanted : request.partitions)
            if (!AddWatermarks(wanted.topic, wanted.partition, consumer, answer))
                return;
        answer->resolved = request.partitions;
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
            else if (*next_offset < 0 || *next_offset > watermarks.high)
                *next_offset = watermarks.high;
        }
    }

    EventFd answer_event_;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool stop_ = false;
    std::list<Job> requests_;
    std::list<Job> answers_;
    std::map<std::string, std::unique_ptr<kafka::Consumer>> consumers_; // the thread's own
    std::thread thread_; // last: starts when all is there
};

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

std::vector<WatchAnswer>
Watcher::TakeAnswers()
{
    return impl_->TakeAnswers();
}

} // namespace pulse::ingest
