#include "decode/schema.hpp"

#include <optional>
#include <string>
#include <vector>

#include "decode/message.hpp"
#include "decode/schema_check.hpp"
#include "decode/schema_pointer.hpp"
#include "decode/schema_walk.hpp"
#include "decode/rapidjson_prelude.hpp"

namespace pulse::decode {

namespace {

using Compiled = rapidjson::GenericSchemaDocument<SchemaValue, RapidJsonAllocator>;
using Validator =
    rapidjson::GenericSchemaValidator<Compiled, rapidjson::BaseReaderHandler<rapidjson::UTF8<>>,
                                      RapidJsonAllocator>;
using rapidjson::SizeType;

// Hands the document's events to the validator and remembers the value it is at, for the message.
struct ValidatorEvents {
    bool Null() { return At("null", {}) && validator->Null(); }
    bool Bool(bool value) { return At(value ? "true" : "false", {}) && validator->Bool(value); }
    bool RawNumber(const char *text, SizeType length, bool)
    {
        return At("number ", {text, length}) && ReportNumber({text, length}, validator);
    }
    bool String(const char *text, SizeType length, bool copy)
    {
        return At("string ", {text, length}) && validator->String(text, length, copy);
    }
    bool Key(const char *text, SizeType length, bool copy)
    {
        return At("member ", {text, length}) && validator->Key(text, length, copy);
    }
    bool StartObject() { return Open("object ") && validator->StartObject(); }
    bool StartArray() { return Open("array ") && validator->StartArray(); }
    bool EndObject(SizeType count) { return Close("object ") && validator->EndObject(count); }
    bool EndArray(SizeType count) { return Close("array ") && validator->EndArray(count); }
    // Never called: numbers come as text.
    bool Int(int) { return false; }
    bool Uint(unsigned) { return false; }
    bool Int64(int64_t) { return false; }
    bool Uint64(uint64_t) { return false; }
    bool Double(double) { return false; }

    bool At(const char *kind, std::string_view text)
    {
        found_kind = kind;
        found = text;
        return true;
    }

    bool Open(const char *kind)
    {
        starts->push_back(stream->Tell());
        return At(kind, document.substr(starts->back()));
    }

    bool Close(const char *kind)
    {
        size_t start = starts->back();
        starts->pop_back();
        return At(kind, document.substr(start, stream->Tell() + 1 - start));
    }

    Validator *validator;
    const rapidjson::MemoryStream *stream;
    std::vector<size_t> *starts;
    std::string_view document;
    const char *found_kind = "";
    std::string_view found{};
};

bool
IsShown(std::string_view keyword)
{
    for (std::string_view other : {"allOf", "anyOf", "oneOf", "not", "items", "additionalItems",
                                   "dependencies", "patternProperties", "pattern"})
        if (keyword == other)
            return false;
    return true;
}

// Short JSON of a rule: a number, a name, a list of these.
void
AppendJson(const SchemaValue &value, std::string *text)
{
    if (value.IsString())
        text->append("\"").append(TextOf(value)).append("\"");
    else if (value.IsBool())
        text->append(value.GetBool() ? "true" : "false");
    else if (value.IsNull())
        text->append("null");
    else if (value.IsUint64())
        text->append(std::to_string(value.GetUint64()));
    else if (value.IsInt64())
        text->append(std::to_string(value.GetInt64()));
    else if (value.IsNumber()) {
        char digits[32];
        auto end = std::to_chars(digits, digits + sizeof(digits), value.GetDouble()).ptr;
        text->append(digits, end);
    } else if (value.IsArray()) {
        for (SizeType i = 0; i < value.Size(); i++) {
            text->append(i == 0 ? "[" : ", ");
            AppendJson(value[i], text);
        }
        text->append("]");
    }
}

template <typename RapidPointer>
std::string
TextOfPointer(const RapidPointer &pointer)
{
    std::string text;
    for (size_t i = 0; i < pointer.GetTokenCount(); i++) {
        const auto &token = pointer.GetTokens()[i];
        AppendToken({token.name, token.length}, &text);
    }
    return text;
}

} // namespace

class Schema::Impl {
  public:
    explicit Impl(std::string_view schema)
    {
        if (auto fault = WalkSchema(schema, &checked_)) {
            trouble_ = "the schema cannot be used: " + fault->message;
            return;
        }
        compiled_.emplace(checked_.dom, nullptr, &allocator_);
        NewValidator();
    }

