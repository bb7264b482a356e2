// Tables of raw and live are written here, but they are not the extension's: whoever owns one may
// have put triggers there. Regime: PG, inside a transaction.
#pragma once

#include "pg/spi.hpp"

namespace pulse::store {

// Its owner stays until the transaction ends. Raises 42P01.
Oid OwnerOfTable(const char *schema, const char *table);

// Runs fn, which touches that table only, as its owner where we are a superuser: his triggers get
// no rights of ours. Other callers write with their own rights.
template <typename F>
void
AsOwnerOf(const char *schema, const char *table, F &&fn)
{
    const Oid owner = OwnerOfTable(schema, table);
    if (superuser())
        pg::AsRole(owner, fn);
    else
        fn();
}

template <typename F>
void
AsOwnerOfLetters(F &&fn)
{
    AsOwnerOf("raw", "dlq", fn);
}

} // namespace pulse::store
