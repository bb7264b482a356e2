// The walk over a JSON Schema; see schema_check.hpp for what is refused and why. One function per
// kind of keyword; each adds to the new schema what RapidJSON's validator is to see of it.
#include "decode/schema_walk.hpp"

#include <algorithm>
#include <vector>

#include "decode/schema_pattern.hpp"
#include "decode/schema_pointer.hpp"
#include "decode/rapidjson_prelude.hpp"

namespace pulse::decode {

namespace {

using rapidjson::SizeType;

constexpr int kMaxJsonDepth = 256;
constexpr int kMaxWork = 10000; // subschemas looked at, those in definitions too

const char *
KindOf(const SchemaValue &value)
{
    constexpr const char *kNames[] = {"null",     "false",    "true",    "an object",
                                      "an array", "a string", "a number"};
    return kNames[value.GetType()];
}

class Walker {
  public:
    explicit Walker(CheckedSchema *checked) : checked_(checked) {}

    void Run(std::string_view text)
    {
        if (text.size() > kMaxSchemaBytes)
            Refuse("", "the schema is longer than 256 kB");
        if (!ParseSchemaJson(text, kMaxJsonDepth, &source_))
            Refuse("",
                   "no JSON, nested deeper than 256 levels, or with a number no double can hold");
        SchemaValue normal = Walk(source_, "", "", 1);
        static_cast<SchemaValue &>(checked_->dom) = normal; // moves
        if (!nested_id_.empty() && has_reference_)
            Refuse(nested_id_, "\"id\" below the root changes what $ref means",
                   "Leave it out: pulse follows references into this document only.");
    }

  private:
    // The subschema being walked.
    struct Site {
        const SchemaValue &schema;
        const std::string &pointer; // into the schema as it was given
        const std::string &place;   // into the new one
        int depth;
        SchemaValue *normal;
    };
    using Keyword = void (Walker::*)(const Site &site, std::string_view name,
                                     const SchemaValue &value);
    struct Known {
        std::string_view name;
        Keyword check;
    };

    [[noreturn]] static void Refuse(const std::string &pointer, const std::string &message,
                                    const std::string &hint = "")
    {
        throw SchemaFault{pointer, message, hint};
    }

    static void Require(bool is_right, const Site &site, std::string_view name,
                        const SchemaValue &value, const char *expected)
    {
        if (!is_right)
            Refuse(Join(site.pointer, name),
                   std::string("expected ") + expected + ", found " + KindOf(value));
    }

    SchemaValue Walk(const SchemaValue &schema, const std::string &pointer,
                     const std::string &place, int depth)
    {
        if (!schema.IsObject())
            Refuse(pointer,
                   std::string("expected a schema, which is an object, found ") + KindOf(schema));
        if (depth > kMaxSchemaDepth)
            Refuse(pointer, "subschemas are nested deeper than 64 levels");
        if (++subschemas_ > kMaxSubschemas || ++work_ > kMaxWork)
            Refuse(pointer, "more than 1000 subschemas, each counted wherever a $ref leads to it");
        if (pointer != place && is_kept_)
            checked_->origins[place] = pointer;
        active_.push_back(pointer);
        SchemaValue normal(rapidjson::kObjectType);
        Site site{schema, pointer, place, depth, &normal};
        if (const SchemaValue *reference = Member(schema, "$ref")) {
            normal = Follow(site, *reference);
        } else {
            for (auto member = schema.MemberBegin(); member != schema.MemberEnd(); ++member)
                Check(site, TextOf(member->name), member->value);
            CheckTogether(site);
        }
        active_.pop_back();
        return normal;
    }

    void Check(const Site &site, std::string_view name, const SchemaValue &value)
    {
        for (const Known &known : Keywords())
            if (known.name == name)
                return (this->*known.check)(site, name, value);
        Refuse(Join(site.pointer, name),
               "\"" + std::string(name.substr(0, 64)) + "\" is no keyword of JSON Schema draft 4",
               HintFor(name));
    }

    static std::string HintFor(std::string_view name)
    {
        if (name == "const")
            return "Say \"enum\" with one value.";
        if (name == "$defs")
            return "Draft 4 calls it \"definitions\".";
        if (name == "dependentRequired" || name == "dependentSchemas")
            return "Draft 4 calls it \"dependencies\".";
        if (name == "$comment" || name == "examples")
            return "Say \"description\".";
        return "pulse judges by draft 4 of JSON Schema.";
    }

