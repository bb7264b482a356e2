// Expected failures are values. Status is a success or a message for people; Result<T> adds a
// value. Used where C++ code (decode, kafka, ingest) reports failure to its caller; PostgreSQL
// errors are pg::Error (src/pg/boundary.hpp) instead.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace pulse {

class Status {
  public:
    static Status Ok() { return Status(); }
    static Status Error(std::string message) { return Status(std::move(message)); }

    bool ok() const { return !message_; }
    const std::string &message() const { return *message_; }

  private:
    Status() = default;
    explicit Status(std::string message) : message_(std::move(message)) {}
    std::optional<std::string> message_;
};

template <typename T> class Result {
  public:
    Result(T value) : value_(std::move(value)) {}         // NOLINT: implicit by design
    Result(Status status) : status_(std::move(status)) {} // NOLINT: implicit by design

    bool ok() const { return value_.has_value(); }
    T &value() { return *value_; }
    const T &value() const { return *value_; }
    const std::string &message() const { return status_.message(); }

  private:
    std::optional<T> value_;
    Status status_ = Status::Ok();
};

} // namespace pulse
