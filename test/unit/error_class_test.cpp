// What a SQLSTATE means for a batch. src/base/error_class.hpp.
#include "base/error_class.hpp"

#include <gtest/gtest.h>

namespace pulse {

TEST(ErrorClassTest, ARowIsAtFault)
{
    for (const char *sqlstate : {"21000", "22001", "22003", "22P02", "22P05", "23502", "23505",
                                 "23514", "23P01", "44000", "P0001", "54000"})
        EXPECT_EQ(ClassOf(sqlstate), ErrorClass::kData) << sqlstate;
}

// A mistake here throws good events away: none of these may ever become a dead letter.
TEST(ErrorClassTest, TheEnvironmentIsAtFault)
{
    for (const char *sqlstate :
         {"08000", "08006", "25006", "28000", "3D000", "40001", "40P01", "53000", "53100", "53200",
          "53300", "55000", "55P03", "57014", "57P01", "57P03", "58000", "58030", "58P01", "72000"})
        EXPECT_EQ(ClassOf(sqlstate), ErrorClass::kEnvironment) << sqlstate;
}

TEST(ErrorClassTest, TheDefinitionIsAtFault)
{
    for (const char *sqlstate : {"0A000", "38000", "39000", "3F000", "42501", "42703", "42P01",
                                 "42P10", "F0000", "XX000", "XX001", "XX002"})
        EXPECT_EQ(ClassOf(sqlstate), ErrorClass::kDefinition) << sqlstate;
}

TEST(ErrorClassTest, WhatNobodyNamedIsNoDeadLetter)
{
    for (const char *sqlstate : {"25001", "25P02", "00000", "HV000", "", "2", "zzzzz"})
        EXPECT_EQ(ClassOf(sqlstate), ErrorClass::kDefinition) << sqlstate;
}

} // namespace pulse
