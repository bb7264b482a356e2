// One pass over a document: RapidJSON checks the grammar and reports what it meets, the scanner
// refuses what RapidJSON lets pass (duplicate names, depth, number ranges, halves of surrogates)
// and remembers where the values of the mapping's paths stand. No DOM, no recursion, no copies:
// values are slices of the document.
//
// The first fault in reading order wins. The document itself is the first level of max_depth. What
// is kept between documents is at most some ten times the longest one.
// Called by Decoder only, which has checked the UTF-8.
// Regime: C++. Errors: a Reject; std::bad_alloc.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/arena.hpp"
#include "decode/json_text.hpp"
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
    friend struct ScannerEvents; // hands on what RapidJSON reports
    using Reader =
        rapidjson::GenericReader<rapidjson::UTF8<>, rapidjson::UTF8<>, RapidJsonAllocator>;

    // An object or array that is still open.
    struct Frame {
        const char *start;
        const char *member_start; // objects: the quote before the current member's name
        int32_t node;             // where its value is wanted, or PathTree::kNone
        uint32_t index;           // arrays: of the current element
        bool is_object;
        bool is_in_member; // objects: between a name and the end of its value
        KeyIndex::Object names;
    };

    bool OnName(const char *text, uint32_t length);
    bool OnString(const char *text, uint32_t length);
    bool OnNumber(const char *text, uint32_t length);
    bool OnOpen(bool is_object, const char *start);
    bool OnClose(const char *end);
    bool OnValue(const JsonValue &value, int32_t node);
    int32_t ElementNode(const Frame &frame) const;
    bool HasEscape(std::string_view inner) const;
    bool FailEscape(const EscapeCheck &check, std::string_view inner);
    bool FailParse(rapidjson::ParseErrorCode code, size_t offset);
    bool FailHere(RejectCode code, const Message &message);
    Pointer PathHere() const;

    const PathTree &tree_;
    const size_t max_depth_;
    const uint64_t hash_seed_;
    Reader reader_;

    std::string_view document_;
    size_t base_ = 0;
    Arena *arena_ = nullptr;
    Reject *reject_ = nullptr;
    bool may_have_escapes_ = false;
    int32_t pending_node_ = PathTree::kNone; // of the value that comes next

    std::vector<Frame> frames_;
    KeyIndex keys_;
    JsonValue top_;
    std::vector<JsonValue> values_; // by node
    std::vector<LooseMember> loose_members_;
    KeyIndex::Object rest_object_;
};

} // namespace pulse::decode
