// Words that are reduced as they are, without exponents of a float.
#pragma once

#include "codecs/block_float.hpp"
#include "codecs/codec.hpp"

namespace wiresum {

// Integers, summed mod 2^32: each is a lane. The code of a block says only whether it is sent.
class IntegerSum final : public Codec {
 public:
  explicit IntegerSum(std::uint64_t workers) : Codec(workers, Field::F32, kBlock) {
    level_ = zero_lane_ = 0;  // a sum may wrap, so there is nothing to keep apart
  }
  bool sends(std::uint32_t code) const override { return code != 0; }
  bool nonfinite(std::uint32_t) const override { return false; }
  void exponents(Dtype dtype, const void* in, std::size_t n, std::uint8_t* codes) const override;
  std::size_t encode(Dtype dtype, const void* in, std::size_t n, const std::uint32_t* codes,
                     std::uint8_t* lanes) const override;
  void decode(Dtype dtype, const std::uint8_t* lanes, std::size_t n, const std::uint32_t* codes,
              bool average, void* out) const override;
};

// The largest of unsigned words: each is its own exponent code, and the agreed one is the result.
class Largest final : public Codec {
 public:
  explicit Largest(std::uint64_t workers) : Codec(workers, Field::F32, 1) {}
  bool codes_only() const override { return true; }
  bool sends(std::uint32_t) const override { return false; }
  bool nonfinite(std::uint32_t) const override { return false; }
  void fill(Dtype dtype, std::uint32_t code, void* out, std::size_t n) const override;
  void exponents(Dtype dtype, const void* in, std::size_t n, std::uint8_t* codes) const override;
  std::size_t encode(Dtype, const void*, std::size_t, const std::uint32_t*,
                     std::uint8_t*) const override {
    return 0;
  }
  void decode(Dtype, const std::uint8_t*, std::size_t, const std::uint32_t*, bool,
              void*) const override {}
};

}  // namespace wiresum
