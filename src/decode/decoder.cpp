// Record -> cells; see decoder.hpp. The order of the checks is the order in which errors win:
//   1. what the bytes are: tombstone, empty, oversize, schema_framed_payload, encoding or NUL byte;
//   2. the first fault of the document in reading order (syntax, nul, surrogate, depth, number,
//      dup_key), then not_object, then dup_key between "properties" and the fields beside it;
//   3. the columns in the mapping's order, the rest column in its place among them;
//   4. unknown_field, the first one in the document;
//   5. the pipeline's JSON Schema, over the whole document.
// So a record that isn't sound JSON never shows as an event with one bad field. White space alone
// is syntax; only zero bytes are empty.
#include "decode/decoder.hpp"

#include <chrono>
#include <cstring>

#include "base/utf8.hpp"
#include "decode/convert.hpp"
#include "decode/path_tree.hpp"
#include "decode/scanner.hpp"
#include "decode/schema.hpp"

namespace pulse::decode {

namespace {

// Names collide for nobody who can't guess this: it takes the clock and an address.
uint64_t
MakeHashSeed(const void *address)
{
    auto ticks = std::chrono::steady_clock::now().time_since_epoch().count();
    uint64_t seed = static_cast<uint64_t>(ticks) * 0x9E3779B97F4A7C15;
    seed ^= static_cast<uint64_t>(reinterpret_cast<uintptr_t>(address));
    seed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9;
    return seed ^ seed >> 27;
}

// Confluent's wire format: a zero byte, the schema's id, the payload.
constexpr size_t kSchemaFrameBytes = 5;

uint32_t
SchemaId(std::string_view value)
{
    uint32_t id = 0;
    for (size_t i = 1; i < kSchemaFrameBytes; i++)
        id = id << 8 | static_cast<unsigned char>(value[i]);
    return id;
}

} // namespace

class Decoder::Impl {
  public:
    explicit Impl(std::shared_ptr<const Mapping> mapping)
        : mapping_(std::move(mapping)), hash_seed_(MakeHashSeed(this)),
          tree_(*mapping_, hash_seed_), scanner_(tree_, mapping_->limits.max_depth, hash_seed_)
    {
        if (!mapping_->schema.empty())
            schema_ = std::make_unique<Schema>(mapping_->schema);
    }

    bool Decode(std::string_view value, int64_t now_us, Arena &arena, Cell *cells, Reject *reject);
    const Mapping &mapping() const { return *mapping_; }

  private:
    // Where the JSON text stands in the value, once it is known to be UTF-8.
    bool FindDocument(std::string_view value, Arena &arena, std::string_view *document,
                      Reject *reject) const;
    bool CheckEncoding(std::string_view document, size_t base, Arena &arena, Reject *reject) const;
    bool CheckCollisions(Arena &arena, Reject *reject) const;
    bool CheckUnknown(Arena &arena, Reject *reject) const;
    bool FillRest(const ConvertContext &context, Cell *cell) const;
    std::string_view JoinRest(std::string_view members, size_t loose_bytes, Arena &arena) const;
    // Whether the rest column takes the member: nothing is dropped unless the pipeline says so.
    bool IsKept(const LooseMember &member) const;
    const JsonValue &RestValue() const;

