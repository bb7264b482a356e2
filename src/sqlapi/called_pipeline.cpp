#include "sqlapi/called_pipeline.hpp"

#include "store/pipelines.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

void
UsePipeline(const char *name, store::PipelineDefinition *definition)
{
    if (!store::LoadPipeline(name, store::Scope::kCall, definition))
        ereport(ERROR,
                (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("pipeline \"%s\" does not exist", name),
                 errhint("pulse.pipelines lists those there are.")));
}

const store::Target &
UseTarget(const char *name, store::PipelineDefinition *definition)
{
    static store::Target target; // large
    UsePipeline(name, definition);
    store::LoadTarget(*definition, store::Scope::kCall, &target);
    return target;
}

const char *
TopicsOf(const char *name)
{
    store::PipelineRow *pipelines = nullptr;
    int count = store::ReadPipelines(&pipelines);
    for (int i = 0; i < count; i++)
        if (strcmp(pipelines[i].name, name) == 0)
            return pipelines[i].topics;
    return "";
}

} // namespace pulse::sqlapi
