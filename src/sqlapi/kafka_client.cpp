#include "sqlapi/kafka_client.hpp"

#include "ingest/aside.hpp"
#include "pg/guc.hpp"
#include "worker/config.hpp"
#include "worker/process.hpp"
#include "pg/prelude.hpp"

namespace pulse::sqlapi {

namespace {

constexpr int kMaxClosing = 8; // clients of cancelled calls whose network does not let go

} // namespace

void
Fail(const char *sqlstate, const std::string &message, const std::string &hint)
{
    pg::Error error;
    error.sqlstate = sqlstate;
    error.message = message;
    error.hint = hint;
    throw error;
}

void
PrepareForKafka()
{
    if (pg::guc_brokers[0] == '\0')
        Fail("55000", "pulse.brokers is not set", "Name the Kafka brokers there and reload.");
    if (ingest::ClosingCount() >= kMaxClosing)
        Fail("53000", "earlier calls of this session are still closing their connections to Kafka",
             "Try again in a few seconds; pulse.test_connection() says what is wrong.");
    worker::LeaveWithoutCleanup();
}

kafka::Config
SessionConfig()
{
    auto config = worker::ConnectionConfig(worker::CurrentConnection(),
                                           "pulse-session-" + std::to_string(MyProcPid));
    if (!config.ok())
        Fail("22023", config.message());
    config.value().group_id.clear();
    return std::move(config.value());
}

} // namespace pulse::sqlapi
