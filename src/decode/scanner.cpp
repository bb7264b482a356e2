// The pass over a document; see scanner.hpp. RapidJSON runs iteratively, with numbers left as text:
// that is the one branch of its 1.1.0 that never calls Strtod, which a thirty-byte number can send
// out of bounds.
#include "decode/scanner.hpp"

#include <bit>
#include <cstring>

namespace pulse::decode {

namespace {

// RapidJSON's in-situ parsing without the writing: it hands the handler the place of each string in
// the document and this stream ignores the unescaped characters it puts there. Bounded by end, for
// payloads have no NUL behind them. Put() is where the time goes: each call jumps over all the
// plain characters that follow, eight at a time.
class SliceStream {
  public:
    using Ch = char;

    explicit SliceStream(std::string_view document)
        : next_(document.data()), begin_(document.data()), end_(document.data() + document.size())
    {
    }

    char Peek() const { return next_ == end_ ? '\0' : *next_; }
    char Take() { return next_ == end_ ? '\0' : *next_++; }
    size_t Tell() const { return static_cast<size_t>(next_ - begin_); }
    const char *position() const { return next_; }

    char *PutBegin() { return const_cast<char *>(next_); }

    // RapidJSON counts the NUL it puts behind a string; the closing quote stands in for it.
    size_t PutEnd(char *start) { return static_cast<size_t>(next_ - start); }

    void Put(char character)
    {
        if (character != '\0') // NUL comes after the closing quote, where skipping would be wrong
            SkipPlain();
    }

    void Flush() {}

  private:
    // To the next quote, backslash or control character. In each byte of a word: x ^ c is zero
    // where x is c, and subtracting borrows into the high bit of a byte that is smaller; borrows
    // beyond that byte only spoil higher ones, so the lowest mark is exact.
    void SkipPlain()
    {
        constexpr uint64_t kOnes = 0x0101010101010101;
        constexpr uint64_t kHigh = 0x8080808080808080;
        const char *next = next_;
        for (; end_ - next >= 8; next += 8) {
            uint64_t word;
            std::memcpy(&word, next, sizeof(word));
            uint64_t quotes = word ^ kOnes * '"';
            uint64_t backslashes = word ^ kOnes * '\\';
            uint64_t marks = ((quotes - kOnes) & ~quotes) | ((backslashes - kOnes) & ~backslashes) |
                             ((word - kOnes * 0x20) & ~word);
            marks &= kHigh;
            if (marks == 0)
                continue;
            if constexpr (std::endian::native == std::endian::little) {
                next_ = next + std::countr_zero(marks) / 8;
                return;
            }
            break;
        }
        while (next != end_ && *next != '"' && *next != '\\' &&
               static_cast<unsigned char>(*next) >= 0x20)
            next++;
        next_ = next;
    }

    const char *next_;
    const char *begin_;
    const char *end_;
};

constexpr size_t kSyntaxExcerptBytes = 24;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

const char *
DescribeParseError(rapidjson::ParseErrorCode code)
{
    switch (code) {
    case rapidjson::kParseErrorDocumentEmpty:
        return "expected a JSON value";
    case rapidjson::kParseErrorDocumentRootNotSingular:
        return "expected nothing after the JSON value";
    case rapidjson::kParseErrorObjectMissName:
        return "expected a member name";
    case rapidjson::kParseErrorObjectMissColon:
        return "expected a colon after a member name";
    case rapidjson::kParseErrorObjectMissCommaOrCurlyBracket:
        return "expected a comma or } after a member";
    case rapidjson::kParseErrorArrayMissCommaOrSquareBracket:
        return "expected a comma or ] after an element";
    case rapidjson::kParseErrorStringUnicodeEscapeInvalidHex:
        return "expected four hexadecimal digits after \\u";
    case rapidjson::kParseErrorStringEscapeInvalid:
        return "invalid escape or control character in a string";
    case rapidjson::kParseErrorStringMissQuotationMark:
        return "expected a quote that ends the string";
    case rapidjson::kParseErrorNumberMissFraction:
        return "expected a digit after the decimal point";
    case rapidjson::kParseErrorNumberMissExponent:
        return "expected a digit in the exponent";
    default:
        return "expected a JSON value";
    }
}

} // namespace

} // namespace pulse::decode

// Parse loops work on a copy of the stream, which stays in registers. RapidJSON's numbers in situ
// depend on it: they ask the original, still at the first digit, for PutBegin().
template <> struct rapidjson::StreamTraits<pulse::decode::SliceStream> {
    enum { copyOptimization = 1 };
};

namespace pulse::decode {

// RapidJSON's handler concept. Strings and numbers come as slices; for everything else the stream
// says where the parser is: behind a literal, before a bracket.
struct ScannerEvents : rapidjson::BaseReaderHandler<rapidjson::UTF8<>, ScannerEvents> {
    ScannerEvents(Scanner &target, const SliceStream &source) : scanner(target), stream(source) {}

