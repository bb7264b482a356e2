#include "store/letter_retention.hpp"

#include "pg/guc.hpp"
#include "pg/spi.hpp"
#include "store/outgoing.hpp"
#include "store/target.hpp"

namespace pulse::store {

namespace {

constexpr int64_t kLettersAtOnce = 10000;

pg::Statement wants_retention = {
    "SELECT EXISTS (SELECT FROM pulse.pipelines WHERE COALESCE(settings->>'dlq_retention',"
    " pg_catalog.current_setting('pulse.dlq_retention')) <> '0')",
    0,
    {},
    nullptr};

pg::Statement purge_letters = {
    "SELECT pulse._purge_letters(pg_catalog.make_interval(secs => $2), $1, $3)",
    3,
    {TEXTOID, FLOAT8OID, INT8OID},
    nullptr};

} // namespace

bool
WantsLetterRetention()
{
    return pg::IsTrue(&wants_retention);
}

bool
DropSettledLetters(const char *pipeline)
{
    (void)NewGUCNestLevel(); // ends with the transaction
    PipelineDefinition definition{};
    if (!LoadPipeline(pipeline, Scope::kCall, &definition) || pg::guc_dlq_retention_s == 0 ||
        !HaveLetters())
        return false;
    bool may_be_more = false;
    pg::InSpi([&] {
        Datum arguments[3] = {CStringGetTextDatum(pipeline),
                              Float8GetDatum(pg::guc_dlq_retention_s),
                              Int64GetDatum(kLettersAtOnce)};
        may_be_more =
            pg::Execute(&purge_letters, arguments) == 1 && pg::GetInt64(0, 1) >= kLettersAtOnce;
    });
    return may_be_more;
}

} // namespace pulse::store
