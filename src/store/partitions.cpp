#include "store/partitions.hpp"

#include "pg/spi.hpp"

namespace pulse::store {

namespace {

// One creator at a time per target; the second looks again and finds the partition.
pg::Statement lock_target = {
    "SELECT pg_catalog.pg_advisory_xact_lock($1, $2)", 2, {INT4OID, INT4OID}, nullptr};
constexpr int32 kAdvisoryClass = 0x70756c73; // "puls"

pg::Statement bounds_of = {
    "SELECT pg_catalog.to_char(b.low, 'YYYY-MM-DD HH24:MI:SS') || '+00',"
    "       pg_catalog.to_char(b.low + ('1 ' || $2)::interval, 'YYYY-MM-DD HH24:MI:SS') || '+00',"
    "       pg_catalog.to_char(b.low, CASE $2 WHEN 'hour' THEN 'YYYYMMDDHH24' WHEN 'month' THEN "
    "'YYYYMM'"
    "                                         ELSE 'YYYYMMDD' END)"
    "  FROM (SELECT pg_catalog.date_trunc($2, $1 AT TIME ZONE 'UTC') AS low) b",
    2,
    {TIMESTAMPTZOID, TEXTOID},
    nullptr};

void
CreateAndAttach(const Target &target, int64_t timestamp)
{
    Datum arguments[2] = {TimestampTzGetDatum(timestamp),
                          CStringGetTextDatum(target.partition_unit)};
    if (pg::Execute(&bounds_of, arguments) != 1)
        elog(ERROR, "no bounds for a partition");
    const char *low = pg::GetText(0, 1);
    const char *high = pg::GetText(0, 2);
    const char *suffix = pg::GetText(0, 3);

    const char *schema = get_namespace_name(get_rel_namespace(target.relation));
    char *parent = get_rel_name(target.relation);
    if (parent == nullptr)
        ereport(ERROR,
                (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("%s is gone", target.qualified_name)));
    char *leaf = psprintf("%.*s_%s", pg_mbcliplen(parent, static_cast<int>(strlen(parent)), 48),
                          parent, suffix);
    // A partition that was detached and kept has the name.
    char *base = leaf;
    Oid schema_oid = get_rel_namespace(target.relation);
    for (int number = 2; OidIsValid(get_relname_relid(leaf, schema_oid)); number++)
        leaf = psprintf("%s_%d", base, number);
    const char *leaf_name = quote_qualified_identifier(schema, leaf);
    // ATTACH makes the indexes and clones triggers; LIKE brings what must exist before it.
    pg::ExecuteOnce(
        psprintf("CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING "
                 "CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION)",
                 leaf_name, target.qualified_name));
    pg::ExecuteOnce(psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)",
                             target.qualified_name, leaf_name, quote_literal_cstr(low),
                             quote_literal_cstr(high)));
}

} // namespace

bool
EnsurePartition(const Target &target, int64_t timestamp)
{
    bool is_made = false;
    auto ensure = [&] {
        (void)set_config_option("lock_timeout", "1s", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
                                true, 0, false);
        (void)set_config_option("timezone", "UTC", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
                                true, 0, false);
        (void)set_config_option("datestyle", "ISO, YMD", PGC_USERSET, PGC_S_SESSION,
                                GUC_ACTION_LOCAL, true, 0, false);
        Datum arguments[2] = {Int32GetDatum(kAdvisoryClass),
                              Int32GetDatum(static_cast<int32>(target.relation))};
        (void)pg::Execute(&lock_target, arguments);
        // The lock is no relation's: what its last holder did to the target must be asked for.
        AcceptInvalidationMessages();
        is_made = FindLeaf(target, timestamp) == InvalidOid;
        if (is_made)
            CreateAndAttach(target, timestamp);
    };
    pg::AsRole(target.owner, [&] { pg::InSpi(ensure); });
    return is_made;
}

bool
IsPartOf(const Target &target, const char *schema, const char *table)
{
    Oid space = get_namespace_oid(schema, true);
    Oid relation = OidIsValid(space) ? get_relname_relid(table, space) : InvalidOid;
    if (!OidIsValid(relation))
        return false;
    return relation == target.relation ||
           (get_rel_relispartition(relation) &&
            get_rel_relkind(relation) != RELKIND_PARTITIONED_TABLE &&
            list_member_oid(get_partition_ancestors(relation), target.relation));
}

} // namespace pulse::store
