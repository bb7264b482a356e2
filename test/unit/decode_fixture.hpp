// What the decoder's tests share: mappings in one line, a decode that owns its memory, and cells as
// text one can compare.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/timestamp.hpp"
#include "base/utf8.hpp"
#include "decode/decoder.hpp"

namespace pulse::decode {

constexpr int64_t kTestNowUs = 1795178096000000; // 2026-11-20T12:34:56Z

// A mapping under construction; every column is named by its path.
class MappingBuilder {
  public:
    MappingBuilder() { mapping_->limits.reject_older_than_us = 0; }

    MappingBuilder &Add(const std::string &name, ColumnType type,
                        std::vector<std::string> path = {})
    {
        ColumnSpec column;
        column.name = name;
        column.type = type;
        column.path = path.empty() ? std::vector<std::string>{name} : std::move(path);
        mapping_->columns.push_back(column);
        return *this;
    }

    // The rest column.
    MappingBuilder &Rest(const std::string &name = "properties", std::vector<std::string> path = {})
    {
        Add(name, ColumnType::kJson, std::move(path));
        mapping_->rest_column = static_cast<int>(mapping_->columns.size()) - 1;
        return *this;
    }

    MappingBuilder &Unknown(UnknownFields policy)
    {
        mapping_->unknown_fields = policy;
        return *this;
    }

    MappingBuilder &Required()
    {
        last().is_required = true;
        return *this;
    }

    ColumnSpec &last() { return mapping_->columns.back(); }
    Limits &limits() { return mapping_->limits; }
    std::shared_ptr<const Mapping> Build() const { return mapping_; }

  private:
    std::shared_ptr<Mapping> mapping_ = std::make_shared<Mapping>();
};

// The mapping of raw.events.
inline MappingBuilder
EventsMapping()
{
    MappingBuilder builder;
    builder.Add("event_id", ColumnType::kText);
    builder.Add("event_type", ColumnType::kText).Required();
    builder.Add("user_id", ColumnType::kText).Required();
    builder.Add("event_timestamp", ColumnType::kTimestamp).Required();
    builder.last().is_event_time = true;
    builder.Add("funnel_step_index", ColumnType::kInt2);
    builder.Add("page_url", ColumnType::kText).Add("referrer", ColumnType::kText);
    builder.Add("device", ColumnType::kText).Rest();
    return builder;
}

// The result of one decode. The value is copied to a block of exactly its size, so that the address
// sanitizer sees a read past its end.
class Decoded {
  public:
    Decoded(Decoder &decoder, std::string_view value)
        : bytes_(new char[value.size()]), value_(bytes_.get(), value.size()),
          cells_(decoder.mapping().columns.size())
    {
        std::memcpy(bytes_.get(), value.data(), value.size());
        is_event_ = decoder.Decode(value_, kTestNowUs, arena_, cells_.data(), &reject_);
    }

    Decoded(const std::shared_ptr<const Mapping> &mapping, std::string_view value)
        : Decoded(*std::make_unique<Decoder>(mapping), value)
    {
    }

    bool is_event() const { return is_event_; }
    const Cell &cell(size_t column) const { return cells_[column]; }
    const Reject &reject() const { return reject_; }
    std::string_view value() const { return value_; }
    const Arena &arena() const { return arena_; }
    bool IsInValue(std::string_view text) const
    {
        return text.data() >= value_.data() &&
               text.data() + text.size() <= value_.data() + value_.size();
    }

    // "code path: message", or "event".
    std::string Outcome() const
    {
        if (is_event_)
            return "event";
        std::string outcome(InfoOf(reject_.code).name);
        if (reject_.path.data() != nullptr)
            outcome += " " + std::string(reject_.path);
        return outcome + ": " + std::string(reject_.message);
    }

    // "event" or the name of the error code.
    std::string Code() const
    {
        return is_event_ ? "event" : std::string(InfoOf(reject_.code).name);
    }

    // A cell as text, its kind in front.
    std::string Show(size_t column) const
    {
        const Cell &shown = cells_[column];
        switch (shown.kind) {
        case CellKind::kMissing:
            return "missing";
        case CellKind::kNull:
            return "null";
        case CellKind::kText:
            return "text " + std::string(shown.view());
        case CellKind::kJson:
            return "json " + std::string(shown.view());
        case CellKind::kInteger:
            return "integer " + std::to_string(shown.integer);
        case CellKind::kReal: {
            char text[40];
            std::snprintf(text, sizeof(text), "real %.17g", shown.real);
            return text;
        }
        case CellKind::kBool:
            return shown.integer == 1 ? "bool true" : "bool false";
        case CellKind::kTimestamp:
            return "timestamp " + std::to_string(shown.integer);
        case CellKind::kDate:
            return "date " + std::to_string(shown.integer);
        }
        return "?";
    }

  private:
    std::unique_ptr<char[]> bytes_;
    std::string_view value_;
    Arena arena_;
    std::vector<Cell> cells_;
    Reject reject_;
    bool is_event_ = false;
};

} // namespace pulse::decode
