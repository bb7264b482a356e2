// Transaction scopes as functions, not RAII: no destructor calls PostgreSQL.
// Regime: door. fn is C++ (it may throw); PostgreSQL work inside it goes through CallPg.
#pragma once

#include <exception>

namespace pulse::pg {

namespace internal {
void BeginTransaction();
void CommitTransaction();
void AbortTransaction();
struct SubTransactionFrame {
    void *memory_context;
    void *resource_owner;
};
SubTransactionFrame BeginSubTransaction();
void ReleaseSubTransaction(SubTransactionFrame frame);
void RollbackSubTransaction(SubTransactionFrame frame);
} // namespace internal

// READ COMMITTED, READ WRITE, with an active snapshot; commits when fn returns, rolls back and
// rethrows when it throws. Memory context afterwards is the one before.
template <typename F>
void
InTransaction(F &&fn)
{
    std::exception_ptr failure;
    try {
        internal::BeginTransaction(); // may fail half-way: then there is something to roll back,
                                      // too
        fn();
        internal::CommitTransaction();
    } catch (...) {
        failure = std::current_exception();
    }
    if (failure) {
        internal::AbortTransaction();
        std::rethrow_exception(failure);
    }
}

// A savepoint around fn: rolled back alone when fn throws, then rethrown.
template <typename F>
void
InSubTransaction(F &&fn)
{
    std::exception_ptr failure;
    internal::SubTransactionFrame frame = internal::BeginSubTransaction();
    try {
        fn();
        internal::ReleaseSubTransaction(frame);
    } catch (...) {
        failure = std::current_exception();
    }
    if (failure) {
        internal::RollbackSubTransaction(frame);
        std::rethrow_exception(failure);
    }
}

} // namespace pulse::pg
