// src/decode/reject.cpp: the closed list of error codes, word for word.
#include "decode/reject.hpp"

#include <gtest/gtest.h>

#include <string>

namespace pulse::decode {
namespace {

TEST(Reject, ListIsTheContract)
{
    const char *expected = "decode/syntax decode/encoding decode/nul decode/surrogate decode/depth "
                           "decode/oversize decode/too_large_to_fetch decode/number decode/dup_key "
                           "decode/not_object decode/empty decode/tombstone "
                           "decode/schema_framed_payload schema/missing_field schema/type "
                           "schema/time schema/too_old schema/too_new schema/too_long "
                           "schema/schema schema/unknown_field data/sql_error data/stage_error "
                           "operator/skipped operator/quarantined ";
    int count = 0;
    const RejectInfo *all = AllRejects(&count);
    std::string found;
    for (int i = 0; i < count; i++)
        found += std::string(all[i].error_class) + "/" + std::string(all[i].name) + " ";
    EXPECT_EQ(found, expected);
}

TEST(Reject, EveryCodeHasItsOwnWords)
{
    int count = 0;
    const RejectInfo *all = AllRejects(&count);
    for (int i = 0; i < count; i++) {
        EXPECT_EQ(&InfoOf(all[i].code), &all[i]);
        for (std::string_view words : {all[i].meaning, all[i].remedy}) {
            ASSERT_FALSE(words.empty()) << all[i].name;
            EXPECT_EQ(words.back(), '.') << all[i].name;
            EXPECT_LT(words.size(), 120u) << all[i].name;
        }
    }
}

TEST(Reject, UnknownCodesAreNoCode)
{
    EXPECT_EQ(InfoOf(RejectCode::kNone).name, "");
    EXPECT_EQ(InfoOf(static_cast<RejectCode>(200)).name, "");
}

} // namespace
} // namespace pulse::decode
