// pulse.decode(): the decoder from SQL, with a pipeline's own columns and limits. Regime: PG and
// doors.
#include <memory>

#include "base/clock.hpp"
#include "decode/decoder.hpp"
#include "pg/guc.hpp"
#include "sqlapi/arguments.hpp"
#include "sqlapi/called_pipeline.hpp"
#include "sqlapi/event_json.hpp"
#include "store/target.hpp"
#include "worker/config.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

namespace {

// What the C++ side hands back: bytes that live in palloc'd memory of the caller's context.
struct DecodeOutcome {
    bool is_event;
    const char *event_json;
    const char *error_class;
    const char *error_code;
    const char *path; // null = none
    const char *message;
};

const char *
CopyOut(std::string_view text)
{
    return pg::CallPg([&]() -> const char * { return pnstrdup(text.data(), text.size()); });
}

DecodeOutcome
Decode(const store::Target &target, std::string_view value)
{
    std::shared_ptr<const decode::Mapping> mapping = worker::MappingOf(target);
    decode::Decoder decoder(mapping);
    Arena arena;
    Cell *cells = arena.AllocateArray<Cell>(mapping->columns.size());
    decode::Reject reject;
    if (decoder.Decode(value, WallClockUs(), arena, cells, &reject))
        return {true, CopyOut(EventJson(*mapping, cells)), nullptr, nullptr, nullptr, nullptr};
    const decode::RejectInfo &info = decode::InfoOf(reject.code);
    return {false,
            nullptr,
            CopyOut(info.error_class),
            CopyOut(info.name),
            reject.path.data() == nullptr ? nullptr : CopyOut(reject.path),
            CopyOut(reject.message)};
}

} // namespace

} // namespace pulse::sqlapi

using namespace pulse;

// decode(name, bytea) -> event, error_class, error_code, error_path, error_message
PULSE_SQL_FUNCTION(pulse_decode)
{
    store::PipelineDefinition definition;
    TupleDesc descriptor = nullptr;
    if (get_call_result_type(fcinfo, nullptr, &descriptor) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    const char *name = sqlapi::TextArgument(fcinfo, 0, "name");
    const int level = NewGUCNestLevel();
    const store::Target &target = sqlapi::UseTarget(name, &definition);
    bytea *value = PG_ARGISNULL(1) ? nullptr : PG_GETARG_BYTEA_PP(1);
    sqlapi::DecodeOutcome outcome = pg::CallCpp([&] {
        std::string_view bytes;
        if (value != nullptr)
            bytes = {VARDATA_ANY(value), static_cast<size_t>(VARSIZE_ANY_EXHDR(value))};
        return sqlapi::Decode(target, bytes);
    });
    AtEOXact_GUC(true, level);

    Datum values[5] = {};
    bool nulls[5] = {true, true, true, true, true};
    auto set = [&](int column, const char *value_text) {
        nulls[column] = value_text == nullptr;
        if (value_text != nullptr)
            values[column] = CStringGetTextDatum(value_text);
    };
    set(1, outcome.error_class);
    set(2, outcome.error_code);
    set(3, outcome.path);
    set(4, outcome.message);
    nulls[0] = !outcome.is_event;
    if (outcome.is_event)
        values[0] = DirectFunctionCall1(jsonb_in, CStringGetDatum(outcome.event_json));
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}

// error_codes(): the closed list, one row each.
PULSE_SQL_FUNCTION(pulse_error_codes)
{
    InitMaterializedSRF(fcinfo, 0);
    ReturnSetInfo *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
    int count = 0;
    const decode::RejectInfo *infos = decode::AllRejects(&count);
    for (int i = 0; i < count; i++) {
        Datum values[4] = {CStringGetTextDatum(infos[i].name.data()),
                           CStringGetTextDatum(infos[i].error_class.data()),
                           CStringGetTextDatum(infos[i].meaning.data()),
                           CStringGetTextDatum(infos[i].remedy.data())};
        bool nulls[4] = {};
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
    return static_cast<Datum>(0);
}
