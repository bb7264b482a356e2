#include "pg/boundary.hpp"

#include <cstring>
#include <new>

#include "pg/prelude.hpp"

namespace pulse::pg::internal {

namespace {

// What survives a catch block: plain bytes, nothing that needs the allocator that may have failed.
struct PlainError {
    int sqlstate;
    char message[1024];
    char detail[1024];
    char hint[512];
};

void
CopyText(char *target, size_t size, const char *text)
{
    std::strncpy(target, text, size - 1);
    target[size - 1] = '\0';
}

// Outlives the catch block it is filled in; one per process is enough, errors don't nest.
PlainError caught_error;

[[noreturn]] void
ThrowCopy(ErrorData *data)
{
    Error error;
    error.sqlstate = unpack_sql_state(data->sqlerrcode);
    auto set = [](std::string *field, const char *text) {
        if (text != nullptr)
            *field = text;
    };
    set(&error.message, data->message);
    set(&error.detail, data->detail);
    set(&error.hint, data->hint);
    set(&error.context, data->context);
    set(&error.constraint, data->constraint_name);
    set(&error.schema, data->schema_name);
    set(&error.table, data->table_name);
    FreeErrorData(data);
    throw error;
}

} // namespace

void
RunGuarded(void (*call)(void *), void *argument)
{
    MemoryContext caller_context = CurrentMemoryContext;
    ErrorData *volatile data = nullptr;
    std::exception_ptr stray;

    PG_TRY();
    {
        // A C++ exception that left this block would leave PG_exception_stack pointing into a frame
        // that is gone, and the next ereport would jump there.
        try {
            call(argument);
        } catch (...) {
            stray = std::current_exception();
        }
    }
    PG_CATCH();
    {
        MemoryContextSwitchTo(caller_context);
        data = CopyErrorData();
        FlushErrorState();
    }
    PG_END_TRY();

    if (stray)
        std::rethrow_exception(stray);
    if (data != nullptr)
        ThrowCopy(data);
}

void
RunCaught(void (*call)(void *), void *argument)
{
    bool failed = false;
    try {
        call(argument);
    } catch (const Error &error) {
        failed = true;
        caught_error.sqlstate =
            MAKE_SQLSTATE(error.sqlstate[0], error.sqlstate[1], error.sqlstate[2],
                          error.sqlstate[3], error.sqlstate[4]);
        CopyText(caught_error.message, sizeof(caught_error.message), error.message.c_str());
        CopyText(caught_error.detail, sizeof(caught_error.detail), error.detail.c_str());
        CopyText(caught_error.hint, sizeof(caught_error.hint), error.hint.c_str());
    } catch (const std::bad_alloc &) {
        failed = true;
        caught_error = {ERRCODE_OUT_OF_MEMORY, "out of memory", "", ""};
    } catch (const std::exception &error) {
        failed = true;
        caught_error = {ERRCODE_INTERNAL_ERROR, "", "", ""};
        CopyText(caught_error.message, sizeof(caught_error.message), error.what());
    } catch (...) {
        failed = true;
        caught_error = {ERRCODE_INTERNAL_ERROR, "unexpected C++ exception", "", ""};
    }
    if (failed)
        ereport(ERROR, (errcode(caught_error.sqlstate), errmsg("%s", caught_error.message),
                        caught_error.detail[0] != '\0' ? errdetail("%s", caught_error.detail) : 0,
                        caught_error.hint[0] != '\0' ? errhint("%s", caught_error.hint) : 0));
}

} // namespace pulse::pg::internal
