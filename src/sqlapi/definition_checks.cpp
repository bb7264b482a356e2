// The checks behind create_pipeline and alter_pipeline: settings, topics, targets, stages.
// Regime: PG, through the doors of PULSE_SQL_FUNCTION.
#include "sqlapi/definition_checks.hpp"

#include "ingest/topic_pattern.hpp"
#include "kafka/config.hpp"
#include "pg/guc.hpp"
#include "pg/spi.hpp"
#include "sqlapi/arguments.hpp"
#include "sqlapi/called_pipeline.hpp"
#include "store/positions.hpp"
#include "store/retention.hpp"
#include "store/stage_plans.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

ingest::Position
CheckPosition(const char *name, const char *value)
{
    return pg::CallCpp([&] {
        try {
            return pg::CallPg([&] { return store::ParsePosition(value); });
        } catch (pg::Error &error) {
            if (!error.sqlstate.starts_with("22"))
                throw;
            error.sqlstate = "22023";
            error.message = std::string(name) + ": " + error.message;
            error.hint = "Use earliest, latest, an offset, a timestamp, or -1 hour.";
            throw;
        }
    });
}

} // namespace pulse::sqlapi

using namespace pulse;

// Checks one setting of a pipeline as postgresql.conf would; raises 22023.
PULSE_SQL_FUNCTION(pulse_check_setting)
{
    const char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
    const char *value = text_to_cstring(PG_GETARG_TEXT_PP(1));
    if (!pg::IsPipelineSetting(name))
        ereport(
            ERROR,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
             errmsg("\"%s\" is no setting of a pipeline", name),
             errhint(
                 "See the settings table of the README; names come without the prefix pulse.")));
    pg::CheckSetting(name, value);
    if (strcmp(name, "start_position") == 0)
        (void)sqlapi::CheckPosition(name, value);
    if (strcmp(name, "kafka_options") == 0)
        pg::CallCpp([&] {
            auto options = kafka::ParseProperties(value, ',');
            Status status = options.ok() ? kafka::CheckOptions(options.value())
                                         : Status::Error(options.message());
            if (!status.ok()) {
                pg::Error error;
                error.sqlstate = "22023";
                error.message = status.message();
                error.hint =
                    "kafka_options is a list of key=value, separated by commas; passwords and "
                    "certificates belong into secrets_file.";
                throw error;
            }
        });
    PG_RETURN_VOID();
}

// Raises 22023 unless the regular expression is one the coordinator can use.
PULSE_SQL_FUNCTION(pulse_check_topic)
{
    const char *topic = text_to_cstring(PG_GETARG_TEXT_PP(0));
    pg::CallCpp([&] {
        auto pattern = ingest::TopicPattern::Compile(topic);
        if (pattern.ok())
            return;
        pg::Error error;
        error.sqlstate = "22023";
        error.message = pattern.message();
        error.hint = ingest::TopicPattern::kHint;
        throw error;
    });
    PG_RETURN_VOID();
}

namespace {

void
WarnOfRetention(const store::Obstacle &obstacle, const char *pipeline, const store::Target &target)
{
    if (obstacle.reason != nullptr)
        ereport(WARNING, (errmsg("retention drops nothing: %s", obstacle.reason),
                          errhint("%s", obstacle.hint)));
    else if (const char *other = store::SharerWithRetention(pipeline); other != nullptr)
        ereport(WARNING,
                (errmsg("retention of pipeline \"%s\" drops nothing while pipeline \"%s\" writes "
                        "%s, too",
                        other, pipeline, target.qualified_name),
                 errhint("A table of its own for each keeps it at work.")));
}

} // namespace

// Loads the target as a worker would, so that create_pipeline fails where a worker would; true when
// duplicates can be told.
PULSE_SQL_FUNCTION(pulse_check_target)
{
    store::PipelineDefinition definition;
    const int level = NewGUCNestLevel();
    const store::Target &target =
        sqlapi::UseTarget(text_to_cstring(PG_GETARG_TEXT_PP(0)), &definition);
    store::CheckRowSecurity(target, store::WriterRole(definition));
    store::Obstacle obstacle = {};
    if (pg::guc_retention_s > 0)
        obstacle = store::WhyNothingExpires(definition, target);
    AtEOXact_GUC(true, level);
    WarnOfRetention(obstacle, definition.name, target);
    if (target.why_unmanaged != nullptr && target.member_count == 1)
        ereport(WARNING, (errmsg("%s has no partitions, and pulse makes none: %s",
                                 target.qualified_name, target.why_unmanaged),
                          errhint("Until there are some every event becomes a dead letter (23514). "
                                  "pulse makes partitions by range of event_timestamp, timestamptz "
                                  "NOT NULL without default.")));
    PG_RETURN_BOOL(target.tells_duplicates);
}

PULSE_SQL_FUNCTION(pulse_check_stages)
{
    store::PipelineDefinition definition;
    const int level = NewGUCNestLevel();
    store::CheckStages(sqlapi::UseTarget(text_to_cstring(PG_GETARG_TEXT_PP(0)), &definition));
    AtEOXact_GUC(true, level);
    PG_RETURN_VOID();
}

// Whether a worker would keep counters of a table.
PULSE_SQL_FUNCTION(pulse_is_counted)
{
    PG_RETURN_BOOL(store::IsCounted(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_BOOL(1)));
}
