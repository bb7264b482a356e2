#include "worker/quarantine.hpp"

#include "pg/xact.hpp"
#include "store/set_aside.hpp"
#include "worker/flight_recorder.hpp"
#include "pg/spi.hpp"

namespace pulse::worker {

namespace {

// PG regime.
void
Condemn(const char *pipeline, const store::OwnedPartition &partition, const Suspect &suspect,
        const char *work)
{
    char reason[pg::kReasonBytes];
    snprintf(reason, sizeof(reason),
             "the server crashed %d times in a row while this record was %s", suspect.deaths, work);
    if (!store::SetAside(pipeline, partition, suspect.record.kafka_offset(),
                         decode::RejectCode::kQuarantined, reason))
        return;
    ereport(WARNING,
            (errmsg("pulse pipeline \"%s\": the record at offset %lld of partition %d of topic "
                    "\"%s\" is quarantined: %s",
                    pipeline, static_cast<long long>(suspect.record.kafka_offset()),
                    partition.partition, partition.topic, reason),
             errhint("Its bytes are kept in raw.dlq.")));
}

// PG regime. Suspects that were committed after all are none.
void
CondemnSuspects(const PipelineState &pipeline)
{
    static const char *const works[2] = {"decoded", "written"};
    for (int i = 0; i < 2; i++) {
        const Suspect &suspect = my_flight->suspects[i];
        const store::OwnedPartition *partition =
            pipeline.Find(suspect.record.topic_name(), suspect.record.partition);
        if (suspect.deaths >= kDeathsUntilQuarantine && partition != nullptr &&
            suspect.record.kafka_offset() >= partition->next_offset)
            Condemn(pipeline.definition.name, *partition, suspect, works[i]);
    }
}

} // namespace

std::vector<ingest::SetAside>
SetAsideRecords(const PipelineState &pipeline)
{
    std::vector<store::SetAsideRow> rows(16);
    auto load = [&] {
        return pg::CallPg([&] {
            return store::LoadSetAside(pipeline.definition.name, rows.data(),
                                       static_cast<int>(rows.size()));
        });
    };
    pg::InTransaction([&] {
        pg::CallPg([&] { CondemnSuspects(pipeline); });
        size_t found = static_cast<size_t>(load());
        bool is_short = found > rows.size();
        rows.resize(found);
        if (is_short)
            load();
    });
    std::vector<ingest::SetAside> records;
    for (const store::SetAsideRow &row : rows)
        records.push_back({row.topic, row.partition, row.kafka_offset, row.code, row.message});
    return records;
}

} // namespace pulse::worker