    const std::shared_ptr<const Mapping> mapping_;
    const uint64_t hash_seed_;
    const PathTree tree_;
    Scanner scanner_;
    std::unique_ptr<Schema> schema_; // null = none is set
};

Decoder::Decoder(std::shared_ptr<const Mapping> mapping)
    : impl_(std::make_unique<Impl>(std::move(mapping)))
{
}

Decoder::~Decoder() = default;

bool
Decoder::Decode(std::string_view value, int64_t now_us, Arena &arena, Cell *cells, Reject *reject)
{
    return impl_->Decode(value, now_us, arena, cells, reject);
}

const Mapping &
Decoder::mapping() const
{
    return impl_->mapping();
}

bool
Decoder::Impl::Decode(std::string_view value, int64_t now_us, Arena &arena, Cell *cells,
                      Reject *reject)
{
    std::string_view document;
    if (!FindDocument(value, arena, &document, reject))
        return false;
    if (!scanner_.Scan(document, value.size() - document.size(), arena, reject))
        return false;
    if (scanner_.top().kind != JsonKind::kObject) {
        Message message;
        message.Add("expected object, ");
        AddFound(scanner_.top(), &message);
        return Refuse(RejectCode::kNotObject, message, nullptr, arena, reject);
    }
    if (!CheckCollisions(arena, reject))
        return false;

    ConvertContext context{mapping_->limits, now_us, arena, reject};
    for (size_t i = 0; i < mapping_->columns.size(); i++) {
        bool is_rest = static_cast<int>(i) == mapping_->rest_column;
        if (is_rest ? !FillRest(context, &cells[i])
                    : !ToCell(mapping_->columns[i], scanner_.value(tree_.column_node(i)), context,
                              &cells[i]))
            return false;
    }
    return CheckUnknown(arena, reject) &&
           (schema_ == nullptr || schema_->Judge(document, arena, reject));
}

bool
Decoder::Impl::FindDocument(std::string_view value, Arena &arena, std::string_view *document,
                            Reject *reject) const
{
    Message message;
    if (value.data() == nullptr) {
        message.Add("the record has no value");
        return Refuse(RejectCode::kTombstone, message, nullptr, arena, reject);
    }
    if (value.empty()) {
        message.Add("the value has zero bytes");
        return Refuse(RejectCode::kEmpty, message, nullptr, arena, reject);
    }
    if (value.size() > mapping_->limits.max_message_bytes) {
        message.Add("the value has ").AddSize(value.size()).Add(" bytes, the limit is ");
        message.AddSize(mapping_->limits.max_message_bytes);
        return Refuse(RejectCode::kOversize, message, nullptr, arena, reject);
    }
    size_t base = 0;
    if (value[0] == '\0' && value.size() >= kSchemaFrameBytes) {
        base = kSchemaFrameBytes;
        if (value.size() == base || value[base] != '{') {
            message.Add("framed with schema id ").AddSize(SchemaId(value));
            message.Add(", not a JSON object inside");
            return Refuse(RejectCode::kSchemaFramedPayload, message, nullptr, arena, reject);
        }
    }
    *document = value.substr(base);
    return CheckEncoding(*document, base, arena, reject);
}

bool
Decoder::Impl::CheckEncoding(std::string_view document, size_t base, Arena &arena,
                             Reject *reject) const
{
    constexpr size_t kShownBytes = 4; // the longest character
    Utf8Check check = CheckUtf8(document);
    if (check.fault == Utf8Fault::kNone)
        return true;
    Message message;
    if (check.fault == Utf8Fault::kNul) {
        message.Add("NUL byte at byte ").AddSize(base + check.offset);
    } else {
        message.Add("invalid UTF-8 at byte ").AddSize(base + check.offset).Add(": ");
        message.AddExcerpt(document.substr(check.offset, kShownBytes));
    }
    return Refuse(RejectCode::kEncoding, message, nullptr, arena, reject);
}

bool
Decoder::Impl::CheckCollisions(Arena &arena, Reject *reject) const
{
    if (mapping_->rest_column < 0 || RestValue().kind != JsonKind::kObject)
        return true;
    for (const LooseMember &member : scanner_.loose_members()) {
        std::string_view name = scanner_.keys().name(member.key);
        if (!IsKept(member) || !scanner_.keys().Contains(scanner_.rest_object(), name,
                                                         scanner_.keys().hash(member.key)))
            continue;
        const ColumnSpec &rest = mapping_->columns[static_cast<size_t>(mapping_->rest_column)];
        Pointer path;
        path.AddName(name);
        Message message;
        message.Add("member name \"").AddExcerpt(name).Add("\" occurs in ");
        message.AddExcerpt(rest.name).Add(" as well");
        return Refuse(RejectCode::kDupKey, message, &path, arena, reject);
    }
    return true;
}

bool
Decoder::Impl::CheckUnknown(Arena &arena, Reject *reject) const
{
    if (mapping_->unknown_fields != UnknownFields::kReject)
        return true;
    for (const LooseMember &member : scanner_.loose_members()) {
        if (member.is_partly_used)
            continue;
        std::string_view name = scanner_.keys().name(member.key);
        Pointer path;
        path.AddName(name);
        Message message;
        message.Add("no column takes the field \"").AddExcerpt(name).Add("\"");
        return Refuse(RejectCode::kUnknownField, message, &path, arena, reject);
    }
    return true;
}

// One JSON object, always: {} when the event leaves nothing over.
bool
Decoder::Impl::FillRest(const ConvertContext &context, Cell *cell) const
{
    const ColumnSpec &column = mapping_->columns[static_cast<size_t>(mapping_->rest_column)];
    const JsonValue &own = RestValue();
    bool is_object = own.kind == JsonKind::kObject;
    if (!is_object && own.kind != JsonKind::kAbsent && own.kind != JsonKind::kNull) {
        Message message;
        message.Add("expected object, ");
        AddFound(own, &message);
        return RefuseColumn(column, RejectCode::kType, message, context);
    }
    size_t loose_bytes = 0;
    for (const LooseMember &member : scanner_.loose_members())
        if (IsKept(member))
            loose_bytes += member.length + 1;
    std::string_view members;
    if (is_object && scanner_.rest_object().count > 0)
        members = own.inner();

    JsonValue rest = own;
    if (!is_object || loose_bytes > 0) {
        std::string_view text = JoinRest(members, loose_bytes, context.arena);
        rest = {text.data(), static_cast<uint32_t>(text.size()), JsonKind::kObject, false};
    }
    return ToCell(column, rest, context, cell);
}

// Copies the members as the document spells them, so numbers and escapes stay what they were.
std::string_view
Decoder::Impl::JoinRest(std::string_view members, size_t loose_bytes, Arena &arena) const
{
    char *text = arena.Allocate(members.size() + loose_bytes + 3);
    char *next = text;
    auto append = [&](std::string_view piece) {
        std::memcpy(next, piece.data(), piece.size());
        next += piece.size();
    };
    *next++ = '{';
    if (!members.empty())
        append(members);
    bool is_first = members.empty();
    for (const LooseMember &member : scanner_.loose_members()) {
        if (!IsKept(member))
            continue;
        if (!is_first)
            *next++ = ',';
        is_first = false;
        append({member.text, member.length});
    }
    *next++ = '}';
    return {text, static_cast<size_t>(next - text)};
}

bool
Decoder::Impl::IsKept(const LooseMember &member) const
{
    if (mapping_->unknown_fields == UnknownFields::kReject)
        return member.is_partly_used; // any other is refused
    return mapping_->unknown_fields == UnknownFields::kKeep;
}

const JsonValue &
Decoder::Impl::RestValue() const
{
    return scanner_.value(tree_.column_node(static_cast<size_t>(mapping_->rest_column)));
}

} // namespace pulse::decode