    bool Null() { return Literal(JsonKind::kNull, 4); }
    bool Bool(bool value)
    {
        return value ? Literal(JsonKind::kTrue, 4) : Literal(JsonKind::kFalse, 5);
    }
    bool Key(const char *text, unsigned length, bool) { return scanner.OnName(text, length); }
    bool String(const char *text, unsigned length, bool) { return scanner.OnString(text, length); }
    bool RawNumber(const char *text, unsigned length, bool)
    {
        return scanner.OnNumber(text, length);
    }
    bool StartObject() { return scanner.OnOpen(true, stream.position()); }
    bool StartArray() { return scanner.OnOpen(false, stream.position()); }
    bool EndObject(unsigned) { return scanner.OnClose(stream.position() + 1); }
    bool EndArray(unsigned) { return scanner.OnClose(stream.position() + 1); }

    bool Literal(JsonKind kind, uint32_t length)
    {
        return scanner.OnValue({stream.position() - length, length, kind, false},
                               scanner.pending_node_);
    }

    Scanner &scanner;
    const SliceStream &stream;
};

Scanner::Scanner(const PathTree &tree, int max_depth, uint64_t hash_seed)
    : tree_(tree), max_depth_(max_depth > 0 ? static_cast<size_t>(max_depth) : 0),
      hash_seed_(hash_seed), values_(tree.size())
{
}

bool
Scanner::Scan(std::string_view document, size_t base, Arena &arena, Reject *reject)
{
    constexpr unsigned kFlags = rapidjson::kParseIterativeFlag |
                                rapidjson::kParseNumbersAsStringsFlag | rapidjson::kParseInsituFlag;
    document_ = document;
    base_ = base;
    arena_ = &arena;
    reject_ = reject;
    may_have_escapes_ = document.find('\\') != std::string_view::npos;
    pending_node_ = PathTree::kNone;
    frames_.clear();
    keys_.Reset();
    top_ = {};
    values_.assign(values_.size(), JsonValue());
    loose_members_.clear();
    rest_object_ = {};

    SliceStream stream(document);
    ScannerEvents events(*this, stream);
    try {
        rapidjson::ParseResult result = reader_.Parse<kFlags>(stream, events);
        if (!result.IsError())
            return true;
        if (result.Code() == rapidjson::kParseErrorTermination)
            return false; // one of the events has filled the reject
        return FailParse(result.Code(), result.Offset());
    } catch (const RapidJsonAssertion &failed) { // no input is known to get here
        Message message;
        message.Add("the JSON parser gave up: ").AddExcerpt(failed.what());
        return Refuse(RejectCode::kSyntax, message, nullptr, arena, reject);
    }
}

bool
Scanner::OnName(const char *text, uint32_t length)
{
    std::string_view name(text, length);
    Frame &frame = frames_.back();
    if (HasEscape(name)) {
        EscapeCheck check = CheckEscapes(name);
        if (check.fault != EscapeFault::kNone)
            return FailEscape(check, name);
        char *unescaped = arena_->Allocate(length);
        name = {unescaped, Unescape(name, unescaped)};
    }
    uint32_t hash = HashName(name, hash_seed_);
    if (!keys_.Add(&frame.names, name, hash)) {
        Pointer path = PathHere();
        path.AddName(name);
        Message message;
        message.Add("duplicate member name \"").AddExcerpt(name).Add("\"");
        return Refuse(RejectCode::kDupKey, message, &path, *arena_, reject_);
    }
    frame.is_in_member = true;
    frame.member_start = text - 1;
    // The document's node is the root; a frame inside an unknown member or element has none.
    pending_node_ =
        frame.node == PathTree::kNone ? PathTree::kNone : tree_.Find(frame.node, name, hash);
    return true;
}

bool
Scanner::OnString(const char *text, uint32_t length)
{
    std::string_view inner(text, length);
    bool has_escape = HasEscape(inner);
    if (has_escape) {
        EscapeCheck check = CheckEscapes(inner);
        if (check.fault != EscapeFault::kNone)
            return FailEscape(check, inner);
    }
    return OnValue({text - 1, length + 2, JsonKind::kString, has_escape}, pending_node_);
}

bool
Scanner::OnNumber(const char *text, uint32_t length)
{
    if (!IsNumberInRange({text, length})) {
        Message message;
        message.Add("number out of range: ").AddExcerpt({text, length});
        return FailHere(RejectCode::kNumber, message);
    }
    return OnValue({text, length, JsonKind::kNumber, false}, pending_node_);
}

bool
Scanner::OnOpen(bool is_object, const char *start)
{
    if (frames_.size() >= max_depth_) {
        Message message;
        message.Add("nested deeper than ").AddSize(max_depth_).Add(" levels");
        return FailHere(RejectCode::kDepth, message);
    }
    Frame frame{};
    frame.start = start;
    frame.node = frames_.empty() ? PathTree::kRoot : pending_node_;
    frame.is_object = is_object;
    if (is_object)
        frame.names = keys_.Open();
    frames_.push_back(frame);
    pending_node_ = is_object ? PathTree::kNone : ElementNode(frame);
    return true;
}

bool
Scanner::OnClose(const char *end)
{
    Frame frame = frames_.back();
    frames_.pop_back();
    if (frame.node != PathTree::kNone && frame.is_object && tree_.node(frame.node).is_rest)
        rest_object_ = frame.names;
    JsonValue value;
    value.text = frame.start;
    value.length = static_cast<uint32_t>(end - frame.start);
    value.kind = frame.is_object ? JsonKind::kObject : JsonKind::kArray;
    return OnValue(value, frame.node);
}

// The end of a value of any kind, in the place that the innermost open frame says.
bool
Scanner::OnValue(const JsonValue &value, int32_t node)
{
    pending_node_ = PathTree::kNone;
    if (frames_.empty()) {
        top_ = value;
        return true;
    }
    if (node != PathTree::kNone)
        values_[static_cast<size_t>(node)] = value;
    Frame &frame = frames_.back();
    if (!frame.is_object) {
        frame.index++;
        pending_node_ = ElementNode(frame);
        return true;
    }
    frame.is_in_member = false;
    if (frames_.size() > 1)
        return true;
    bool is_known = node != PathTree::kNone;
    if (!is_known || (!tree_.node(node).is_column && !tree_.node(node).is_rest)) {
        const char *end = value.text + value.length;
        loose_members_.push_back({frame.member_start,
                                  static_cast<uint32_t>(end - frame.member_start), frame.names.last,
                                  is_known});
    }
    return true;
}

// Where the next element of an open array is wanted.
int32_t
Scanner::ElementNode(const Frame &frame) const
{
    return frame.node == PathTree::kNone ? PathTree::kNone
                                         : tree_.FindElement(frame.node, frame.index);
}

bool
Scanner::HasEscape(std::string_view inner) const
{
    return may_have_escapes_ && inner.find('\\') != std::string_view::npos;
}

bool
Scanner::FailEscape(const EscapeCheck &check, std::string_view inner)
{
    size_t offset = static_cast<size_t>(inner.data() - document_.data()) + check.offset;
    Message message;
    if (check.fault == EscapeFault::kNul) {
        message.Add("\\u0000 in a string at byte ").AddSize(base_ + offset);
        return FailHere(RejectCode::kNul, message);
    }
    message.Add("half a surrogate pair at byte ").AddSize(base_ + offset).Add(": ");
    message.AddExcerpt(document_.substr(offset, 6));
    return FailHere(RejectCode::kSurrogate, message);
}

// What RapidJSON itself found wrong.
bool
Scanner::FailParse(rapidjson::ParseErrorCode code, size_t offset)
{
    if (code == rapidjson::kParseErrorStringUnicodeSurrogateInvalid)
        return FailEscape({EscapeFault::kSurrogate, offset}, document_.substr(0, 0));
    Message message;
    if (code == rapidjson::kParseErrorNumberTooBig) {
        size_t end = document_.find_first_not_of("0123456789+-.eE", offset);
        message.Add("number out of range: ").AddExcerpt(document_.substr(offset, end - offset));
        return FailHere(RejectCode::kNumber, message);
    }
    message.Add(DescribeParseError(code));
    if (offset == 0 && document_.starts_with(kByteOrderMark)) {
        message.Add(", not a byte order mark, at byte ").AddSize(base_);
        return Refuse(RejectCode::kSyntax, message, nullptr, *arena_, reject_);
    }
    message.Add(" at byte ").AddSize(base_ + offset);
    if (offset >= document_.size())
        message.Add(", the end of the value");
    else
        message.Add(", found: ").AddExcerpt(document_.substr(offset, kSyntaxExcerptBytes));
    return Refuse(RejectCode::kSyntax, message, nullptr, *arena_, reject_);
}

bool
Scanner::FailHere(RejectCode code, const Message &message)
{
    Pointer path = PathHere();
    return Refuse(code, message, &path, *arena_, reject_);
}

Pointer
Scanner::PathHere() const
{
    Pointer path;
    for (const Frame &frame : frames_) {
        if (!frame.is_object)
            path.AddIndex(frame.index);
        else if (frame.is_in_member)
            path.AddName(keys_.name(frame.names.last));
    }
    return path;
}

} // namespace pulse::decode
