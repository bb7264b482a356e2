// libFuzzer target of the decode library: `make -C test/unit fuzz-decode`, then
//   build/fuzz/fuzz_decode -dict=test/fuzz/json.dict -max_len=4096 CORPUS test/fuzz/seeds
// The first byte of an input picks a mapping, the rest is the value. What must hold for every input
// is checked here as in test/unit/decoder_random_test.cpp; a broken rule traps.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/timestamp.hpp"
#include "base/utf8.hpp"
#include "decode/decoder.hpp"

namespace {

using pulse::Cell;
using pulse::CellKind;
using pulse::decode::ColumnSpec;
using pulse::decode::ColumnType;
using pulse::decode::Decoder;
using pulse::decode::Mapping;
using pulse::decode::Reject;
using pulse::decode::UnknownFields;

constexpr int64_t kNowUs = 1795178096000000;

void
Check(bool condition)
{
    if (!condition)
        std::abort();
}

std::shared_ptr<const Mapping>
MakeMapping(int variant)
{
    auto mapping = std::make_shared<Mapping>();
    auto add = [&](std::vector<std::string> path, ColumnType type) {
        ColumnSpec column;
        column.name = path.back();
        column.type = type;
        column.path = std::move(path);
        mapping->columns.push_back(column);
    };
    constexpr ColumnType kTypes[] = {
        ColumnType::kText,      ColumnType::kInt2,   ColumnType::kInt4,    ColumnType::kInt8,
        ColumnType::kFloat4,    ColumnType::kFloat8, ColumnType::kNumeric, ColumnType::kBool,
        ColumnType::kTimestamp, ColumnType::kDate,   ColumnType::kUuid,    ColumnType::kJson,
        ColumnType::kOther};
    if (variant != 3) // the one without columns is the plain JSON checker
        for (size_t i = 0; i < std::size(kTypes); i++)
            add({std::string(1, static_cast<char>('a' + i))}, kTypes[i]);
    if (variant < 2) {
        add({"x", "y"}, ColumnType::kText);
        add({"properties"}, ColumnType::kJson);
        mapping->rest_column = static_cast<int>(mapping->columns.size()) - 1;
        mapping->columns[8].is_event_time = true;
        mapping->columns[0].max_bytes = 20;
    }
    mapping->unknown_fields = variant == 1 ? UnknownFields::kReject : UnknownFields::kKeep;
    return mapping;
}

Decoder &
DecoderOf(int variant)
{
    static std::unique_ptr<Decoder> decoders[4];
    if (decoders[variant] == nullptr)
        decoders[variant] = std::make_unique<Decoder>(MakeMapping(variant));
    return *decoders[variant];
}

bool
IsSound(std::string_view text)
{
    return pulse::CheckUtf8(text).fault == pulse::Utf8Fault::kNone;
}

void
CheckJson(std::string_view json)
{
    std::string wrapped = "{\"v\":" + std::string(json) + "}";
    pulse::Arena arena;
    Reject reject;
    bool is_json = DecoderOf(3).Decode(wrapped, kNowUs, arena, nullptr, &reject);
    Check(is_json || reject.code == pulse::decode::RejectCode::kDepth ||
          reject.code == pulse::decode::RejectCode::kOversize);
}

void
CheckDecode(Decoder &decoder, std::string_view value)
{
    pulse::Arena arena;
    std::vector<Cell> cells(decoder.mapping().columns.size());
    Reject reject;
    if (!decoder.Decode(value, kNowUs, arena, cells.data(), &reject)) {
        Check(!pulse::decode::InfoOf(reject.code).name.empty());
        Check(!reject.message.empty() && reject.message.size() < 1536 && IsSound(reject.message));
        Check(reject.path.size() <= 512 && IsSound(reject.path));
        for (char byte : reject.message)
            Check(static_cast<unsigned char>(byte) >= 0x20);
        return;
    }
    for (const Cell &cell : cells) {
        if (cell.kind == CellKind::kTimestamp)
            Check(cell.integer >= pulse::kMinTimestampUs && cell.integer <= pulse::kMaxTimestampUs);
        if (cell.kind != CellKind::kText && cell.kind != CellKind::kJson)
            continue;
        Check(cell.text != nullptr && IsSound(cell.view()));
        Check(cell.length <= value.size() + 2);
        if (cell.kind == CellKind::kJson)
            CheckJson(cell.view());
    }
    // Every cell lives in the value or the arena, which stays within a small multiple of it.
    Check(arena.used_bytes() <= 3 * value.size() + 64);
}

} // namespace

extern "C" int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    // A block of exactly the value's size, for the address sanitizer to see reads past its end.
    auto value = std::make_unique<char[]>(size - 1);
    std::memcpy(value.get(), data + 1, size - 1);
    CheckDecode(DecoderOf(data[0] % 4), {value.get(), size - 1});
    return 0;
}
