// pulse.ingest(name, events): the events of a jsonb, one or an array of them. Regime: PG and doors.
#include "sqlapi/arguments.hpp"
#include "worker/ingest.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

namespace {

struct Events {
    std::string_view *texts;
    int count;
};

std::string_view
TextOf(Jsonb *value)
{
    const char *text = JsonbToCString(nullptr, &value->root, VARSIZE(value));
    return {text, strlen(text)};
}

// In memory that lives as long as the call.
Events
EventsOf(Jsonb *json)
{
    if (!JB_ROOT_IS_ARRAY(json) || JB_ROOT_IS_SCALAR(json)) {
        std::string_view *one = static_cast<std::string_view *>(palloc(sizeof(std::string_view)));
        *one = TextOf(json);
        return {one, 1};
    }
    const int count = static_cast<int>(JB_ROOT_COUNT(json));
    Events events = {
        static_cast<std::string_view *>(palloc(sizeof(std::string_view) * (count + 1))), 0};
    JsonbIterator *iterator = JsonbIteratorInit(&json->root);
    JsonbValue value;
    for (;;) {
        JsonbIteratorToken token = JsonbIteratorNext(&iterator, &value, true);
        if (token == WJB_DONE)
            return events;
        if (token == WJB_ELEM)
            events.texts[events.count++] = TextOf(JsonbValueToJsonb(&value));
    }
}

} // namespace

} // namespace pulse::sqlapi

using namespace pulse;

// ingest(name, events) -> accepted, rejected, processing_ms
PULSE_SQL_FUNCTION(pulse_ingest)
{
    TupleDesc descriptor = nullptr;
    if (get_call_result_type(fcinfo, nullptr, &descriptor) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    const char *name = sqlapi::TextArgument(fcinfo, 0, "name");
    if (PG_ARGISNULL(1))
        sqlapi::RefuseNull("events");
    const TimestampTz began_at = GetCurrentTimestamp();
    const sqlapi::Events events = sqlapi::EventsOf(PG_GETARG_JSONB_P(1));
    const worker::IngestCounts counts =
        pg::CallCpp([&] { return worker::Ingest(name, events.texts, events.count); });

    Datum values[3] = {
        Int64GetDatum(counts.accepted), Int64GetDatum(counts.rejected),
        Float8GetDatum(static_cast<double>(GetCurrentTimestamp() - began_at) / 1000.0)};
    bool nulls[3] = {};
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}