    static const std::vector<Known> &Keywords()
    {
        // Never destroyed: nothing of ours may run when a process exits.
        static const std::vector<Known> *const known = new std::vector<Known>{
            {"$schema", &Walker::Version},
            {"additionalItems", &Walker::AdditionalItems},
            {"additionalProperties", &Walker::AdditionalProperties},
            {"allOf", &Walker::Schemas},
            {"anyOf", &Walker::Schemas},
            {"default", &Walker::Anything},
            {"definitions", &Walker::Definitions},
            {"dependencies", &Walker::Dependencies},
            {"description", &Walker::Text},
            {"enum", &Walker::Enum},
            {"exclusiveMaximum", &Walker::Exclusive},
            {"exclusiveMinimum", &Walker::Exclusive},
            {"format", &Walker::Text},
            {"id", &Walker::Id},
            {"items", &Walker::Items},
            {"maxItems", &Walker::Count},
            {"maxLength", &Walker::Count},
            {"maxProperties", &Walker::Count},
            {"maximum", &Walker::Limit},
            {"minItems", &Walker::Count},
            {"minLength", &Walker::Count},
            {"minProperties", &Walker::Count},
            {"minimum", &Walker::Limit},
            {"multipleOf", &Walker::MultipleOf},
            {"not", &Walker::OneSchema},
            {"oneOf", &Walker::Schemas},
            {"pattern", &Walker::Pattern},
            {"patternProperties", &Walker::PatternProperties},
            {"properties", &Walker::Properties},
            {"required", &Walker::Required},
            {"title", &Walker::Text},
            {"type", &Walker::Type},
            {"uniqueItems", &Walker::UniqueItems},
        };
        return *known;
    }

    // ---- what comes out ----

    SchemaPool &pool() { return checked_->dom.GetAllocator(); }

    SchemaValue NewText(std::string_view text)
    {
        return SchemaValue(text.data(), static_cast<SizeType>(text.size()), pool());
    }

    void Keep(const Site &site, std::string_view name, SchemaValue value)
    {
        site.normal->AddMember(NewText(name), value, pool());
    }

    void KeepCopy(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Keep(site, name, SchemaValue(value, pool()));
    }

    SchemaValue Below(const Site &site, std::string_view name, const SchemaValue &schema)
    {
        return Walk(schema, Join(site.pointer, name), Join(site.place, name), site.depth + 1);
    }

    SchemaValue Below(const Site &site, std::string_view name, SizeType index,
                      const SchemaValue &schema)
    {
        return Walk(schema, Join(Join(site.pointer, name), index),
                    Join(Join(site.place, name), index), site.depth + 1);
    }

    SchemaValue Below(const Site &site, std::string_view name, std::string_view member,
                      std::string_view new_member, const SchemaValue &schema)
    {
        return Walk(schema, Join(Join(site.pointer, name), member),
                    Join(Join(site.place, name), new_member), site.depth + 1);
    }

    // ---- annotations ----

    void Anything(const Site &, std::string_view, const SchemaValue &) {}

    void Text(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsString(), site, name, value, "a string");
    }

    void Id(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Text(site, name, value);
        if (!site.pointer.empty() && nested_id_.empty())
            nested_id_ = Join(site.pointer, name);
    }

    void Version(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Text(site, name, value);
        std::string_view uri = TextOf(value);
        if (uri.ends_with('#'))
            uri.remove_suffix(1);
        if (uri != "http://json-schema.org/draft-04/schema" &&
            uri != "https://json-schema.org/draft-04/schema" &&
            uri != "http://json-schema.org/schema")
            Refuse(Join(site.pointer, name), "another version of JSON Schema than draft 4",
                   "Say \"http://json-schema.org/draft-04/schema#\", and write it so.");
    }

    // Checked where they stand; used where a reference leads to them.
    void Definitions(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsObject(), site, name, value, "an object of schemas");
        const bool was_kept = std::exchange(is_kept_, false);
        const size_t before = subschemas_;
        for (auto member = value.MemberBegin(); member != value.MemberEnd(); ++member) {
            (void)Below(site, name, TextOf(member->name), TextOf(member->name), member->value);
            subschemas_ = before;
        }
        is_kept_ = was_kept;
    }

    // ---- references ----

    SchemaValue Follow(const Site &site, const SchemaValue &value)
    {
        const std::string here = Join(site.pointer, "$ref");
        Require(value.IsString(), site, "$ref", value, "a string");
        has_reference_ = true;
        const Referred found = FollowReference(source_, TextOf(value), here);
        if (std::find(active_.begin(), active_.end(), found.pointer) != active_.end())
            Refuse(here, "the reference leads back to itself",
                   "Schemas that contain themselves are not supported: write out as many levels "
                   "as events have.");
        return Walk(*found.value, found.pointer, site.place, site.depth + 1);
    }

    // ---- any type ----

