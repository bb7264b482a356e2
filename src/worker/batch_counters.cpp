#include "worker/batch_counters.hpp"

#include "ingest/counter_deltas.hpp"
#include "pg/guc.hpp"
#include "pg/xact.hpp"
#include "store/counters.hpp"
#include "store/time.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

void
Upsert(const BatchState &state, store::CounterKind kind, ingest::CounterDeltas *deltas)
{
    const std::vector<ingest::CounterDelta> &sorted = deltas->Sorted();
    pg::CallPg([&] {
        pg::InSpi([&] {
            store::AddToCounters(kind, state.name(), state.pipeline->slot, sorted.data(),
                                 static_cast<int>(sorted.size()));
        });
    });
}

// From what was really inserted; what a trigger may have changed is taken from the stored rows.
ingest::CounterDeltas
Minutes(const BatchState &state)
{
    const store::Target &target = state.pipeline->target;
    ingest::CounterDeltas minutes;
    if (target.IsCountedAsStored()) {
        for (const store::StoredEvent &event : state.stored_events)
            minutes.Add(store::ToUnixUs(event.event_timestamp),
                        {event.event_type, static_cast<size_t>(event.event_type_bytes)},
                        ingest::CounterDeltas::kMinuteUs);
    } else {
        for (uint32_t i = state.begin; i < state.reached; i++)
            if (state.outcomes[i] == Outcome::kInserted)
                minutes.Add(state.record(i).cells[target.event_time_cell].integer,
                            state.record(i).cells[target.event_type_cell].view(),
                            ingest::CounterDeltas::kMinuteUs);
    }
    return minutes;
}

void
AddUserDays(const BatchState &state)
{
    const store::Target &target = state.pipeline->target;
    if (target.user_id_cell < 0)
        return;
    ingest::CounterDeltas user_days;
    Arena names;
    auto add = [&](int64_t time_us, std::string_view user, std::string_view type) {
        char *name = names.Allocate(user.size() + 1 + type.size());
        memcpy(name, user.data(), user.size());
        name[user.size()] = '\0';
        memcpy(name + user.size() + 1, type.data(), type.size());
        user_days.Add(time_us, {name, user.size() + 1 + type.size()},
                      ingest::CounterDeltas::kDayUs);
    };
    if (target.IsCountedAsStored()) {
        for (const store::StoredEvent &event : state.stored_events)
            add(store::ToUnixUs(event.event_timestamp),
                {event.user_id, static_cast<size_t>(event.user_id_bytes)},
                {event.event_type, static_cast<size_t>(event.event_type_bytes)});
    } else {
        for (uint32_t i = state.begin; i < state.reached; i++) {
            const Cell *cells = state.record(i).cells;
            if (state.outcomes[i] == Outcome::kInserted)
                add(cells[target.event_time_cell].integer, cells[target.user_id_cell].view(),
                    cells[target.event_type_cell].view());
        }
    }
    Upsert(state, store::CounterKind::kUserDay, &user_days);
}

} // namespace

void
AddToCounters(BatchState *state)
{
    const store::Target &target = state->pipeline->target;
    if (target.event_type_cell < 0 || target.event_time_cell < 0 || pg::guc_counters[0] == '\0')
        return;
    ingest::CounterDeltas minutes = Minutes(*state);
    ingest::CounterDeltas hours = minutes.Coarser(ingest::CounterDeltas::kHourUs);
    ingest::CounterDeltas days = hours.Coarser(ingest::CounterDeltas::kDayUs);
    std::string wanted = std::string(",") + pg::guc_counters + ",";
    if (wanted.find(",minute,") != std::string::npos)
        Upsert(*state, store::CounterKind::kMinute, &minutes);
    if (wanted.find(",hour,") != std::string::npos)
        Upsert(*state, store::CounterKind::kHour, &hours);
    if (wanted.find(",day,") != std::string::npos)
        Upsert(*state, store::CounterKind::kDay, &days);
    if (wanted.find(",user_day,") != std::string::npos)
        AddUserDays(*state);
}

} // namespace pulse::worker
