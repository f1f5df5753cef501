// The interface of every codec: it converts the elements of a tensor to exponent codes and lanes,
// and sums of lanes back to elements. A field of F bits carries u = q + L with |q| <= L, and n
// fields sum without a carry, so that a switch can add lanes of 32 bits. Knows neither packets nor
// streams.
//
// A collective has one codec; all ranks choose the same one (see codecs.hpp). The
// virtual functions are called once for each run of elements, never for one element.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "codecs/kernels.hpp"

namespace wiresum {

// Exponent codes: 0 = all zero, kNonFinite = holds Inf or NaN, otherwise the float32 bits of
// max|x|.
inline constexpr std::uint32_t kNonFinite = 0xffffffffu;

inline bool is_finite_code(std::uint32_t code) { return code < 0x7f800000u; }
// After MAX, all ranks know the blocks that are zero on all ranks or not finite on any: they are
// never sent.
inline bool is_sent(std::uint32_t code) { return code != 0 && is_finite_code(code); }
// Writes +0.0 or NaN for elements that were not sent.
void fill_unsent(Dtype dtype, std::uint32_t code, void* out, std::size_t n);

inline constexpr std::size_t size_of(Dtype dtype) {
  return dtype == Dtype::Float16 || dtype == Dtype::Bfloat16 ? 2 : 4;
}
inline constexpr bool is_float(Dtype dtype) { return dtype <= Dtype::Bfloat16; }
std::optional<Dtype> parse_dtype(std::string_view name);
const char* name_of(Dtype dtype);
// Throws EngineError (kind Codec) for an average of what is no float.
void check_average(Dtype dtype, bool average);
std::optional<Field> parse_field(int bits);
inline constexpr unsigned bits_of(Field field) { return 32u >> static_cast<unsigned>(field); }
inline constexpr unsigned fields_per_lane(Field field) { return 32u / bits_of(field); }

// L = floor((2^F - 1) / 2n): n fields of q + L, |q| <= L, sum without a carry out of the field.
std::uint32_t budget(std::uint64_t workers, int bits);
inline std::uint32_t budget(std::uint64_t workers, Field field) {
  return budget(workers, static_cast<int>(bits_of(field)));
}
// The same; throws EngineError (kind Codec), with advice, if it is 0.
std::uint32_t checked_budget(std::uint64_t workers, int bits);
// Which wider field has a budget, for the end of an error line; empty if none has.
std::string advice(std::uint64_t workers, int bits);

class Codec {
 public:
  virtual ~Codec() = default;
  Codec(const Codec&) = delete;
  Codec& operator=(const Codec&) = delete;

  Field field() const { return field_; }
  std::size_t block_elements() const { return block_elements_; }  // that share one exponent code
  std::uint32_t level() const { return level_; }                  // L, the encoding of zero
  std::uint32_t zero_lane() const { return zero_lane_; }  // a lane whose fields are all zero

  // Whether each element that is sent has a code of its own, and is gathered with the others.
  virtual bool gathers() const { return false; }
  // Whether the agreed codes are the whole result, so that there are never any lanes.
  virtual bool codes_only() const { return false; }
  // What becomes of a block with this agreed code: it is sent; or left as it is, if the caller
  // wants that; or written by fill() on the readers, and never sent.
  virtual bool sends(std::uint32_t code) const { return is_sent(code); }
  virtual bool nonfinite(std::uint32_t code) const { return !is_finite_code(code); }
  virtual void fill(Dtype dtype, std::uint32_t code, void* out, std::size_t n) const {
    fill_unsent(dtype, code, out, n);
  }

  // Exponent codes of the blocks of n elements, big-endian; the last block may be short.
  virtual void exponents(Dtype dtype, const void* in, std::size_t n, std::uint8_t* codes) const = 0;

  // Quantizes a run of n <= kMaxRun elements into ceil(n / fields_per_lane) big-endian lanes, and
  // returns how many; the rest of the last lane encodes zero. The run is of whole blocks, or of a
  // part of one; `codes` are the agreed codes of these blocks, sends() all of them.
  virtual std::size_t encode(Dtype dtype, const void* in, std::size_t n, const std::uint32_t* codes,
                             std::uint8_t* lanes) const = 0;

  // Inverse of encode for the sum over all workers: sum, or sum / workers if `average`.
  virtual void decode(Dtype dtype, const std::uint8_t* lanes, std::size_t n,
                      const std::uint32_t* codes, bool average, void* out) const = 0;

 protected:
  // Throws EngineError (kind Codec) if L would be 0.
  Codec(std::uint64_t workers, Field field, std::size_t block_elements);

  const std::uint64_t workers_;
  const Field field_;
  const std::size_t block_elements_;
  std::uint32_t level_;
  std::uint32_t zero_lane_;
};

}  // namespace wiresum
