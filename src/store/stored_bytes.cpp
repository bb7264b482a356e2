#include "store/stored_bytes.hpp"

#include "pg/spi.hpp"

namespace pulse::store {

namespace {

std::string_view
Bytes(Datum value)
{
    bytea *bytes = DatumGetByteaPP(value);
    return {VARDATA_ANY(bytes), static_cast<size_t>(VARSIZE_ANY_EXHDR(bytes))};
}

} // namespace

std::string_view
GetBytes(uint64_t row, int column)
{
    bool is_null = false;
    Datum value = pg::GetDatum(row, column, &is_null);
    return is_null ? std::string_view() : Bytes(value);
}

StoredHeader *
GetHeaders(uint64_t row, int column, int spare, int *count)
{
    *count = 0;
    bool has_none = false;
    Datum keys = pg::GetDatum(row, column, &has_none);
    Datum *key = nullptr, *value = nullptr;
    bool *no_key = nullptr, *no_value = nullptr;
    if (!has_none) {
        deconstruct_array(DatumGetArrayTypeP(keys), BYTEAOID, -1, false, TYPALIGN_INT, &key,
                          &no_key, count);
        deconstruct_array(DatumGetArrayTypeP(pg::GetDatum(row, column + 1, &has_none)), BYTEAOID,
                          -1, false, TYPALIGN_INT, &value, &no_value, count);
    }
    StoredHeader *headers =
        static_cast<StoredHeader *>(palloc0(sizeof(StoredHeader) * (*count + spare + 1)));
    for (int i = 0; i < *count; i++) {
        headers[i].key = no_key[i] ? std::string_view("") : Bytes(key[i]);
        headers[i].value = no_value[i] ? std::string_view() : Bytes(value[i]);
    }
    return headers;
}

uintptr_t
IdArray(const int64_t *ids, int count)
{
    Datum *values = static_cast<Datum *>(palloc(sizeof(Datum) * (count + 1)));
    for (int i = 0; i < count; i++)
        values[i] = Int64GetDatum(ids[i]);
    return PointerGetDatum(construct_array(values, count, INT8OID, 8, true, TYPALIGN_DOUBLE));
}

} // namespace pulse::store
