// How the stages of a pipeline are run: their definitions and the plans of their statements. The
// body of a stage is set into a statement of ours, so that every row tells which record it is of.
// Regime: PG.
#pragma once

#include <cstdint>

#include "store/target.hpp"
#include "pg/prelude.hpp"

namespace pulse::store {

struct StagePlan {
    SPIPlanPtr plan;
    SPIPlanPtr body;              // as it is written; null for sinks
    TupleDesc results;            // of the body, when it was prepared; TopMemoryContext
    int16_t sources[kMaxColumns]; // attribute of the result per column of the target; 0 = left out
    int32_t event_time;           // attribute that must be the record's own; 0 = none
};

// Reads pulse.stages into target->stages. Inside SPI.
void LoadStages(const PipelineDefinition &definition, Target *target);
void FreeStages(Target *target);

// Raises unless each could be run: 42601, 22023 (no single SELECT, or INSERT), 42703, 42804, and
// what PostgreSQL says of the body. Runs none.
void CheckStages(const Target &target);

// Prepared at first use, and again when its results are others. Inside SPI.
const StagePlan *PlanOf(const Target &target, int index);

// They name columns: to be called when the target was loaded again.
void ForgetStagePlans();

// Rows processed. Whatever error comes names the stage.
int64_t RunStagePlan(const Stage &stage, const StagePlan &plan, DestReceiver *receiver);

} // namespace pulse::store
