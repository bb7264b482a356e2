// The only includer of RapidJSON (1.1.0 as packaged by Debian) and the place for what must be set
// before it. RAPIDJSON_ASSERT is assert() by default: an abort, which restarts every session of the
// server. Here it throws, and so does running out of memory, which RapidJSON never checks for.
// Regime: C++; never together with server headers.
#pragma once

#include <cstdlib>
#include <new>
#include <stdexcept>

namespace pulse::decode {

class RapidJsonAssertion : public std::logic_error {
  public:
    using std::logic_error::logic_error;
};

} // namespace pulse::decode

#define RAPIDJSON_ASSERT(condition)                                                                \
    do {                                                                                           \
        if (!(condition))                                                                          \
            throw ::pulse::decode::RapidJsonAssertion(#condition);                                 \
    } while (false)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunknown-warning-option"
#pragma GCC diagnostic ignored "-Wclass-memaccess"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wterminate"
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include <rapidjson/document.h>
#include <rapidjson/error/error.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>
#include <rapidjson/schema.h>
#pragma GCC diagnostic pop

namespace pulse::decode {

// RapidJSON's own allocator hands a failed realloc() straight to its stack.
class RapidJsonAllocator {
  public:
    static const bool kNeedFree = true;

    void *Malloc(size_t bytes) { return bytes == 0 ? nullptr : Realloc(nullptr, 0, bytes); }

    void *Realloc(void *block, size_t, size_t bytes)
    {
        if (bytes == 0) {
            std::free(block);
            return nullptr;
        }
        void *result = std::realloc(block, bytes);
        if (result == nullptr)
            throw std::bad_alloc();
        return result;
    }

    static void Free(void *block) { std::free(block); }
};

} // namespace pulse::decode
