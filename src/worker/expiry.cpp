#include "worker/expiry.hpp"

#include <memory>

#include "base/excerpt.hpp"
#include "base/fault.hpp"
#include "pg/guc.hpp"
#include "pg/shmem.hpp"
#include "pg/wait.hpp"
#include "pg/xact.hpp"
#include "store/retention.hpp"
#include "pg/prelude.hpp"

namespace pulse::worker {

namespace {

constexpr int kAttempts = 5; // each holds batches up for lock_timeout at most
constexpr long kAttemptMs = 1000;
constexpr const char *kHeldUpHint =
    "Dropping a partition needs its table for a moment: end what holds it, with "
    "pg_terminate_backend() or ROLLBACK PREPARED.";

struct Trouble {
    std::string reason;
    std::string hint;
};

class Expiry {
  public:
    explicit Expiry(const std::string &pipeline) : pipeline_(pipeline) {}

    void Run()
    {
        while (DropOldest())
            pg::CheckInterrupts();
    }

    const Trouble &obstacle() const { return obstacle_; }
    unsigned int leaf() const { return leaf_; } // the one that was to go last
    const std::string &leaf_name() const { return leaf_name_; }

  private:
    // True when one was dropped. Oldest first: what is older than retained_from is all gone.
    bool DropOldest()
    {
        bool has_dropped = false;
        pg::InTransaction([&] {
            store::Obstacle obstacle{};
            has_dropped = pg::CallPg([&] { return DropOldestHere(&obstacle); });
            obstacle_ = {};
            if (obstacle.reason != nullptr)
                obstacle_ = {std::string("retention drops nothing: ") + obstacle.reason,
                             obstacle.hint};
            PULSE_FAULT("before_expiry_commits");
        });
        return has_dropped;
    }

    // PG regime.
    bool DropOldestHere(store::Obstacle *obstacle)
    {
        store::ExpiredPartition *found = nullptr;
        int64_t keep_from = 0;
        int count = store::FindExpired(pipeline_.c_str(), &definition_, target_.get(), &found,
                                       &keep_from, obstacle);
        if (count == 0) {
            if (!TIMESTAMP_IS_NOBEGIN(keep_from))
                store::KeepFrom(definition_, *target_, keep_from);
            return false;
        }
        const char *name = get_rel_name(found[0].leaf);
        leaf_ = found[0].leaf;
        leaf_name_ = name;
        int64_t rows = 0;
        if (!store::DropExpired(definition_, *target_, found[0], &rows))
            return true; // detached meanwhile: look again
        ereport(LOG, (errmsg("pulse pipeline \"%s\": dropped partition %s with %lld rows, which is "
                             "older than the retention",
                             pipeline_.c_str(), name, static_cast<long long>(rows))));
        return true;
    }

    const std::string pipeline_;
    store::PipelineDefinition definition_;
    std::unique_ptr<store::Target> target_ = std::make_unique<store::Target>();
    Trouble obstacle_; // empty = nothing is in the way
    unsigned int leaf_ = 0;
    std::string leaf_name_;
};

// 55P03: somebody uses the table, often one of our own workers for a moment. Empty when all went.
pg::Error
TryFor(Expiry *expiry)
{
    pg::Error error;
    for (int attempt = 0; attempt < kAttempts; attempt++) {
        error = pg::Error();
        try {
            expiry->Run();
        } catch (const pg::Error &caught) {
            error = caught;
        }
        pg::CheckInterrupts();
        if (error.sqlstate != "55P03")
            break;
        pg::Wait(-1, kAttemptMs);
    }
    return error;
}

// Since when a partition that should go is in use, in every try; 0 = it is not. The first of these
// tries begins it.
int64_t
HeldUpSince(const std::string &pipeline, bool is_held_up)
{
    return pg::CallPg([&] {
        pg::LockShared();
        pg::PipelineSlot *slot = pg::FindPipeline(pipeline.c_str(), false);
        int64_t since = 0;
        if (slot != nullptr) {
            if (!is_held_up)
                slot->expiry_held_since = 0;
            else if (slot->expiry_held_since == 0)
                slot->expiry_held_since = GetCurrentTimestamp();
            since = slot->expiry_held_since;
        }
        pg::UnlockShared();
        return since;
    });
}

Trouble
DescribeHolders(const Expiry &expiry)
{
    std::string holders;
    pg::InTransaction([&] {
        const char *found = pg::CallPg([&] { return store::HoldersOf(expiry.leaf()); });
        holders = found;
    });
    return {"retention cannot drop partition " + expiry.leaf_name() +
                ", which is in use; process ids: " + holders,
            kHeldUpHint};
}

Trouble
TroubleOf(const std::string &pipeline, const Expiry &expiry, const pg::Error &error)
{
    const bool is_held_up = error.sqlstate == "55P03";
    const int64_t since = HeldUpSince(pipeline, is_held_up);
    if (is_held_up) {
        const int64_t patience_us = static_cast<int64_t>(pg::guc_expiry_patience_ms) * 1000;
        if (since == 0 || GetCurrentTimestamp() - since < patience_us)
            return {};
        return DescribeHolders(expiry);
    }
    if (!error.message.empty())
        return {"retention could not drop a partition: " + error.sqlstate + " " +
                    Excerpt(error.message),
                Excerpt(error.hint)};
    return expiry.obstacle();
}

void
Tell(const std::string &pipeline, const Trouble &trouble)
{
    pg::CallPg([&] {
        pg::LockShared();
        pg::PipelineSlot *slot = pg::FindPipeline(pipeline.c_str(), false);
        bool was_well = slot == nullptr || slot->expiry_since == 0;
        if (slot != nullptr) {
            if (trouble.reason.empty())
                slot->expiry_since = 0;
            else if (was_well)
                slot->expiry_since =
                    slot->expiry_held_since != 0 ? slot->expiry_held_since : GetCurrentTimestamp();
            pg::CopyText(slot->expiry_reason, pg::kReasonBytes, trouble.reason.c_str());
            pg::CopyText(slot->expiry_hint, pg::kReasonBytes, trouble.hint.c_str());
        }
        pg::UnlockShared();
        if (was_well == trouble.reason.empty())
            return; // said before, even if by others now
        // A partition in use was waited for: somebody must act.
        if (was_well)
            ereport(WARNING,
                    (errmsg("pulse pipeline \"%s\": %s", pipeline.c_str(), trouble.reason.c_str()),
                     errhint("%s", trouble.hint.c_str())));
        else
            ereport(LOG, (errmsg("pulse pipeline \"%s\": nothing is in the way of retention any "
                                 "more",
                                 pipeline.c_str())));
    });
}

} // namespace

void
DropExpiredPartitions(const std::string &pipeline)
{
    Expiry expiry(pipeline);
    const pg::Error error = TryFor(&expiry);
    Tell(pipeline, TroubleOf(pipeline, expiry, error));
}

void
ForgetExpiryTrouble()
{
    pg::CallPg([] {
        pg::LockShared();
        for (pg::PipelineSlot &slot : pg::shared->pipelines) {
            slot.expiry_held_since = slot.expiry_since = 0;
            slot.expiry_reason[0] = slot.expiry_hint[0] = '\0';
        }
        pg::UnlockShared();
    });
}

} // namespace pulse::worker
