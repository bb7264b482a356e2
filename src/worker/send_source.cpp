#include "worker/send_source.hpp"

#include "base/fault.hpp"
#include "pg/outbox_depth.hpp"
#include "pg/xact.hpp"
#include "store/letter_forwards.hpp"
#include "store/outbox.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

std::vector<int64_t>
IdsOf(const SendOutcomes &outcomes)
{
    std::vector<int64_t> ids;
    ids.reserve(outcomes.size());
    for (const SendOutcomes::Delivered &delivered : outcomes.delivered)
        ids.push_back(delivered.id);
    for (const SendOutcomes::Refused &refused : outcomes.refused)
        ids.push_back(refused.id);
    return ids;
}

// A crash that takes marks back means that records are sent twice; waiting for the disk each time
// would slow everything down.
void
MarkLazily()
{
    pg::CallPg([] {
        (void)set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
                                GUC_ACTION_LOCAL, true, ERROR, false);
    });
}

class Letters : public SendSource {
  public:
    explicit Letters(const std::string &pipeline) : pipeline_(pipeline) {}

    int Take(const SendOutcomes &outcomes, const store::TakeLimits &limits,
             store::VisitOutgoing visit, void *argument) override
    {
        const std::vector<int64_t> except = IdsOf(outcomes);
        int visited = 0;
        pg::InTransaction([&] {
            visited = pg::CallPg([&] {
                return store::TakeWaitingLetters(pipeline_.c_str(), except.data(),
                                                 static_cast<int>(except.size()), limits, visit,
                                                 argument);
            });
        });
        return visited;
    }

    void Settle(SendOutcomes *outcomes) override
    {
        std::vector<int64_t> ids;
        ids.reserve(outcomes->delivered.size());
        for (const SendOutcomes::Delivered &delivered : outcomes->delivered)
            ids.push_back(delivered.id);
        std::vector<int64_t> left(ids.size());
        std::vector<SendOutcomes::Refused> held;
        held.reserve(outcomes->refused.size());
        pg::InTransaction([&] {
            MarkLazily();
            pg::CallPg([] { store::LockLetterMarks(); });
            for (SendOutcomes::Refused &refused : outcomes->refused)
                if (!pg::CallPg(
                        [&] { return store::PostponeLetter(refused.id, refused.reason.c_str()); }))
                    held.push_back(refused);
            int count = ids.empty() ? 0 : pg::CallPg([&] {
                return store::MarkForwarded(ids.data(), static_cast<int>(ids.size()), left.data());
            });
            left.resize(static_cast<size_t>(count));
            PULSE_FAULT("before_mark_commits");
        });
        // What a replay holds is noted when it is done.
        outcomes->refused = std::move(held);
        outcomes->delivered.clear();
        for (int64_t id : left)
            outcomes->delivered.push_back({id, -1, -1});
    }

  private:
    const std::string pipeline_;
};

class OutboxRows : public SendSource {
  public:
    explicit OutboxRows(const std::string &topic) : topic_(topic) {}

    int Take(const SendOutcomes &outcomes, const store::TakeLimits &limits,
             store::VisitOutgoing visit, void *argument) override
    {
        const std::vector<int64_t> except = IdsOf(outcomes);
        int visited = 0;
        pg::InTransaction([&] {
            visited = pg::CallPg([&] {
                return store::TakeOutboxRows(topic_.c_str(), except.data(),
                                             static_cast<int>(except.size()), limits, visit,
                                             argument);
            });
        });
        return visited;
    }

    void Settle(SendOutcomes *outcomes) override
    {
        std::vector<int64_t> ids, partitions, offsets;
        for (const SendOutcomes::Delivered &delivered : outcomes->delivered) {
            ids.push_back(delivered.id);
            partitions.push_back(delivered.partition);
            offsets.push_back(delivered.kafka_offset);
        }
        pg::InTransaction([&] {
            MarkLazily();
            pg::CallPg([&] {
                for (const SendOutcomes::Refused &refused : outcomes->refused)
                    store::PostponeOutboxRow(refused.id, refused.reason.c_str());
                if (!ids.empty())
                    store::MarkSent(ids.data(), partitions.data(), offsets.data(),
                                    static_cast<int>(ids.size()));
            });
            PULSE_FAULT("before_mark_commits");
        });
        *outcomes = {};
        pg::CallPg([&] { pg::NoteOutboxSent(static_cast<int64_t>(ids.size())); });
    }

  private:
    const std::string topic_;
};

} // namespace

std::unique_ptr<SendSource>
OutboxFor(const std::string &topic)
{
    return std::make_unique<OutboxRows>(topic);
}

std::unique_ptr<SendSource>
LettersOf(const std::string &pipeline)
{
    return std::make_unique<Letters>(pipeline);
}

} // namespace pulse::worker
