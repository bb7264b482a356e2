// pulse._check_schema(): the check of a JSON Schema behind create_pipeline and alter_pipeline.
// Regime: PG and doors.
#include "worker/config.hpp"
#include "pg/prelude.hpp"

using namespace pulse;

PULSE_SQL_FUNCTION(pulse_check_schema)
{
    const char *schema = text_to_cstring(PG_GETARG_TEXT_PP(0));
    pg::CallCpp([&] { worker::RequireSchema(schema); });
    PG_RETURN_VOID();
}
