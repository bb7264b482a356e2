#include "sqlapi/event_json.hpp"

#include <charconv>

#include "store/time.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

namespace {

void
AppendText(std::string *json, std::string_view text)
{
    static const char hex[] = "0123456789abcdef";
    *json += '"';
    for (char character : text) {
        unsigned char byte = static_cast<unsigned char>(character);
        if (byte == '"' || byte == '\\') {
            *json += '\\';
            *json += character;
        } else if (byte < 0x20) {
            *json += "\\u00";
            *json += hex[byte >> 4];
            *json += hex[byte & 15];
        } else {
            *json += character;
        }
    }
    *json += '"';
}

// As PostgreSQL prints it in JSON, whatever DateStyle says. A date's cell counts days.
void
AppendTime(std::string *json, int64_t unix_us, bool is_date)
{
    char text[129]; // MAXDATELEN + 1
    pg::CallPg([&] {
        if (is_date)
            JsonEncodeDateTime(text,
                               DateADTGetDatum(static_cast<DateADT>(unix_us - store::kEpochDays)),
                               DATEOID, nullptr);
        else
            JsonEncodeDateTime(text, TimestampTzGetDatum(store::FromUnixUs(unix_us)),
                               TIMESTAMPTZOID, nullptr);
    });
    AppendText(json, text);
}

Oid
ArrayTypeOf(decode::ColumnType element)
{
    switch (element) {
    case decode::ColumnType::kInt2:
    case decode::ColumnType::kInt4:
    case decode::ColumnType::kInt8:
    case decode::ColumnType::kFloat4:
    case decode::ColumnType::kFloat8:
    case decode::ColumnType::kNumeric:
        return NUMERICARRAYOID;
    case decode::ColumnType::kBool:
        return BOOLARRAYOID;
    case decode::ColumnType::kTimestamp:
        return TIMESTAMPTZARRAYOID;
    case decode::ColumnType::kJson:
        return JSONBARRAYOID;
    default:
        return TEXTARRAYOID;
    }
}

// The array that the text makes, as PostgreSQL prints it in JSON.
void
AppendArray(std::string *json, decode::ColumnType element, std::string_view literal)
{
    *json += pg::CallPg([&] {
        Oid input = InvalidOid;
        Oid io_parameter = InvalidOid;
        getTypeInputInfo(ArrayTypeOf(element), &input, &io_parameter);
        Datum array =
            OidInputFunctionCall(input, pnstrdup(literal.data(), literal.size()), io_parameter, -1);
        return text_to_cstring(DatumGetTextPP(DirectFunctionCall1(array_to_json, array)));
    });
}

} // namespace

std::string
EventJson(const decode::Mapping &mapping, const Cell *cells)
{
    std::string json = "{";
    for (size_t i = 0; i < mapping.columns.size(); i++) {
        const Cell &cell = cells[i];
        if (cell.kind == CellKind::kMissing)
            continue;
        if (json.size() > 1)
            json += ", ";
        AppendText(&json, mapping.columns[i].name);
        json += ": ";
        decode::ColumnType type = mapping.columns[i].type;
        switch (cell.kind) {
        case CellKind::kMissing:
        case CellKind::kNull:
            json += "null";
            break;
        case CellKind::kText:
            if (mapping.columns[i].is_array && mapping.columns[i].delimiter == ',')
                AppendArray(&json, type, cell.view());
            else if (type == decode::ColumnType::kNumeric)
                json += cell.view();
            else
                AppendText(&json, cell.view());
            break;
        case CellKind::kInteger:
            json += std::to_string(cell.integer);
            break;
        case CellKind::kReal: {
            char number[32];
            json.append(number, std::to_chars(number, number + sizeof(number), cell.real).ptr);
            break;
        }
        case CellKind::kBool:
            json += cell.integer != 0 ? "true" : "false";
            break;
        case CellKind::kTimestamp:
            AppendTime(&json, cell.integer, false);
            break;
        case CellKind::kDate:
            AppendTime(&json, cell.integer, true);
            break;
        case CellKind::kJson:
            json += cell.view();
            break;
        }
    }
    return json + "}";
}

} // namespace pulse::sqlapi
