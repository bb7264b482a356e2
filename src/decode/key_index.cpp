// Duplicate names; see key_index.hpp.
#include "decode/key_index.hpp"

#include <algorithm>
#include <cstring>

namespace pulse::decode {

namespace {

constexpr uint32_t kFirstSlotCount = 64;

// Both halves of the 128-bit product: every input bit reaches every output bit.
uint64_t
Mix(uint64_t left, uint64_t right)
{
    auto product = static_cast<unsigned __int128>(left) * right;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

template <typename Word>
uint64_t
Load(const char *bytes)
{
    Word word;
    std::memcpy(&word, bytes, sizeof(word));
    return word;
}

uint32_t
SlotHash(uint32_t object_id, uint32_t hash)
{
    return static_cast<uint32_t>((uint64_t{hash} << 32 | object_id) * 0x9E3779B97F4A7C15 >> 32);
}

} // namespace

uint32_t
HashName(std::string_view name, uint64_t seed)
{
    constexpr uint64_t kOdd = 0xA0761D6478BD642F;
    uint64_t state = seed ^ name.size() * kOdd;
    const char *next = name.data();
    size_t left = name.size();
    for (; left > 8; left -= 8, next += 8)
        state = Mix(state ^ Load<uint64_t>(next), seed | 1);
    // Loads that overlap: a memcpy of unknown length would be a call.
    if (name.size() >= 8)
        state ^= Load<uint64_t>(next + left - 8);
    else if (left >= 4)
        state ^= Load<uint32_t>(next) | Load<uint32_t>(next + left - 4) << 32;
    else if (left > 0)
        state ^= Load<uint8_t>(next) | Load<uint8_t>(next + left / 2) << 8 |
                 Load<uint8_t>(next + left - 1) << 16;
    return static_cast<uint32_t>(Mix(state ^ kOdd, seed ^ 0xE7037ED1A0B428DB));
}

void
KeyIndex::Reset()
{
    entries_.clear();
    if (slots_taken_ > 0)
        std::fill_n(slots_.begin(), slot_count_, 0);
    // Back to the small table: clearing a large one for every document would cost more than it
    // does.
    slot_count_ = 0;
    slots_taken_ = 0;
    next_id_ = 0;
}

KeyIndex::Object
KeyIndex::Open()
{
    Object object;
    object.id = next_id_++;
    return object;
}

bool
KeyIndex::Add(Object *object, std::string_view name, uint32_t hash)
{
    if (Contains(*object, name, hash))
        return false;
    uint32_t position = static_cast<uint32_t>(entries_.size());
    entries_.push_back(
        {name.data(), static_cast<uint32_t>(name.size()), hash, object->id, object->last});
    object->last = position;
    object->count++;
    if (object->count > kLinearKeys) {
        AddToTable(position);
    } else if (object->count == kLinearKeys) {
        for (uint32_t each = position; each != kNone; each = entries_[each].previous)
            AddToTable(each);
    }
    return true;
}

bool
KeyIndex::Contains(const Object &object, std::string_view name, uint32_t hash) const
{
    if (object.count >= kLinearKeys)
        return IsInTable(object.id, name, hash);
    for (uint32_t each = object.last; each != kNone; each = entries_[each].previous)
        if (IsSame(entries_[each], name, hash))
            return true;
    return false;
}

std::string_view
KeyIndex::name(uint32_t position) const
{
    return {entries_[position].text, entries_[position].length};
}

bool
KeyIndex::IsSame(const Entry &entry, std::string_view name, uint32_t hash) const
{
    return entry.hash == hash && entry.length == name.size() &&
           std::memcmp(entry.text, name.data(), name.size()) == 0;
}

bool
KeyIndex::IsInTable(uint32_t object_id, std::string_view name, uint32_t hash) const
{
    uint32_t mask = slot_count_ - 1;
    for (uint32_t slot = SlotHash(object_id, hash) & mask; slots_[slot] != 0;
         slot = (slot + 1) & mask) {
        const Entry &entry = entries_[slots_[slot] - 1];
        if (entry.object_id == object_id && IsSame(entry, name, hash))
            return true;
    }
    return false;
}

void
KeyIndex::AddToTable(uint32_t position)
{
    if ((slots_taken_ + 1) * 2 > slot_count_)
        GrowTable();
    const Entry &entry = entries_[position];
    uint32_t mask = slot_count_ - 1;
    uint32_t slot = SlotHash(entry.object_id, entry.hash) & mask;
    while (slots_[slot] != 0)
        slot = (slot + 1) & mask;
    slots_[slot] = position + 1;
    slots_taken_++;
}

void
KeyIndex::GrowTable()
{
    uint32_t old_count = slot_count_;
    slot_count_ = old_count == 0 ? kFirstSlotCount : old_count * 2;
    if (slots_.size() < slot_count_)
        slots_.resize(slot_count_, 0);
    // The positions move to a place of their own while the slots are dealt anew; slots past the old
    // end are zero already.
    moving_.clear();
    for (uint32_t slot = 0; slot < old_count; slot++) {
        if (slots_[slot] != 0)
            moving_.push_back(slots_[slot]);
        slots_[slot] = 0;
    }
    uint32_t mask = slot_count_ - 1;
    for (uint32_t each : moving_) {
        const Entry &entry = entries_[each - 1];
        uint32_t slot = SlotHash(entry.object_id, entry.hash) & mask;
        while (slots_[slot] != 0)
            slot = (slot + 1) & mask;
        slots_[slot] = each;
    }
}

} // namespace pulse::decode
