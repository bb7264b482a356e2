// pulse._record_crc(key, value): what pulse.offsets.fp_crc says of a record. Regime: PG.
#include "base/crc32c.hpp"
#include "pg/prelude.hpp"

namespace {

std::string_view
ViewOf(FunctionCallInfo fcinfo, int argument)
{
    if (PG_ARGISNULL(argument))
        return {};
    bytea *bytes = PG_GETARG_BYTEA_PP(argument);
    return {VARDATA_ANY(bytes), static_cast<size_t>(VARSIZE_ANY_EXHDR(bytes))};
}

} // namespace

PULSE_SQL_FUNCTION(pulse_record_crc)
{
    PG_RETURN_INT64(pulse::RecordCrc(ViewOf(fcinfo, 0), ViewOf(fcinfo, 1)));
}
