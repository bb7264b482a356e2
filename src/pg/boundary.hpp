// The two doors between the regimes. PG regime: errors are longjmp, locals trivially destructible.
// C++ regime: errors are exceptions or Result, no PostgreSQL call.
//   CallPg(fn)   C++ -> PG: a PostgreSQL ERROR inside fn arrives as the exception pg::Error.
//   CallCpp(fn)  PG -> C++: an exception that leaves fn arrives as a PostgreSQL ERROR.
// FATAL never comes back: it ends the process without unwinding. After a pg::Error nothing else may
// be asked of PostgreSQL until the (sub)transaction is rolled back (xact.hpp does that).
#pragma once

#include <exception>
#include <string>
#include <type_traits>
#include <utility>

namespace pulse::pg {

class Error : public std::exception {
  public:
    std::string sqlstate; // five characters
    std::string message;
    std::string detail;
    std::string hint;
    std::string context;
    std::string constraint; // empty when the error names none
    std::string schema;     // of the table
    std::string table;      // likewise, unqualified

    const char *what() const noexcept override { return message.c_str(); }
};

namespace internal {
// Runs call(argument) under one PG_TRY. Throws pg::Error. The only raw PG_TRY of the tree.
void RunGuarded(void (*call)(void *), void *argument);
// Runs call(argument), which is C++; raises a PostgreSQL ERROR when it throws.
void RunCaught(void (*call)(void *), void *argument);

// fn's result comes back through the door in a frame that a longjmp may skip.
template <typename F>
auto
Through(void (*door)(void (*call)(void *), void *argument), F &fn)
{
    using Return = std::invoke_result_t<F &>;
    if constexpr (std::is_void_v<Return>) {
        door([](void *argument) { (*static_cast<F *>(argument))(); }, &fn);
    } else {
        static_assert(std::is_trivially_destructible_v<Return>);
        struct Frame {
            F *fn;
            Return result;
        } frame{&fn, Return{}};
        door(
            [](void *argument) {
                Frame *inner = static_cast<Frame *>(argument);
                inner->result = (*inner->fn)();
            },
            &frame);
        return frame.result;
    }
}
} // namespace internal

template <typename F>
auto
CallPg(F &&fn)
{
    static_assert(std::is_trivially_destructible_v<std::remove_reference_t<F>>,
                  "longjmp skips destructors: capture by reference or plain values only");
    return internal::Through(internal::RunGuarded, fn);
}

template <typename F>
auto
CallCpp(F &&fn)
{
    return internal::Through(internal::RunCaught, fn);
}

} // namespace pulse::pg
