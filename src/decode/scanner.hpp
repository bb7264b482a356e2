// One pass over a document: RapidJSON checks the grammar and reports what it meets, the scanner
// refuses what RapidJSON lets pass (duplicate names, depth, number ranges, halves of surrogates) and
// remembers where the values of the mapping's paths stand. No DOM, no recursion, no copies: values
// are slices of the document.
//
// The first fault in reading order wins. Called by Decoder only, which has checked the UTF-8.
// Regime: C++. Errors: a Reject; std::bad_alloc.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/arena.hpp"
#include "decode/key_index.hpp"
#include "decode/message.hpp"
#include "decode/path_tree.hpp"
#include "decode/rapidjson_prelude.hpp"

namespace pulse::decode {

enum class JsonKind : uint8_t { kAbsent, kNull, kFalse, kTrue, kNumber, kString, kObject, kArray };

// A value as the document spells it: strings with their quotes, containers with their brackets.
struct JsonValue {
    const char *text = nullptr;
    uint32_t length = 0;
    JsonKind kind = JsonKind::kAbsent;
    bool has_escape = false; // strings only

    std::string_view view() const { return {text, length}; }
    std::string_view inner() const { return {text + 1, length - 2}; } // strings and containers
};

// A top-level member that no column takes whole.
struct LooseMember {
    const char *text; // from the quote before the name to the end of the value
    uint32_t length;
    uint32_t key;        // position in keys()
    bool is_partly_used; // some column takes a value inside
};

class Scanner {
  public:
    Scanner(const PathTree &tree, int max_depth, uint64_t hash_seed);

    // Reads one document, which stands base bytes into the record's value (for the offsets in
    // messages). False: *reject is filled, the results are undefined.
    bool Scan(std::string_view document, size_t base, Arena &arena, Reject *reject);

    // Results, valid until the next Scan and as long as document and arena.
    const JsonValue &top() const { return top_; }
    const JsonValue &value(int32_t node) const { return values_[static_cast<size_t>(node)]; }
    const std::vector<LooseMember> &loose_members() const { return loose_members_; }
    const KeyIndex &keys() const { return keys_; }
    const KeyIndex::Object &rest_object() const { return rest_object_; } // if value is an object

  private:
    class Stream;
    struct Handler;
    using Reader = rapidjson::GenericReader<rapidjson::UTF8<>, rapidjson::UTF8<>,
                                            RapidJsonAllocator>;

    // An object or array that is still open.
    struct Frame {
        const char *start;
        int32_t node;       // where its value is wanted, or PathTree::kNone
        bool is_object;
        uint32_t index;     // of the current element, arrays only
        uint32_t parent_key_length;
        KeyIndex::Object names;
        // The member being read, in the innermost object: where its raw name begins.
        const char *member_start;
        int32_t member_node;
    };

    bool OnKey(const char *text, uint32_t length, Arena &arena);
    bool OnString(const char *text, uint32_t length);
    bool OnNumber(const char *text, uint32_t length);
    bool OnOpen(JsonKind kind, const char *start);
    bool OnClose(JsonKind kind, const char *end);
    void OnValue(JsonKind kind, const char *text, const char *end, bool has_escape);

    bool Fail(RejectCode code, const Message &message);
    bool FailEscape(const EscapeCheckView &fault);
    void PathHere(Pointer *pointer) const;

    const PathTree &tree_;
};

} // namespace pulse::decode
