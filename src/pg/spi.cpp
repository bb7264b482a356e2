#include "pg/spi.hpp"

namespace pulse::pg {

namespace {

void
Prepare(Statement *statement)
{
    if (statement->plan != nullptr)
        return;
    SPIPlanPtr plan =
        SPI_prepare(statement->sql, statement->argument_count, statement->argument_types);
    if (plan == nullptr)
        elog(ERROR, "could not prepare \"%s\": %s", statement->sql,
             SPI_result_code_string(SPI_result));
    SPI_keepplan(plan);
    statement->plan = plan;
}

} // namespace

uint64
Execute(Statement *statement, const Datum *arguments, const char *nulls)
{
    Prepare(statement);
    int result = SPI_execute_plan(statement->plan, const_cast<Datum *>(arguments), nulls, false, 0);
    if (result < 0)
        elog(ERROR, "could not execute \"%s\": %s", statement->sql, SPI_result_code_string(result));
    return SPI_processed;
}

uint64
ExecuteAsOfNow(Statement *statement)
{
    Prepare(statement);
    int result = SPI_execute_snapshot(statement->plan, nullptr, nullptr, GetLatestSnapshot(),
                                      InvalidSnapshot, true, false, 0);
    if (result < 0)
        elog(ERROR, "could not execute \"%s\": %s", statement->sql, SPI_result_code_string(result));
    return SPI_processed;
}

void
ExecuteOnce(const char *sql)
{
    int result = SPI_execute(sql, false, 0);
    if (result < 0)
        elog(ERROR, "could not execute \"%s\": %s", sql, SPI_result_code_string(result));
}

Datum
GetDatum(uint64 row, int column, bool *is_null)
{
    return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, is_null);
}

char *
GetText(uint64 row, int column)
{
    return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

int64
GetInt64(uint64 row, int column)
{
    bool is_null = false;
    Datum value = GetDatum(row, column, &is_null);
    return is_null ? 0 : DatumGetInt64(value);
}

int32
GetInt32(uint64 row, int column)
{
    bool is_null = false;
    Datum value = GetDatum(row, column, &is_null);
    return is_null ? 0 : DatumGetInt32(value);
}

bool
IsTrue(Statement *statement, const Datum *arguments)
{
    bool is_true = false;
    InSpi([&] {
        bool is_null = false;
        if (Execute(statement, arguments) == 1)
            is_true = DatumGetBool(GetDatum(0, 1, &is_null));
    });
    return is_true;
}

} // namespace pulse::pg
