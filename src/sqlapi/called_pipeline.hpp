// The pipeline that a call is about. Its settings lie over the session's until the caller's GUC
// nest level ends; 42704 when there is none of that name. Regime: PG.
#pragma once

#include "store/target.hpp"

namespace pulse::sqlapi {

void UsePipeline(const char *name, store::PipelineDefinition *definition);

// Its target, too, as a worker would load it. A backend has one at a time.
const store::Target &UseTarget(const char *name, store::PipelineDefinition *definition);

// As ReadPipelines() has them.
const char *TopicsOf(const char *name);

} // namespace pulse::sqlapi
