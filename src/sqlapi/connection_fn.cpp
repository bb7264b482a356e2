// pulse.test_connection(): tries the settings of this moment out from the caller's backend, so that
// it also answers while pulse is idle or the pipeline is stopped. Regime: PG and doors.
#include <memory>
#include <string>
#include <vector>

#include "ingest/aside.hpp"
#include "ingest/connection_check.hpp"
#include "pg/guc.hpp"
#include "pg/wait.hpp"
#include "sqlapi/called_pipeline.hpp"
#include "sqlapi/kafka_client.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

namespace {

void
PutFinding(ReturnSetInfo *result, const ingest::Finding &finding)
{
    Datum values[4] = {CStringGetTextDatum(finding.what.c_str()), BoolGetDatum(finding.is_ok),
                       CStringGetTextDatum(finding.detail.c_str()),
                       CStringGetTextDatum(finding.hint.c_str())};
    bool nulls[4] = {false, false, false, finding.hint.empty()};
    tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

void
Put(ReturnSetInfo *result, const ingest::Finding &finding)
{
    pg::CallPg([&] { PutFinding(result, finding); });
}

// One topic a line, or a list with commas; a regular expression may hold commas.
std::vector<std::string>
SplitTopics(std::string_view text)
{
    const char *separators = text.starts_with("^") ? "\n" : "\n,";
    std::vector<std::string> topics;
    while (!text.empty()) {
        size_t end = text.find_first_of(separators);
        std::string_view topic = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
        while (topic.starts_with(' '))
            topic.remove_prefix(1);
        while (topic.ends_with(' '))
            topic.remove_suffix(1);
        if (!topic.empty())
            topics.emplace_back(topic);
    }
    return topics;
}

void
Test(ReturnSetInfo *result, const char *topics)
{
    kafka::Config config;
    try {
        PrepareForKafka();
        config = SessionConfig();
    } catch (const pg::Error &error) {
        if (error.sqlstate == "53000")
            throw;
        config.brokers.clear();
        ingest::Finding finding{"settings", false, error.message, error.hint};
        Put(result, finding);
        return;
    }
    Put(result, {"settings", true,
                 "brokers " + config.brokers + ", " + std::to_string(config.options.size()) +
                     " options, " + std::to_string(config.secrets.size()) + " secrets",
                 ""});
    ingest::AsidePtr<ingest::ConnectionCheck> check(
        new ingest::ConnectionCheck(std::move(config), SplitTopics(topics)));
    for (bool is_finished = false; !is_finished;) {
        pg::Wait(check->fd(), 1000);
        std::vector<ingest::Finding> findings;
        is_finished = check->Take(&findings);
        for (const ingest::Finding &finding : findings)
            Put(result, finding);
    }
}

} // namespace

} // namespace pulse::sqlapi

using namespace pulse;

// test_connection(name) -> what, ok, detail, hint; without a name postgresql.conf's settings
PULSE_SQL_FUNCTION(pulse_test_connection)
{
    InitMaterializedSRF(fcinfo, 0);
    ReturnSetInfo *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
    const int level = NewGUCNestLevel();
    const char *topics = pg::guc_topic;
    if (!PG_ARGISNULL(0)) {
        const char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
        store::PipelineDefinition definition;
        sqlapi::UsePipeline(name, &definition);
        topics = sqlapi::TopicsOf(name);
    }
    pg::CallCpp([&] { sqlapi::Test(result, topics); });
    AtEOXact_GUC(true, level);
    return static_cast<Datum>(0);
}
