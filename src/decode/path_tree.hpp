// The paths of a mapping as a tree of names: which members the scanner must remember. Built once
// per Decoder, read-only afterwards. Regime: C++.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "decode/mapping.hpp"

namespace pulse::decode {

class PathTree {
  public:
    static constexpr int32_t kNone = -1;
    static constexpr int32_t kRoot = 0; // the whole document

    struct Node {
        std::string name;
        uint32_t hash = 0;
        int32_t parent = kNone;
        bool is_column = false;    // the value of a column other than the rest column
        bool is_rest = false;      // the value of the rest column's own path
        bool has_elements = false; // a child may be an array's element: "0", "17", not "01"
    };

    PathTree(const Mapping &mapping, uint64_t hash_seed);

    // The node of a member of parent's object, or kNone. hash is HashName(name, hash_seed).
    int32_t Find(int32_t parent, std::string_view name, uint32_t hash) const;
    // The node of an element of parent's array, or kNone (RFC 6901: a token in decimal).
    int32_t FindElement(int32_t parent, uint32_t index) const;

    const Node &node(int32_t position) const { return nodes_[static_cast<size_t>(position)]; }
    int32_t column_node(size_t column) const { return column_nodes_[column]; }
    size_t size() const { return nodes_.size(); }

  private:
    int32_t FindOrAdd(int32_t parent, const std::string &name);
    void BuildTable();

    uint64_t hash_seed_;
    std::vector<Node> nodes_;
    std::vector<int32_t> column_nodes_;
    std::vector<int32_t> slots_; // open addressing by parent and hash; kNone is free
};

// The path of a column: an empty one stands for its name.
std::vector<std::string> PathOf(const ColumnSpec &column);

} // namespace pulse::decode
