// Block floating point: one exponent code for each block of elements.
#pragma once

#include "codecs/codec.hpp"

namespace wiresum {

inline constexpr std::size_t kBlock = 256;  // elements that share one exponent
static_assert(kBlock == kMaxRun);

// Blocks of 256 elements, fields of 32, 16 or 8 bits.
class BlockFloat final : public Codec {
 public:
  BlockFloat(std::uint64_t workers, Field field);

  // Of one block of n <= kBlock elements.
  static std::uint32_t exponent(Dtype dtype, const void* block, std::size_t n);

  void exponents(Dtype dtype, const void* in, std::size_t n, std::uint8_t* codes) const override;
  std::size_t encode(Dtype dtype, const void* in, std::size_t n, const std::uint32_t* codes,
                     std::uint8_t* lanes) const override;
  void decode(Dtype dtype, const std::uint8_t* lanes, std::size_t n, const std::uint32_t* codes,
              bool average, void* out) const override;

 private:
  int level_exponent_;  // b: 2^b is the largest power of two <= L
};

// Each element is a block of its own, in a field of 32 bits.
class ElementFloat final : public Codec {
 public:
  explicit ElementFloat(std::uint64_t workers);

  bool gathers() const override { return true; }
  void exponents(Dtype dtype, const void* in, std::size_t n, std::uint8_t* codes) const override;
  std::size_t encode(Dtype dtype, const void* in, std::size_t n, const std::uint32_t* codes,
                     std::uint8_t* lanes) const override;
  void decode(Dtype dtype, const std::uint8_t* lanes, std::size_t n, const std::uint32_t* codes,
              bool average, void* out) const override;

 private:
  EachParams params(std::uint32_t offset, double part) const;

  int level_exponent_;
};

}  // namespace wiresum
