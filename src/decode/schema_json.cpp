#include "decode/schema_json.hpp"

#include "decode/json_text.hpp"
#include "decode/rapidjson_prelude.hpp"

namespace pulse::decode {

namespace {

using rapidjson::SizeType;

// Counts levels on the way into the tree.
struct DomEvents {
    bool Null() { return dom->Null(); }
    bool Bool(bool value) { return dom->Bool(value); }
    bool RawNumber(const char *text, SizeType length, bool)
    {
        return IsNumberInRange({text, length}) && ReportNumber({text, length}, dom);
    }
    bool String(const char *text, SizeType length, bool copy)
    {
        return dom->String(text, length, copy);
    }
    bool Key(const char *text, SizeType length, bool copy) { return dom->Key(text, length, copy); }
    bool StartObject() { return ++depth <= max_depth && dom->StartObject(); }
    bool StartArray() { return ++depth <= max_depth && dom->StartArray(); }
    bool EndObject(SizeType count) { return depth-- > 0 && dom->EndObject(count); }
    bool EndArray(SizeType count) { return depth-- > 0 && dom->EndArray(count); }
    // Never called: numbers come as text.
    bool Int(int value) { return dom->Int(value); }
    bool Uint(unsigned value) { return dom->Uint(value); }
    bool Int64(int64_t value) { return dom->Int64(value); }
    bool Uint64(uint64_t value) { return dom->Uint64(value); }
    bool Double(double value) { return dom->Double(value); }

    SchemaDom *dom;
    int max_depth;
    int depth = 0;
};

} // namespace

bool
ParseSchemaJson(std::string_view text, int max_depth, SchemaDom *dom)
{
    constexpr unsigned kFlags =
        rapidjson::kParseIterativeFlag | rapidjson::kParseNumbersAsStringsFlag;
    bool is_json = false;
    auto generate = [&](SchemaDom &target) {
        rapidjson::MemoryStream stream(text.data(), text.size());
        rapidjson::GenericReader<rapidjson::UTF8<>, rapidjson::UTF8<>, RapidJsonAllocator> reader;
        DomEvents events{&target, max_depth};
        is_json = !reader.Parse<kFlags>(stream, events).IsError();
        return is_json;
    };
    dom->Populate(generate);
    return is_json;
}

const SchemaValue *
Member(const SchemaValue &object, std::string_view name)
{
    for (auto member = object.MemberBegin(); member != object.MemberEnd(); ++member)
        if (TextOf(member->name) == name)
            return &member->value;
    return nullptr;
}

} // namespace pulse::decode
