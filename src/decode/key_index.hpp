// The member names of every object of one document, to find duplicates at any level: a linear look
// back in small objects, a hash table from kLinearKeys names on. Names are compared unescaped.
// The hash is seeded, so that nobody can send a hundred thousand names that collide. Memory is at
// most about 50 bytes a name and is kept for the next document.
// Regime: C++.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace pulse::decode {

uint32_t HashName(std::string_view name, uint64_t seed);

class KeyIndex {
  public:
    static constexpr uint32_t kNone = UINT32_MAX;
    static constexpr uint32_t kLinearKeys = 16;

    // What an open object has to remember of its names.
    struct Object {
        uint32_t id = 0;
        uint32_t last = kNone;
        uint32_t count = 0;
    };

    void Reset(); // a new document
    Object Open();
    // False when the object has the name already. name must live as long as the document.
    bool Add(Object *object, std::string_view name, uint32_t hash);
    bool Contains(const Object &object, std::string_view name, uint32_t hash) const;

    // The name added as number position; Add gives the newest as object->last.
    std::string_view name(uint32_t position) const;
    uint32_t hash(uint32_t position) const { return entries_[position].hash; }

  private:
    struct Entry {
        const char *text;
        uint32_t length;
        uint32_t hash;
        uint32_t object_id;
        uint32_t previous; // of the same object
    };

    bool IsSame(const Entry &entry, std::string_view name, uint32_t hash) const;
    bool IsInTable(uint32_t object_id, std::string_view name, uint32_t hash) const;
    void AddToTable(uint32_t position);
    void GrowTable();

    std::vector<Entry> entries_;
    std::vector<uint32_t> slots_;  // position + 1, 0 is free; the first slot_count_ are in use
    std::vector<uint32_t> moving_; // scratch of GrowTable
    uint32_t slot_count_ = 0;
    uint32_t slots_taken_ = 0;
    uint32_t next_id_ = 0;
};

} // namespace pulse::decode
