// A recursive descent over the pattern that writes the translation as it goes; see
// schema_pattern.hpp.
#include "decode/schema_pattern.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/utf8.hpp"

namespace pulse::decode {

namespace {

constexpr int kMaxGroups = 32; // inside each other
constexpr uint32_t kMaxCount = 1000;
constexpr uint32_t kLastCharacter = 0x10FFFF;

struct Range {
    uint32_t first;
    uint32_t last;
};
using Ranges = std::vector<Range>;

Ranges
Digits()
{
    return {{'0', '9'}};
}

Ranges
WordCharacters()
{
    return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
}

Ranges
WhiteSpace()
{
    return {{9, 13},          {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
            {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
            {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
}

Ranges
LineEnds()
{
    return {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
}

// Of sorted ranges. NUL is in no text.
Ranges
Complement(const Ranges &ranges)
{
    Ranges result;
    uint32_t next = 1;
    for (const Range &range : ranges) {
        if (range.first > next)
            result.push_back({next, range.first - 1});
        next = range.last + 1;
    }
    result.push_back({next, kLastCharacter});
    return result;
}

void
AppendCharacter(uint32_t code_point, std::string *text)
{
    if (code_point < 0x80 &&
        std::string_view("^$|()?*+.[]{}\\").find(static_cast<char>(code_point)) !=
            std::string_view::npos)
        text->push_back('\\');
    char bytes[4];
    text->append(bytes, WriteUtf8(code_point, bytes));
}

// Every range with both its ends, even of one character: a "-" at an end is no operator then.
void
AppendClass(const Ranges &ranges, bool is_negated, std::string *text)
{
    text->append(is_negated ? "[^" : "[");
    for (const Range &range : ranges) {
        AppendCharacter(range.first, text);
        text->push_back('-');
        AppendCharacter(range.last, text);
    }
    text->push_back(']');
}

bool
IsAsciiLetterOrDigit(uint32_t character)
{
    return (character >= '0' && character <= '9') ||
           ((character | 0x20) >= 'a' && (character | 0x20) <= 'z');
}

// A part of the translation.
struct Part {
    std::string text;
    bool may_be_empty = false;
    size_t states = 0;
};

struct Refused {
    std::string why;
};

class Translator {
  public:
    explicit Translator(std::string_view pattern) : pattern_(pattern) {}

    std::string Translate()
    {
        const bool is_anchored = TakeIf('^');
        Part whole = Alternatives(0);
        const bool is_anchored_behind = TakeIf('$');
        if (!IsAtEnd())
            Refuse(Peek() == ')' ? "\")\" without \"(\"" : "\"$\" before the end");
        if ((is_anchored || is_anchored_behind) && has_alternatives_)
            Refuse("\"^\" and \"$\" beside alternatives: put those in parentheses");
        if (whole.states > kMaxPatternStates)
            Refuse("it is too large with its repetitions counted");
        if (whole.may_be_empty && !(is_anchored && is_anchored_behind))
            return "^.*$"; // it matches somewhere in any text
        if (whole.text.empty())
            Refuse("nothing but the empty text matches it: say \"maxLength\": 0");
        return (is_anchored ? "^(" : "^.*(") + whole.text + (is_anchored_behind ? ")$" : ")");
    }

  private:
    [[noreturn]] void Refuse(const std::string &why) const
    {
        throw Refused{why + ", at byte " + std::to_string(at_)};
    }

    bool IsAtEnd() const { return at_ == pattern_.size(); }
    char Peek() const { return IsAtEnd() ? '\0' : pattern_[at_]; }
    bool TakeIf(char wanted)
    {
        if (IsAtEnd() || pattern_[at_] != wanted)
            return false;
        at_++;
        return true;
    }

    uint32_t TakeCharacter()
    {
        auto byte = [this] { return static_cast<unsigned char>(pattern_[at_++]); };
        uint32_t first = byte();
        if (first < 0x80)
            return first;
        int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
        uint32_t code_point = first & (0x3F >> more);
        for (; more > 0 && !IsAtEnd(); more--)
            code_point = code_point << 6 | (byte() & 0x3F);
        return code_point;
    }

    Part Alternatives(int depth)
    {
        Part result = Sequence(depth);
        while (TakeIf('|')) {
            if (depth == 0)
                has_alternatives_ = true;
            Part other = Sequence(depth);
            if (result.may_be_empty && other.may_be_empty)
                Refuse("more than one alternative may be empty");
            result.text += "|" + other.text;
            result.may_be_empty |= other.may_be_empty;
            result.states += other.states + 1;
        }
        return result;
    }

    Part Sequence(int depth)
    {
        Part result;
        result.may_be_empty = true;
        while (!IsAtEnd() && Peek() != '|' && Peek() != ')') {
            if (Peek() == '$') {
                if (depth > 0)
                    Refuse("\"$\" before the end");
                break;
            }
            Part part = Repeated(depth);
            result.text += part.text;
            result.may_be_empty &= part.may_be_empty;
            result.states += part.states;
        }
        if (result.text.empty() && (depth > 0 || Peek() == '|' || has_alternatives_))
            Refuse("a group or an alternative without anything");
        return result;
    }

    Part Repeated(int depth)
    {
        Part part = Atom(depth);
        const size_t begin = at_;
        uint32_t least = 1, most = 1;
        bool has_most = true;
        if (TakeIf('?')) {
            least = 0;
        } else if (TakeIf('*')) {
            least = 0;
            has_most = false;
        } else if (TakeIf('+')) {
            has_most = false;
        } else if (TakeIf('{')) {
            TakeCounts(&least, &most, &has_most);
        } else {
            return part;
        }
        if (part.may_be_empty)
            Refuse("a repetition of what may be empty");
        part.text += pattern_.substr(begin, at_ - begin);
        (void)TakeIf('?'); // lazy or not is the same when nobody asks what matched
        if (Peek() == '?' || Peek() == '*' || Peek() == '+' || Peek() == '{')
            Refuse("a repetition of a repetition");
        part.states = (part.states + 1) * (has_most ? std::max<uint32_t>(most, 1) : least + 1);
        part.may_be_empty = least == 0;
        if (part.states > kMaxPatternStates)
            Refuse("it is too large with its repetitions counted");
        return part;
    }

    void TakeCounts(uint32_t *least, uint32_t *most, bool *has_most)
    {
        *least = TakeCount();
        *most = *least;
        if (TakeIf(',')) {
            *has_most = Peek() != '}';
            if (*has_most)
                *most = TakeCount();
        }
        if (!TakeIf('}'))
            Refuse("\"{\" that begins no {n}, {n,} or {n,m}: write \\{");
        if (*has_most && (*most < *least || *most == 0))
            Refuse("a repetition that never is");
    }

    uint32_t TakeCount()
    {
        uint32_t count = 0;
        if (Peek() < '0' || Peek() > '9')
            Refuse("\"{\" that begins no {n}, {n,} or {n,m}: write \\{");
        while (Peek() >= '0' && Peek() <= '9') {
            count = count * 10 + static_cast<uint32_t>(Peek() - '0');
            at_++;
            if (count > kMaxCount)
                Refuse("more than 1000 repetitions");
        }
        return count;
    }

    Part Atom(int depth)
    {
        Part part;
        part.states = 1;
        switch (Peek()) {
        case '(':
            return Group(depth);
        case '[':
            at_++;
            Class(&part.text);
            return part;
        case '.':
            at_++;
            AppendClass(LineEnds(), true, &part.text);
            return part;
        case '\\': {
            at_++;
            Ranges ranges;
            uint32_t character = 0;
            if (TakeEscape(&ranges, &character))
                AppendClass(ranges, false, &part.text);
            else
                AppendCharacter(character, &part.text);
            return part;
        }
        case '^':
            Refuse("\"^\" behind the begin");
        case '?':
        case '*':
        case '+':
            Refuse("a repetition of nothing");
        case '{':
        case '}':
        case ']':
            Refuse("a bracket that is no operator: write it with a backslash");
        default:
            AppendCharacter(TakeCharacter(), &part.text);
            return part;
        }
    }

    Part Group(int depth)
    {
        if (depth == kMaxGroups)
            Refuse("groups inside each other beyond 32 levels");
        at_++;
        if (TakeIf('?') && !TakeIf(':'))
            Refuse("look-ahead, look-behind or a named group");
        Part part = Alternatives(depth + 1);
        if (!TakeIf(')'))
            Refuse("\"(\" without \")\"");
        part.text = "(" + part.text + ")";
        return part;
    }

    // Behind the backslash. True: it stands for the ranges, false: for the character.
    bool TakeEscape(Ranges *ranges, uint32_t *character)
    {
        if (IsAtEnd())
            Refuse("a backslash at the end");
        uint32_t letter = TakeCharacter();
        switch (letter) {
        case 'd':
            return *ranges = Digits(), true;
        case 'D':
            return *ranges = Complement(Digits()), true;
        case 'w':
            return *ranges = WordCharacters(), true;
        case 'W':
            return *ranges = Complement(WordCharacters()), true;
        case 's':
            return *ranges = WhiteSpace(), true;
        case 'S':
            return *ranges = Complement(WhiteSpace()), true;
        case 'n':
            return *character = '\n', false;
        case 'r':
            return *character = '\r', false;
        case 't':
            return *character = '\t', false;
        case 'v':
            return *character = '\v', false;
        case 'f':
            return *character = '\f', false;
        case 'x':
            return *character = TakeHex(2), false;
        case 'u':
            return *character = TakeHex(4), false;
        default:
            if (IsAsciiLetterOrDigit(letter))
                Refuse("an escape that is not supported");
            return *character = letter, false;
        }
    }

    uint32_t TakeHex(int digits)
    {
        uint32_t value = 0;
        for (int i = 0; i < digits; i++) {
            char digit = Peek();
            bool is_letter = (digit | 0x20) >= 'a' && (digit | 0x20) <= 'f';
            if (!is_letter && (digit < '0' || digit > '9'))
                Refuse("hexadecimal digits are missing");
            value = value * 16 +
                    static_cast<uint32_t>(is_letter ? (digit | 0x20) - 'a' + 10 : digit - '0');
            at_++;
        }
        if (value == 0 || (value >= 0xD800 && value <= 0xDFFF))
            Refuse("a character that no text holds");
        return value;
    }

    void Class(std::string *text)
    {
        const bool is_negated = TakeIf('^');
        Ranges all;
        while (!TakeIf(']')) {
            Ranges set;
            uint32_t first = 0;
            if (TakeClassCharacter(&set, &first)) {
                all.insert(all.end(), set.begin(), set.end());
                continue;
            }
            uint32_t last = first;
            const bool is_range =
                Peek() == '-' && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != ']';
            if (is_range) {
                at_++;
                if (TakeClassCharacter(&set, &last) || last < first)
                    Refuse("a range that is none");
            }
            all.push_back({first, last});
        }
        if (all.empty())
            Refuse("an empty class");
        AppendClass(all, is_negated, text);
    }

    bool TakeClassCharacter(Ranges *set, uint32_t *character)
    {
        if (IsAtEnd())
            Refuse("\"[\" without \"]\"");
        if (!TakeIf('\\'))
            return *character = TakeCharacter(), false;
        if (TakeIf('b'))
            return *character = '\b', false;
        return TakeEscape(set, character);
    }

    std::string_view pattern_;
    size_t at_ = 0;
    bool has_alternatives_ = false; // outside of groups
};

} // namespace

Result<std::string>
TranslatePattern(std::string_view pattern)
{
    if (pattern.size() > kMaxPatternBytes)
        return Status::Error("it is longer than 1000 bytes");
    try {
        return Translator(pattern).Translate();
    } catch (const Refused &refused) {
        return Status::Error(refused.why);
    }
}

} // namespace pulse::decode
