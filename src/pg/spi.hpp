// SPI with saved plans. A Statement is a static object: planned at first use in a process, kept.
// Regime: PG; everything raises on failure. Calls belong inside InSpi() and a transaction.
#pragma once

#include "pg/prelude.hpp"

namespace pulse::pg {

constexpr int kMaxArguments = 20;

struct Statement {
    const char *sql;
    int argument_count;
    Oid argument_types[kMaxArguments];
    SPIPlanPtr plan; // null until first used
};

// Runs it; returns the number of rows processed. Rows are read with the functions below.
uint64 Execute(Statement *statement, const Datum *arguments = nullptr, const char *nulls = nullptr);
// The same for a query without arguments, with a snapshot of this moment in any isolation level.
uint64 ExecuteAsOfNow(Statement *statement);
// Runs SQL that is different each time (DDL).
void ExecuteOnce(const char *sql);

Datum GetDatum(uint64 row, int column, bool *is_null); // column from 1
char *GetText(uint64 row, int column);                 // null for NULL; palloc'd in the SPI context
int64 GetInt64(uint64 row, int column);                // NULL reads as 0
int32 GetInt32(uint64 row, int column);

// A question that the statement answers with one boolean; no row and NULL are no. Connects by
// itself.
bool IsTrue(Statement *statement, const Datum *arguments = nullptr);

template <typename F>
void
InSpi(F &&fn)
{
    if (SPI_connect() != SPI_OK_CONNECT)
        elog(ERROR, "SPI_connect failed");
    fn();
    if (SPI_finish() != SPI_OK_FINISH)
        elog(ERROR, "SPI_finish failed");
}

// Runs it as that role: code of its tables (triggers, defaults, stages) has the role's rights,
// can't change the role, and what it sets (search_path, time zone) is taken back behind it, for
// what follows runs as us.
template <typename F>
void
AsRole(Oid role, F &&fn)
{
    Oid caller = InvalidOid;
    int security = 0;
    GetUserIdAndSecContext(&caller, &security);
    const int level = NewGUCNestLevel();
    SetUserIdAndSecContext(role,
                           security | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
    fn();
    AtEOXact_GUC(false, level);
    SetUserIdAndSecContext(caller, security);
}

} // namespace pulse::pg
