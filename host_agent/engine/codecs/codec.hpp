// Block floating point: one exponent code per block of elements, fields of 32, 16 or 8 bits that a
// switch can add as 32-bit lanes. Knows neither packets nor streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "codecs/kernels.hpp"

namespace wiresum {

inline constexpr std::size_t kBlock = 256;  // elements that share one exponent
static_assert(kBlock == kMaxRun);

// Tensors of so few elements are metrics, norms and flags, whose values have nothing to do with
// each other: each element has an exponent of its own, and a 32-bit field whatever the lease's
// width.
inline constexpr std::uint64_t kSmall = 1024;
inline constexpr std::size_t block_of(std::uint64_t count) { return count <= kSmall ? 1 : kBlock; }

// Exponent codes: 0 = all zero, kNonFinite = holds Inf or NaN, otherwise the float32 bits of
// max|x|.
inline constexpr std::uint32_t kNonFinite = 0xffffffffu;

inline bool is_finite_code(std::uint32_t code) { return code < 0x7f800000u; }
// Blocks that are zero or not finite on any rank are known to all after MAX and never sent.
inline bool is_sent(std::uint32_t code) { return code != 0 && is_finite_code(code); }

inline constexpr std::size_t size_of(Dtype dtype) { return dtype == Dtype::Float32 ? 4 : 2; }
std::optional<Dtype> parse_dtype(std::string_view name);
std::optional<Field> parse_field(int bits);
inline constexpr unsigned bits_of(Field field) { return 32u >> static_cast<unsigned>(field); }
inline constexpr unsigned fields_per_lane(Field field) { return 32u / bits_of(field); }

// L = floor((2^F - 1) / 2n): n fields of q + L, |q| <= L, sum without a carry out of the field.
std::uint32_t budget(std::uint64_t workers, Field field);

// Instruction sets: the best one that this machine has, unless another was chosen.
const Kernels& kernels();
bool use_kernels(std::string_view name);

// Arithmetic as IEEE 754 has it while one of these lives: round to nearest, denormals kept,
// whatever the thread was set to (torch.set_flush_denormal, inherited by new threads).
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment();
  ~DefaultFloatEnvironment();
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
  alignas(16) unsigned char saved_[64];
};

class Codec {
 public:
  // Throws EngineError (kind Codec) if L would be 0.
  Codec(std::uint64_t workers, Field field);

  Field field() const { return field_; }
  std::uint32_t level() const { return level_; }          // L, the encoding of zero
  std::uint32_t zero_lane() const { return zero_lane_; }  // a lane whose fields are all zero

  static std::uint32_t exponent(Dtype dtype, const void* block, std::size_t n);
  // Of n blocks of one element each, big-endian.
  static void exponents_of_each(Dtype dtype, const void* in, std::size_t n, std::uint8_t* codes);

  // Quantize n <= 256 elements with the agreed code (is_sent(code)) into ceil(n / fields_per_lane)
  // big-endian lanes; the rest of the last lane encodes zero. Returns the lanes written.
  std::size_t encode(Dtype dtype, const void* in, std::size_t n, std::uint32_t code,
                     std::uint8_t* lanes) const;

  // Inverse of encode for the sum over all workers: sum, or sum / workers if `average`.
  void decode(Dtype dtype, const std::uint8_t* lanes, std::size_t n, std::uint32_t code,
              bool average, void* out) const;

  // The same for n <= 256 blocks of one element, which have a code each; 32-bit fields only.
  void encode_each(Dtype dtype, const void* in, std::size_t n, const std::uint32_t* codes,
                   std::uint8_t* lanes) const;
  void decode_each(Dtype dtype, const std::uint8_t* lanes, std::size_t n,
                   const std::uint32_t* codes, bool average, void* out) const;

  // What every rank writes for a block that was not sent: +0.0, or NaN.
  static void fill_unsent(Dtype dtype, std::uint32_t code, void* out, std::size_t n);

 private:
  std::uint64_t workers_;
  Field field_;
  std::uint32_t level_;
  std::uint32_t zero_lane_;
  int level_exponent_;  // b: 2^b is the largest power of two <= L
};

}  // namespace wiresum
