#include "store/data_tables.hpp"

namespace pulse::store {

Oid
OwnerOfTable(const char *schema, const char *table)
{
    // The lock of an INSERT; ALTER TABLE ... OWNER TO waits for it.
    const Oid relation = RangeVarGetRelid(makeRangeVar(pstrdup(schema), pstrdup(table), -1),
                                          RowExclusiveLock, false);
    HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
    if (!HeapTupleIsValid(tuple))
        elog(ERROR, "cache lookup failed for relation %u", relation);
    const Oid owner = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner;
    ReleaseSysCache(tuple);
    return owner;
}

} // namespace pulse::store
