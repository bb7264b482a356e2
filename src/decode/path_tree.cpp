// Building and searching the tree of paths; see path_tree.hpp.
#include "decode/path_tree.hpp"

#include <charconv>

#include "decode/key_index.hpp"

namespace pulse::decode {

namespace {

size_t
SlotHash(int32_t parent, uint32_t hash)
{
    return hash ^ static_cast<uint32_t>(parent) * 0x9E3779B1U;
}

bool
IsElement(std::string_view token)
{
    return !token.empty() && token.find_first_not_of("0123456789") == std::string_view::npos &&
           (token.size() == 1 || token[0] != '0');
}

} // namespace

PathTree::PathTree(const Mapping &mapping, uint64_t hash_seed) : hash_seed_(hash_seed)
{
    nodes_.emplace_back(); // the root
    for (size_t i = 0; i < mapping.columns.size(); i++) {
        int32_t position = kRoot;
        for (const std::string &name : PathOf(mapping.columns[i]))
            position = FindOrAdd(position, name);
        Node &leaf = nodes_[static_cast<size_t>(position)];
        if (static_cast<int>(i) == mapping.rest_column)
            leaf.is_rest = true;
        else
            leaf.is_column = true;
        column_nodes_.push_back(position);
    }
    BuildTable();
}

int32_t
PathTree::Find(int32_t parent, std::string_view name, uint32_t hash) const
{
    size_t mask = slots_.size() - 1;
    for (size_t slot = SlotHash(parent, hash) & mask; slots_[slot] != kNone;
         slot = (slot + 1) & mask) {
        const Node &candidate = node(slots_[slot]);
        if (candidate.hash == hash && candidate.parent == parent && candidate.name == name)
            return slots_[slot];
    }
    return kNone;
}

int32_t
PathTree::FindElement(int32_t parent, uint32_t index) const
{
    if (!node(parent).has_elements)
        return kNone;
    char digits[16];
    char *end = std::to_chars(digits, digits + sizeof(digits), index).ptr;
    std::string_view token(digits, static_cast<size_t>(end - digits));
    return Find(parent, token, HashName(token, hash_seed_));
}

int32_t
PathTree::FindOrAdd(int32_t parent, const std::string &name)
{
    for (size_t i = 1; i < nodes_.size(); i++)
        if (nodes_[i].parent == parent && nodes_[i].name == name)
            return static_cast<int32_t>(i);
    Node node;
    node.name = name;
    node.hash = HashName(name, hash_seed_);
    node.parent = parent;
    nodes_[static_cast<size_t>(parent)].has_elements |= IsElement(name);
    nodes_.push_back(std::move(node));
    return static_cast<int32_t>(nodes_.size() - 1);
}

void
PathTree::BuildTable()
{
    size_t slot_count = 8;
    while (slot_count < nodes_.size() * 4)
        slot_count *= 2;
    slots_.assign(slot_count, kNone);
    for (size_t i = 1; i < nodes_.size(); i++) {
        size_t slot = SlotHash(nodes_[i].parent, nodes_[i].hash) & (slot_count - 1);
        while (slots_[slot] != kNone)
            slot = (slot + 1) & (slot_count - 1);
        slots_[slot] = static_cast<int32_t>(i);
    }
}

std::vector<std::string>
PathOf(const ColumnSpec &column)
{
    if (column.path.empty())
        return {column.name};
    return column.path;
}

} // namespace pulse::decode
