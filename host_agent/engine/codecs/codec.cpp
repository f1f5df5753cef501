#include "codecs/codec.hpp"

#include <cstring>
#include <iterator>
#include <string>

#include "errors.hpp"
#include "lines.hpp"

namespace wiresum {

namespace {

constexpr const char* kNames[] = {"float32", "float16", "bfloat16", "int32", "max_uint32"};

}  // namespace

std::optional<Dtype> parse_dtype(std::string_view name) {
  for (std::uint8_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) return static_cast<Dtype>(i);
  }
  return std::nullopt;
}

const char* name_of(Dtype dtype) { return kNames[static_cast<std::size_t>(dtype)]; }

void check_average(Dtype dtype, bool average) {
  if (average && !is_float(dtype)) throw EngineError(ErrorKind::Codec, lines::kNoAverage.of());
}

std::optional<Field> parse_field(int bits) {
  if (bits == 32) return Field::F32;
  if (bits == 16) return Field::F16;
  if (bits == 8) return Field::F8;
  return std::nullopt;
}

std::uint32_t budget(std::uint64_t workers, int bits) {
  const std::uint64_t largest = (std::uint64_t{1} << bits) - 1;
  return static_cast<std::uint32_t>(largest / 2 / workers);  // = floor(largest / 2n)
}

std::string advice(std::uint64_t workers, int bits) {
  for (const int wider : {8, 16, 32}) {
    if (wider > bits && workers != 0 && budget(workers, wider) != 0) {
      return "; the narrowest field that works is " + std::to_string(wider);
    }
  }
  return {};
}

std::uint32_t checked_budget(std::uint64_t workers, int bits) {
  const std::uint32_t level = workers == 0 ? 0 : budget(workers, bits);
  if (level != 0) return level;
  throw EngineError(ErrorKind::Codec, lines::kNoBudget.of(bits, workers, advice(workers, bits)));
}

Codec::Codec(std::uint64_t workers, Field field, std::size_t block_elements)
    : workers_(workers),
      field_(field),
      block_elements_(block_elements),
      level_(checked_budget(workers, static_cast<int>(bits_of(field)))) {
  zero_lane_ = 0;
  for (unsigned j = 0; j < fields_per_lane(field); ++j) zero_lane_ |= level_ << j * bits_of(field);
}

void fill_unsent(Dtype dtype, std::uint32_t code, void* out, std::size_t n) {
  if (code == 0) {
    std::memset(out, 0, n * size_of(dtype));
    return;
  }
  auto* bytes = static_cast<unsigned char*>(out);
  if (dtype == Dtype::Float32) {
    const std::uint32_t nan = 0x7fc00000u;
    for (std::size_t i = 0; i < n; ++i) std::memcpy(bytes + 4 * i, &nan, 4);
  } else {
    const std::uint16_t nan = dtype == Dtype::Float16 ? 0x7e00u : 0x7fc0u;
    for (std::size_t i = 0; i < n; ++i) std::memcpy(bytes + 2 * i, &nan, 2);
  }
}

}  // namespace wiresum
