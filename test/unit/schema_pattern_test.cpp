// Patterns of a JSON Schema: what they match once translated, through RapidJSON's engine as the
// validator uses it, and what is refused because that engine would crash, hang or be wrong.
#include <gtest/gtest.h>

#include <random>
#include <regex>
#include <string>

#include "decode/schema_pattern.hpp"
#include "decode/rapidjson_prelude.hpp"

namespace pulse::decode {
namespace {

bool
Matches(const std::string &pattern, const std::string &text)
{
    auto translated = TranslatePattern(pattern);
    EXPECT_TRUE(translated.ok()) << pattern;
    if (!translated.ok())
        return false;
    rapidjson::internal::Regex regex(translated.value().c_str());
    EXPECT_TRUE(regex.IsValid()) << pattern << " became " << translated.value();
    return regex.IsValid() && regex.Search(text.c_str());
}

TEST(SchemaPattern, SearchesUnlessAnchored)
{
    EXPECT_TRUE(Matches("b", "abc"));
    EXPECT_FALSE(Matches("^b", "abc"));
    EXPECT_FALSE(Matches("b$", "abc"));
    EXPECT_TRUE(Matches("c$", "abc"));
    EXPECT_TRUE(Matches("^abc$", "abc"));
    EXPECT_FALSE(Matches("^abc$", "abcd"));
    EXPECT_TRUE(Matches("^(a|b)$", "b"));
    EXPECT_TRUE(Matches("a|x", "zzx"));
}

TEST(SchemaPattern, WhatMayBeEmptyMatchesAnything)
{
    for (const char *pattern : {"", "a*", "^a*", "a*$", "x?y?", "^", "$", "(a|b?)", "a{0,3}"})
        for (const char *text : {"", "b", "bbb", "ä"})
            EXPECT_TRUE(Matches(pattern, text)) << pattern << " on " << text;
    EXPECT_TRUE(Matches("^a*$", ""));
    EXPECT_TRUE(Matches("^a*$", "aaa"));
    EXPECT_FALSE(Matches("^a*$", "aab"));
}

TEST(SchemaPattern, ClassesAndEscapes)
{
    EXPECT_TRUE(Matches("^\\d{3}-\\w+$", "123-a_Z9"));
    EXPECT_FALSE(Matches("^\\d+$", "12a"));
    EXPECT_TRUE(Matches("^\\D+$", "ab-"));
    EXPECT_FALSE(Matches("^\\W$", "_"));
    EXPECT_TRUE(Matches("^\\s\\S$", " x"));
    EXPECT_TRUE(Matches("^[^a-c]$", "d"));
    EXPECT_FALSE(Matches("^[^a-c]$", "b"));
    EXPECT_TRUE(Matches("^[a\\-z]+$", "a-z"));
    EXPECT_FALSE(Matches("^[a\\-z]+$", "b"));
    EXPECT_TRUE(Matches("^[-a]+$", "a-"));
    EXPECT_TRUE(Matches("^[a-]+$", "a-"));
    EXPECT_TRUE(Matches("^[\\]\\[^\\\\]+$", "][^\\"));
    EXPECT_TRUE(Matches("^[\\d.]+$", "1.2"));
    EXPECT_TRUE(Matches("^[\\D]$", "x"));
    EXPECT_TRUE(Matches("^\\u00e4\\xe4ä$", "äää"));
    EXPECT_TRUE(Matches("^[à-ÿ]+$", "äö"));
    EXPECT_TRUE(Matches("^.$", "\xF0\x9F\x98\x80"));
    EXPECT_FALSE(Matches("^.$", "\n"));
    EXPECT_TRUE(Matches("^\\.\\/\\-\\$$", "./-$"));
}

TEST(SchemaPattern, Repetitions)
{
    EXPECT_TRUE(Matches("^(ab){2,3}$", "abab"));
    EXPECT_TRUE(Matches("^(ab){2,3}$", "ababab"));
    EXPECT_FALSE(Matches("^(ab){2,3}$", "ab"));
    EXPECT_FALSE(Matches("^(ab){2,3}$", "abababab"));
    EXPECT_TRUE(Matches("^a{2,}$", "aaaa"));
    EXPECT_FALSE(Matches("^a{2,}$", "a"));
    EXPECT_TRUE(Matches("^a{0,2}b$", "b"));
    EXPECT_TRUE(Matches("^a+?b*?$", "aab"));
    EXPECT_TRUE(Matches("^(?:a|bc)+$", "abcbc"));
}

TEST(SchemaPattern, RefusesWhatTheEngineCannotDo)
{
    const std::string deep(40, '(');
    for (const std::string &pattern : {std::string("("),         std::string(")"),
                                       std::string("(a*)*"),     std::string("(a?)+"),
                                       std::string("(a|b?){3}"), std::string("(a?|b?)"),
                                       std::string("a**"),       std::string("*a"),
                                       std::string("a|"),        std::string("|a"),
                                       std::string("()"),        std::string("(|a)"),
                                       std::string("a{0}"),      std::string("a{3,2}"),
                                       std::string("a{1001}"),   std::string("(a{100}){100}"),
                                       std::string("a{"),        std::string("a{x}"),
                                       std::string("["),         std::string("[]"),
                                       std::string("[]a]"),      std::string("[b-a]"),
                                       std::string("[a-\\d]"),   std::string("\\"),
                                       std::string("\\b"),       std::string("\\1"),
                                       std::string("\\cA"),      std::string("\\p{L}"),
                                       std::string("\\u12"),     std::string("\\ud800"),
                                       std::string("\\u0000"),   std::string("(?=a)"),
                                       std::string("(?<n>a)"),   std::string("a^b"),
                                       std::string("a$b"),       std::string("^a|b$"),
                                       std::string("^$"),        std::string("]"),
                                       std::string("}"),         deep + "a" + std::string(40, ')'),
                                       std::string(1001, 'a')})
        EXPECT_FALSE(TranslatePattern(pattern).ok()) << pattern;
}

// Whatever is taken compiles, answers in linear time, and as the standard library does.
TEST(SchemaPattern, RandomPatternsAgreeWithAnotherEngine)
{
    std::mt19937 random(11);
    const std::string alphabet = "aabbc12-_ .^$|()[]{}*+?\\dws:,";
    const std::string letters = "aabbc12-_ ";
    auto draw = [&random](const std::string &from, size_t most) {
        std::string text(random() % (most + 1), ' ');
        for (char &byte : text)
            byte = from[random() % from.size()];
        return text;
    };
    int taken = 0;
    for (int i = 0; i < 15000; i++) {
        std::string pattern = draw(alphabet, 9);
        if (!TranslatePattern(pattern).ok())
            continue;
        taken++;
        std::regex expected(pattern, std::regex::ECMAScript);
        for (int j = 0; j < 4; j++) {
            std::string text = draw(letters, 6);
            ASSERT_EQ(std::regex_search(text, expected), Matches(pattern, text))
                << pattern << " on \"" << text << "\"";
        }
    }
    EXPECT_GT(taken, 1000);
}

TEST(SchemaPattern, LongTextsTakeLinearTime)
{
    // With what any pattern may cost at most; without the limits this would not end today.
    std::string text(200000, 'a');
    EXPECT_FALSE(Matches("^(a|aa){1,100}b$", text));
    EXPECT_FALSE(Matches("(a|b){2,90}c", text));
    EXPECT_TRUE(Matches("a$", text));
}

} // namespace
} // namespace pulse::decode
