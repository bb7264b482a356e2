#include "worker/batch_letters.hpp"

#include <algorithm>

#include "base/excerpt.hpp"
#include "pg/xact.hpp"
#include "store/dead_letters.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

// False when the record is a letter already.
bool
WriteOne(const BatchState &state, uint32_t i, const store::LetterReason &reason)
{
    const store::OwnedPartition &partition = *state.range_partitions[state.record(i).range_index];
    return pg::CallPg([&] {
        bool is_new = false;
        pg::InSpi(
            [&] { is_new = store::WriteLetter(state.name(), partition, state.record(i), reason); });
        return is_new;
    });
}

void
NoteRejectedAgain(const BatchState *state, RangeProgress *range, const ingest::Record &record)
{
    const EarlierRows &rows = state->pipeline->earlier_rows;
    if (!rows.Knows(*range->partition, record.kafka_offset))
        throw Unsure{};
    if (rows.Contains(*range->partition, record.kafka_offset, record.timestamp_ms))
        range->rejected_again.push_back(record.kafka_offset);
}

// A record that was a row before and is rejected now (it has become too old, say) stays the row it
// is.
void
WithdrawLettersOfRows(BatchState *state, RangeProgress *range)
{
    std::vector<int64_t> found;
    found.reserve(range->rejected_again.size()); // nothing may throw inside the door
    pg::CallPg([&] {
        pg::InSpi([&] {
            store::WithdrawLetters(
                state->name(), *range->partition, range->rejected_again.data(),
                static_cast<int>(range->rejected_again.size()),
                [](int64_t offset, void *list) {
                    static_cast<std::vector<int64_t> *>(list)->push_back(offset);
                },
                &found);
        });
    });
    for (uint32_t i = state->begin; i < state->reached; i++)
        if (&state->range(i) == range &&
            std::find(found.begin(), found.end(), state->record(i).kafka_offset) != found.end())
            state->known_letters.insert(i);
}

} // namespace

store::LetterReason
ReasonOf(const BatchState &state, uint32_t record)
{
    for (const SqlReject &reject : state.sql_rejects)
        if (reject.record == record)
            return {"data",
                    reject.stage.empty() ? "sql_error" : "stage_error",
                    reject.error.sqlstate.c_str(),
                    reject.stage.empty() ? "insert" : reject.stage.c_str(),
                    reject.message,
                    reject.path.empty() ? std::string_view() : std::string_view(reject.path)};
    const decode::Reject &reject = state.record(record).reject;
    const decode::RejectInfo &info = decode::InfoOf(reject.code);
    return {info.error_class.data(), info.name.data(), nullptr, "decode",
            reject.message,          reject.path};
}

void
WriteLetters(BatchState *state)
{
    for (uint32_t i = state->begin; i < state->reached; i++) {
        if (state->outcomes[i] != Outcome::kRejected)
            continue;
        store::LetterReason reason = ReasonOf(*state, i);
        if (state->reject_example.empty())
            state->reject_example = std::string(reason.error_code) + ": " + Excerpt(reason.message);
        RangeProgress &range = state->range(i);
        if (!WriteOne(*state, i, reason))
            state->known_letters.insert(i);
        else if (state->record(i).kafka_offset < range.partition->highest_offset)
            NoteRejectedAgain(state, &range, state->record(i));
    }
    for (RangeProgress &range : state->ranges)
        if (!range.rejected_again.empty())
            WithdrawLettersOfRows(state, &range);
}

} // namespace pulse::worker
