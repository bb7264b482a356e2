// Arrays; see array_text.hpp. The scanner has checked the grammar, so splitting needs no errors.
#include "decode/array_text.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/timestamp.hpp"

namespace pulse::decode {

namespace {

constexpr int kMaxDimensions = 6; // PostgreSQL's MAXDIM
constexpr uint32_t kNotSeen = UINT32_MAX;

// The shape that the first elements set for the others.
struct Shape {
    int leaf_depth = -1;
    uint32_t lengths[kMaxDimensions] = {kNotSeen, kNotSeen, kNotSeen, kNotSeen, kNotSeen, kNotSeen};
};

JsonKind
KindOf(char first)
{
    switch (first) {
    case 'n':
        return JsonKind::kNull;
    case 'f':
        return JsonKind::kFalse;
    case 't':
        return JsonKind::kTrue;
    case '"':
        return JsonKind::kString;
    case '{':
        return JsonKind::kObject;
    case '[':
        return JsonKind::kArray;
    default:
        return JsonKind::kNumber;
    }
}

size_t
StringEnd(std::string_view text, size_t at)
{
    for (at++; text[at] != '"'; at++)
        if (text[at] == '\\')
            at++;
    return at + 1;
}

size_t
ValueEnd(std::string_view text, size_t at)
{
    if (text[at] == '"')
        return StringEnd(text, at);
    if (text[at] != '{' && text[at] != '[')
        return std::min(text.find_first_of(", \t\r\n]", at), text.size());
    int depth = 0;
    do {
        if (text[at] == '"') {
            at = StringEnd(text, at);
            continue;
        }
        depth += text[at] == '{' || text[at] == '[' ? 1 : 0;
        depth -= text[at] == '}' || text[at] == ']' ? 1 : 0;
        at++;
    } while (depth > 0);
    return at;
}

// Takes the next element off rest, which is what stands between brackets.
bool
NextElement(std::string_view *rest, JsonValue *element)
{
    size_t begin = rest->find_first_not_of(" \t\r\n,");
    if (begin == std::string_view::npos)
        return false;
    size_t end = ValueEnd(*rest, begin);
    std::string_view text = rest->substr(begin, end - begin);
    *element = {text.data(), static_cast<uint32_t>(text.size()), KindOf(text[0]), false};
    element->has_escape = element->kind == JsonKind::kString && text.find('\\') != text.npos;
    rest->remove_prefix(end);
    return true;
}

void
AppendQuoted(std::string_view text, std::string *literal)
{
    *literal += '"';
    for (char byte : text) {
        if (byte == '"' || byte == '\\')
            *literal += '\\';
        *literal += byte;
    }
    *literal += '"';
}

void
AppendElement(const JsonValue &element, const Cell &cell, std::string *literal)
{
    switch (cell.kind) {
    case CellKind::kMissing:
    case CellKind::kNull:
        *literal += "NULL";
        return;
    case CellKind::kText:
    case CellKind::kJson:
        AppendQuoted(cell.view(), literal);
        return;
    case CellKind::kInteger:
    case CellKind::kReal:
        *literal += element.view();
        return;
    case CellKind::kBool:
        *literal += cell.integer != 0 ? 't' : 'f';
        return;
    case CellKind::kTimestamp:
        AppendQuoted(FormatRfc3339(cell.integer), literal);
        return;
    case CellKind::kDate:
        AppendQuoted(FormatFullDate(static_cast<int32_t>(cell.integer)), literal);
        return;
    }
}

bool
RefuseShape(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context)
{
    Message message;
    message.Add("expected arrays of one length at each of at most 6 levels, ");
    AddFound(value, &message);
    return RefuseColumn(column, RejectCode::kType, message, context);
}

bool
AppendArray(const ColumnSpec &column, const JsonValue &array, const ConvertContext &context,
            int depth, Shape *shape, std::string *literal)
{
    if (depth == kMaxDimensions)
        return RefuseShape(column, array, context);
    std::string_view rest = array.inner();
    JsonValue element;
    uint32_t count = 0;
    *literal += '{';
    for (; NextElement(&rest, &element); count++) {
        Pointer path = *context.path;
        path.AddIndex(count);
        ConvertContext inner{context.limits, context.now_us, context.arena, context.reject, &path};
        if (count > 0)
            *literal += column.delimiter;
        if (element.kind == JsonKind::kArray && column.type != ColumnType::kJson) {
            if (shape->leaf_depth == depth)
                return RefuseShape(column, element, inner);
            if (!AppendArray(column, element, inner, depth + 1, shape, literal))
                return false;
            continue;
        }
        if (shape->leaf_depth < 0)
            shape->leaf_depth = depth;
        if (shape->leaf_depth != depth)
            return RefuseShape(column, element, inner);
        Cell cell;
        if (!ToScalarCell(column, element, inner, &cell))
            return false;
        AppendElement(element, cell, literal);
    }
    *literal += '}';
    if (count == 0 && depth > 0) // PostgreSQL has no array of empty arrays
        return RefuseShape(column, array, context);
    if (shape->lengths[depth] == kNotSeen)
        shape->lengths[depth] = count;
    return shape->lengths[depth] == count || RefuseShape(column, array, context);
}

} // namespace

bool
ToArrayCell(const ColumnSpec &column, const JsonValue &value, const ConvertContext &context,
            Cell *cell)
{
    Pointer path = ColumnPointer(column);
    ConvertContext inner{context.limits, context.now_us, context.arena, context.reject, &path};
    Shape shape;
    std::string literal;
    if (!AppendArray(column, value, inner, 0, &shape, &literal))
        return false;
    char *text = context.arena.Allocate(literal.size());
    std::memcpy(text, literal.data(), literal.size());
    cell->text = text;
    cell->length = static_cast<uint32_t>(literal.size());
    cell->kind = CellKind::kText;
    return true;
}

} // namespace pulse::decode
