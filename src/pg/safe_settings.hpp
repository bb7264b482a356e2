// Settings that decide what SQL says or which table it means: the same wherever pulse runs code of
// a target's owner, in workers for ever, in sessions of others for the length of a call.
#pragma once

namespace pulse::pg {

struct SafeSetting {
    const char *name;
    const char *value;
};

inline constexpr SafeSetting kSafeSettings[] = {
    {"search_path", "pg_catalog, pg_temp"},
    {"row_security", "off"},
    {"TimeZone", "UTC"},
    {"DateStyle", "ISO, YMD"},
    {"IntervalStyle", "postgres"},
    {"extra_float_digits", "1"},
    {"bytea_output", "hex"},
    {"standard_conforming_strings", "on"},
    {"transform_null_equals", "off"},
};

} // namespace pulse::pg
