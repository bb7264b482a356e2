// A pipeline's JSON Schema at work: RapidJSON's validator, compiled once per decoder from what the
// walk of schema_check.hpp let through. It reads the document a second time; without a schema
// nothing of this happens. Regime: C++, one per thread: the validator's regular expressions have
// state.
#pragma once

#include <memory>
#include <string_view>

#include "base/arena.hpp"
#include "decode/reject.hpp"

namespace pulse::decode {

class Schema {
  public:
    // schema has passed CheckSchema(); one that has not lets nothing pass.
    explicit Schema(std::string_view schema);
    ~Schema();
    Schema(const Schema &) = delete;
    Schema &operator=(const Schema &) = delete;

    // Judges a document that the scanner has found sound. False: *reject says where (path) and by
    // which rule of the schema (message: #/pointer/keyword).
    bool Judge(std::string_view document, Arena &arena, Reject *reject);

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace pulse::decode
