// Bump allocator for the bytes of one batch: payload copies, unescaped strings, cells. Everything
// is freed at once; nothing in it has a destructor. Throws std::bad_alloc, so C++ regime only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <type_traits>
#include <vector>

namespace pulse {

class Arena {
  public:
    static constexpr size_t kChunkBytes = 256 * 1024;

    char *Allocate(size_t bytes)
    {
        bytes = (bytes + 7) & ~size_t{7};
        if (bytes > left_) {
            size_t chunk_bytes = bytes > kChunkBytes ? bytes : kChunkBytes;
            chunks_.push_back(std::make_unique_for_overwrite<char[]>(chunk_bytes));
            next_ = chunks_.back().get();
            left_ = chunk_bytes;
            reserved_bytes_ += chunk_bytes;
        }
        char *result = next_;
        next_ += bytes;
        left_ -= bytes;
        used_bytes_ += bytes;
        return result;
    }

    template <typename T> T *AllocateArray(size_t count)
    {
        static_assert(std::is_trivially_destructible_v<T>);
        return reinterpret_cast<T *>(Allocate(count * sizeof(T)));
    }

    // Copies bytes; a null view (data() == nullptr) stays null, an empty one stays empty.
    std::string_view Copy(std::string_view bytes)
    {
        if (bytes.data() == nullptr)
            return {};
        char *copy = Allocate(bytes.size() + 1); // never a null pointer for an empty string
        std::memcpy(copy, bytes.data(), bytes.size());
        return {copy, bytes.size()};
    }

    size_t used_bytes() const { return used_bytes_; }
    size_t reserved_bytes() const { return reserved_bytes_; }

  private:
    std::vector<std::unique_ptr<char[]>> chunks_;
    char *next_ = nullptr;
    size_t left_ = 0;
    size_t used_bytes_ = 0;
    size_t reserved_bytes_ = 0;
};

} // namespace pulse