    void Type(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsString() || (value.IsArray() && value.Size() > 0), site, name, value,
                "the name of a type, or an array of such names");
        if (value.IsArray()) {
            for (SizeType i = 0; i < value.Size(); i++) {
                CheckType(Join(Join(site.pointer, name), i), value[i]);
                RefuseSame(site, name, value, i);
            }
        } else {
            CheckType(Join(site.pointer, name), value);
        }
        KeepCopy(site, name, value);
    }

    static void CheckType(const std::string &pointer, const SchemaValue &value)
    {
        for (std::string_view known :
             {"array", "boolean", "integer", "null", "number", "object", "string"})
            if (value.IsString() && TextOf(value) == known)
                return;
        Refuse(pointer, "no type of JSON Schema",
               "array, boolean, integer, null, number, object or string.");
    }

    static void RefuseSame(const Site &site, std::string_view name, const SchemaValue &array,
                           SizeType index)
    {
        for (SizeType i = 0; i < index; i++)
            if (TextOf(array[i]) == TextOf(array[index]))
                Refuse(Join(Join(site.pointer, name), index), "it is there twice");
    }

    void Enum(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsArray() && value.Size() > 0, site, name, value, "an array of values");
        for (SizeType i = 0; i < value.Size(); i++)
            if (value[i].IsObject() || value[i].IsArray())
                Refuse(Join(Join(site.pointer, name), i),
                       "objects and arrays in enum are not supported",
                       "Describe them with properties or items, one by one under anyOf.");
        KeepCopy(site, name, value);
    }

    void Schemas(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsArray() && value.Size() > 0, site, name, value,
                "an array of at least one schema");
        SchemaValue all(rapidjson::kArrayType);
        for (SizeType i = 0; i < value.Size(); i++)
            all.PushBack(Below(site, name, i, value[i]), pool());
        Keep(site, name, std::move(all));
    }

    void OneSchema(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Keep(site, name, Below(site, name, value));
    }

    // ---- numbers and lengths ----

    void Count(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsUint(), site, name, value, "an integer from 0 to 4294967295");
        KeepCopy(site, name, value);
    }

    void Limit(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsNumber(), site, name, value, "a number");
        KeepCopy(site, name, value);
    }

    void Exclusive(const Site &site, std::string_view name, const SchemaValue &value)
    {
        if (value.IsNumber())
            Refuse(Join(site.pointer, name), "expected true or false, found a number",
                   "In draft 4 the limit itself stands in minimum or maximum.");
        Require(value.IsBool(), site, name, value, "true or false");
        std::string limit = name == "exclusiveMinimum" ? "minimum" : "maximum";
        if (Member(site.schema, limit) == nullptr)
            Refuse(Join(site.pointer, name), "there is no " + limit + " beside it");
        KeepCopy(site, name, value);
    }

    void MultipleOf(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsNumber(), site, name, value, "a number");
        if (!value.IsUint64() || value.GetUint64() == 0)
            Refuse(Join(site.pointer, name), "only integers above 0 are supported",
                   "Fractions such as 0.01 have no exact binary form: send integers (cents), or "
                   "let a numeric column with a scale say how many decimals there are.");
        KeepCopy(site, name, value);
    }

    void Pattern(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsString(), site, name, value, "a string");
        Keep(site, name, NewText(Translated(Join(site.pointer, name), TextOf(value))));
    }

    static std::string Translated(const std::string &pointer, std::string_view pattern)
    {
        auto translated = TranslatePattern(pattern);
        if (!translated.ok())
            Refuse(pointer, "a regular expression that is not supported: " + translated.message(),
                   "Classes, groups, alternatives, repetitions, \\d \\w \\s, and ^ and $ at both "
                   "ends are.");
        return translated.value();
    }

    // ---- arrays ----

    void Items(const Site &site, std::string_view name, const SchemaValue &value)
    {
        if (value.IsArray())
            Schemas(site, name, value);
        else
            OneSchema(site, name, value);
    }

    void AdditionalItems(const Site &site, std::string_view name, const SchemaValue &value)
    {
        const SchemaValue *items = Member(site.schema, "items");
        bool has_meaning = items != nullptr && items->IsArray();
        Require(value.IsBool() || value.IsObject(), site, name, value, "true, false or a schema");
        SchemaValue kept = value.IsBool() ? SchemaValue(value, pool()) : Below(site, name, value);
        if (has_meaning)
            Keep(site, name, std::move(kept));
    }

    void UniqueItems(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsBool(), site, name, value, "true or false");
        if (value.GetBool())
            Refuse(Join(site.pointer, name), "uniqueItems is not supported",
                   "Its price grows with the square of the array's length: check it in a "
                   "constraint of the table.");
    }

    // ---- objects ----

    void Properties(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsObject(), site, name, value, "an object of schemas");
        SchemaValue all(rapidjson::kObjectType);
        for (auto member = value.MemberBegin(); member != value.MemberEnd(); ++member) {
            std::string_view property = TextOf(member->name);
            SchemaValue below = Below(site, name, property, property, member->value);
            all.AddMember(NewText(property), below, pool());
        }
        Keep(site, name, std::move(all));
    }

    void PatternProperties(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsObject(), site, name, value, "an object of schemas");
        SchemaValue all(rapidjson::kObjectType);
        for (auto member = value.MemberBegin(); member != value.MemberEnd(); ++member) {
            std::string_view pattern = TextOf(member->name);
            std::string translated = Translated(Join(Join(site.pointer, name), pattern), pattern);
            SchemaValue below = Below(site, name, pattern, translated, member->value);
            all.AddMember(NewText(translated), below, pool());
        }
        Keep(site, name, std::move(all));
    }

    void AdditionalProperties(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsBool() || value.IsObject(), site, name, value, "true, false or a schema");
        Keep(site, name, value.IsBool() ? SchemaValue(value, pool()) : Below(site, name, value));
    }

    void Required(const Site &site, std::string_view name, const SchemaValue &value)
    {
        CheckNames(value, Join(site.pointer, name));
        KeepCopy(site, name, value);
    }

    static void CheckNames(const SchemaValue &value, const std::string &pointer)
    {
        if (!value.IsArray() || value.Size() == 0)
            Refuse(pointer, std::string("expected an array of names, found ") + KindOf(value));
        for (SizeType i = 0; i < value.Size(); i++) {
            if (!value[i].IsString())
                Refuse(Join(pointer, i), std::string("expected a name, found ") + KindOf(value[i]));
            for (SizeType before = 0; before < i; before++)
                if (TextOf(value[before]) == TextOf(value[i]))
                    Refuse(Join(pointer, i), "it is there twice");
        }
    }

    void Dependencies(const Site &site, std::string_view name, const SchemaValue &value)
    {
        Require(value.IsObject(), site, name, value, "an object");
        SchemaValue all(rapidjson::kObjectType);
        for (auto member = value.MemberBegin(); member != value.MemberEnd(); ++member) {
            std::string_view property = TextOf(member->name);
            SchemaValue kept;
            if (member->value.IsArray()) {
                CheckNames(member->value, Join(Join(site.pointer, name), property));
                kept = SchemaValue(member->value, pool());
            } else {
                kept = Below(site, name, property, property, member->value);
            }
            all.AddMember(NewText(property), kept, pool());
        }
        Keep(site, name, std::move(all));
    }

    // What RapidJSON judges wrongly together.
    void CheckTogether(const Site &site)
    {
        const SchemaValue *additional = Member(site.schema, "additionalProperties");
        if (additional == nullptr || (additional->IsBool() && additional->GetBool()))
            return;
        if (Member(site.schema, "patternProperties") != nullptr)
            Refuse(Join(site.pointer, "patternProperties"),
                   "patternProperties beside additionalProperties is not supported",
                   "Name the properties, or leave additionalProperties out.");
        if (const SchemaValue *required = Member(site.schema, "required"))
            RequireProperties(site, *required, Join(site.pointer, "required"));
        const SchemaValue *dependencies = Member(site.schema, "dependencies");
        if (dependencies == nullptr)
            return;
        const std::string pointer = Join(site.pointer, "dependencies");
        for (auto member = dependencies->MemberBegin(); member != dependencies->MemberEnd();
             ++member) {
            const std::string here = Join(pointer, TextOf(member->name));
            RequireProperty(site, TextOf(member->name), here);
            if (member->value.IsArray())
                RequireProperties(site, member->value, here);
        }
    }

    static void RequireProperties(const Site &site, const SchemaValue &names,
                                  const std::string &pointer)
    {
        for (SizeType i = 0; i < names.Size(); i++)
            RequireProperty(site, TextOf(names[i]), Join(pointer, i));
    }

    static void RequireProperty(const Site &site, std::string_view name, const std::string &pointer)
    {
        const SchemaValue *properties = Member(site.schema, "properties");
        if (properties == nullptr || Member(*properties, name) == nullptr)
            Refuse(pointer,
                   "\"" + std::string(name.substr(0, 64)) +
                       "\" is not in properties, and additionalProperties is not true",
                   "Name it in properties beside it, even if as {}.");
    }

    CheckedSchema *checked_;
    SchemaDom source_;
    std::vector<std::string> active_; // pointers of the subschemas around the one being walked
    std::string nested_id_;
    bool has_reference_ = false;
    bool is_kept_ = true; // not while only definitions are checked
    size_t subschemas_ = 0;
    int work_ = 0;
};

} // namespace

std::optional<SchemaFault>
WalkSchema(std::string_view schema, CheckedSchema *checked)
{
    try {
        Walker(checked).Run(schema);
        return std::nullopt;
    } catch (SchemaFault &fault) {
        return std::move(fault);
    }
}

} // namespace pulse::decode