    bool Judge(std::string_view document, Arena &arena, Reject *reject)
    {
        constexpr unsigned kFlags =
            rapidjson::kParseIterativeFlag | rapidjson::kParseNumbersAsStringsFlag;
        if (!compiled_.has_value())
            return GiveUp(trouble_, arena, reject);
        starts_.clear();
        rapidjson::MemoryStream stream(document.data(), document.size());
        ValidatorEvents events{validator_.get(), &stream, &starts_, document};
        try {
            validator_->Reset();
            if (!reader_.Parse<kFlags>(stream, events).IsError())
                return true;
            return Refused(events, arena, reject);
        } catch (const RapidJsonAssertion &failed) { // nothing is known to get here
            Abandon();
            return GiveUp(failed.what(), arena, reject);
        } catch (...) {
            Abandon();
            throw;
        }
    }

  private:
    void NewValidator() { validator_ = std::make_unique<Validator>(*compiled_, &allocator_); }

    // An exception went through it: some of what it would free is not there yet.
    void Abandon()
    {
        (void)validator_.release();
        NewValidator();
    }

    static bool GiveUp(std::string_view why, Arena &arena, Reject *reject)
    {
        Message message;
        message.Add("the validator gave up: ").AddExcerpt(why);
        return Refuse(RejectCode::kSchema, message, nullptr, arena, reject);
    }

    bool Refused(const ValidatorEvents &events, Arena &arena, Reject *reject) const
    {
        Pointer path;
        auto where = validator_->GetInvalidDocumentPointer();
        for (size_t i = 0; i < where.GetTokenCount(); i++)
            path.AddName({where.GetTokens()[i].name, where.GetTokens()[i].length});

        auto rule = validator_->GetInvalidSchemaPointer();
        const char *known = validator_->GetInvalidSchemaKeyword();
        std::string_view keyword = known == nullptr ? "" : known;
        if (keyword == "items")
            keyword = "additionalItems"; // the only way an array's own items can be refused there
        Message message;
        message.Add("breaks #").AddExcerpt(RuleOf(TextOfPointer(rule)));
        message.Add("/").Add(keyword);
        std::string expected = ExpectedBy(rule.Get(checked_.dom), keyword);
        if (!expected.empty())
            message.Add(", expected ").AddExcerpt(expected);
        message.Add(", found ").Add(events.found_kind).AddExcerpt(events.found);
        return Refuse(RejectCode::kSchema, message, &path, arena, reject);
    }

    // In the schema as it was set.
    std::string RuleOf(const std::string &place) const
    {
        auto origin = checked_.origins.find(place);
        return origin == checked_.origins.end() ? place : origin->second;
    }

    static std::string ExpectedBy(const SchemaValue *schema, std::string_view keyword)
    {
        std::string text;
        if (schema == nullptr || !schema->IsObject() || !IsShown(keyword))
            return text;
        for (auto member = schema->MemberBegin(); member != schema->MemberEnd(); ++member)
            if (TextOf(member->name) == keyword)
                AppendJson(member->value, &text);
        return text;
    }

    CheckedSchema checked_;
    std::string trouble_;
    RapidJsonAllocator allocator_;
    std::optional<Compiled> compiled_;
    std::unique_ptr<Validator> validator_;
    rapidjson::GenericReader<rapidjson::UTF8<>, rapidjson::UTF8<>, RapidJsonAllocator> reader_;
    std::vector<size_t> starts_;
};

Schema::Schema(std::string_view schema) : impl_(std::make_unique<Impl>(schema)) {}

Schema::~Schema() = default;

bool
Schema::Judge(std::string_view document, Arena &arena, Reject *reject)
{
    return impl_->Judge(document, arena, reject);
}

// Compiles it as well, in a guarded call: what the walk let through must not fail later.
std::optional<SchemaFault>
CheckSchema(std::string_view schema)
{
    CheckedSchema checked;
    if (auto fault = WalkSchema(schema, &checked))
        return fault;
    try {
        RapidJsonAllocator allocator;
        Compiled compiled(checked.dom, nullptr, &allocator);
        return std::nullopt;
    } catch (const RapidJsonAssertion &failed) {
        return SchemaFault{"", std::string("the schema cannot be compiled: ") + failed.what(), ""};
    }
}

} // namespace pulse::decode
