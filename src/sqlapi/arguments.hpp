// What the SQL functions say to bad arguments. Regime: PG.
#pragma once

#include "pg/prelude.hpp"

namespace pulse::sqlapi {

[[noreturn]] inline void
RefuseNull(const char *argument)
{
    ereport(ERROR,
            (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be NULL", argument)));
}

inline const char *
TextArgument(FunctionCallInfo fcinfo, int index, const char *argument)
{
    if (PG_ARGISNULL(index))
        RefuseNull(argument);
    return text_to_cstring(PG_GETARG_TEXT_PP(index));
}

} // namespace pulse::sqlapi
