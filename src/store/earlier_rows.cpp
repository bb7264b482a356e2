#include "store/earlier_rows.hpp"

#include "pg/spi.hpp"

namespace pulse::store {

namespace {

constexpr long kRowsPerFetch = 10000;

void
VisitPortal(Portal portal, RowVisitor visit, void *argument)
{
    for (;;) {
        SPI_cursor_fetch(portal, true, kRowsPerFetch);
        uint64 count = SPI_processed;
        for (uint64 row = 0; row < count; row++) {
            char *topic = pg::GetText(row, 1);
            visit({topic, pg::GetInt32(row, 2), pg::GetInt64(row, 3), pg::GetInt32(row, 4),
                   pg::GetInt64(row, 5)},
                  argument);
            pfree(topic);
        }
        SPI_freetuptable(SPI_tuptable);
        if (count == 0)
            return;
    }
}

bool
HasColumn(const Target &target, ColumnSource source)
{
    for (int i = 0; i < target.column_count; i++)
        if (target.columns[i].source == source)
            return true;
    return false;
}

} // namespace

bool
HasCoordinates(const Target &target)
{
    return HasColumn(target, ColumnSource::kKafkaTopic) &&
           HasColumn(target, ColumnSource::kKafkaPartition) &&
           HasColumn(target, ColumnSource::kKafkaOffset);
}

EpochSource
EpochSourceOf(const Target &target)
{
    return HasColumn(target, ColumnSource::kTopicEpoch)       ? EpochSource::kColumn
           : HasColumn(target, ColumnSource::kKafkaTimestamp) ? EpochSource::kTimestamp
                                                              : EpochSource::kNothing;
}

void
VisitRows(const Target &target, unsigned int role, const OffsetSpan &span, RowVisitor visit,
          void *argument)
{
    auto visit_rows = [&] {
        // A row that a policy hides would become a letter as well: an error is better.
        (void)set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
                                true, 0, false);
        Datum *topics = static_cast<Datum *>(palloc(sizeof(Datum) * span.topic_count));
        for (int i = 0; i < span.topic_count; i++)
            topics[i] = CStringGetTextDatum(span.topics[i]);
        Oid types[3] = {TEXTARRAYOID, INT8OID, INT8OID};
        Datum values[3] = {PointerGetDatum(construct_array(topics, span.topic_count, TEXTOID, -1,
                                                           false, TYPALIGN_INT)),
                           Int64GetDatum(span.begin), Int64GetDatum(span.end)};
        EpochSource source = EpochSourceOf(target);
        const char *sql = psprintf(
            "SELECT kafka_topic::text, kafka_partition::int, kafka_offset::bigint, %s, %s FROM %s"
            " WHERE kafka_topic::text = ANY ($1) AND kafka_offset >= $2 AND kafka_offset < $3",
            source == EpochSource::kColumn ? "COALESCE(topic_epoch::int, 0)" : "0",
            source == EpochSource::kTimestamp
                ? "CASE WHEN pg_catalog.isfinite(kafka_timestamp) THEN"
                  " (pg_catalog.date_part('epoch', kafka_timestamp) * 1000)::bigint ELSE -1 END"
                : "-1::bigint",
            target.qualified_name);
        Portal portal = SPI_cursor_open_with_args(nullptr, sql, 3, types, values, nullptr, true, 0);
        VisitPortal(portal, visit, argument);
        SPI_cursor_close(portal);
    };
    pg::AsRole(role, [&] { pg::InSpi(visit_rows); });
}

} // namespace pulse::store
