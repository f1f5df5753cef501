#include "codecs/block_float.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "big_endian.hpp"
#include "codecs/arithmetic.hpp"

namespace wiresum {
namespace {

// 2^exponent for exponents of normal floats.
float power_of_two(int exponent) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}

double double_power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52);
}

struct Magnitude {
  double fraction;  // M = fraction * 2^exponent, 0.5 <= fraction < 1
  int exponent;
};

Magnitude magnitude_of(std::uint32_t code) {
  if (code >= 0x00800000u) {  // normal
    return {static_cast<double>(std::bit_cast<float>((code & 0x007fffffu) | 126u << 23)),
            static_cast<int>(code >> 23) - 126};
  }
  Magnitude result;
  result.fraction = std::frexp(static_cast<double>(std::bit_cast<float>(code)), &result.exponent);
  return result;
}

void load(Dtype dtype, const void* in, std::size_t n, float* out) {
  if (dtype == Dtype::Float32) {
    std::memcpy(out, in, n * sizeof(float));
  } else {
    kernels().load[static_cast<int>(dtype)](in, n, out);
  }
}

}  // namespace

BlockFloat::BlockFloat(std::uint64_t workers, Field field)
    : Codec(workers, field, kBlock), level_exponent_(std::bit_width(level_) - 1) {}

std::uint32_t BlockFloat::exponent(Dtype dtype, const void* block, std::size_t n) {
  const std::uint32_t bits = kernels().max_bits[static_cast<int>(dtype)](block, n);
  return is_finite_code(bits) ? bits : kNonFinite;
}

void BlockFloat::exponents(Dtype dtype, const void* in, std::size_t n, std::uint8_t* codes) const {
  const auto* bytes = static_cast<const std::byte*>(in);
  for (std::size_t done = 0; done < n; done += kBlock) {
    const std::uint32_t code =
        exponent(dtype, bytes + done * size_of(dtype), std::min(kBlock, n - done));
    store_big_endian(codes + done / kBlock * 4, code);
  }
}

std::size_t BlockFloat::encode(Dtype dtype, const void* in, std::size_t n,
                               const std::uint32_t* codes, std::uint8_t* lanes) const {
  const Kernels& table = kernels();
  const Magnitude m = magnitude_of(*codes);
  // The factor is split in two, since for denormal M it exceeds what a float can hold: `a` is a
  // power of two, so the first product is exact (or so small that the second one rounds to 0).
  QuantizeParams params;
  const int shift = (field_ == Field::F32 ? level_exponent_ : 0) - m.exponent;
  const int first = shift / 2;
  params.a = power_of_two(first);
  params.b = power_of_two(shift - first);
  if (field_ == Field::F32) {
    params.limit = power_of_two(level_exponent_);
  } else {
    params.b *= static_cast<float>(static_cast<double>(level_) / m.fraction);
    params.limit = static_cast<float>(level_);
  }
  params.offset = level_;

  table.quantize[static_cast<int>(field_)].of[static_cast<int>(dtype)](in, n, params, lanes);
  const std::size_t per_lane = fields_per_lane(field_);
  return (n + per_lane - 1) / per_lane;
}

void BlockFloat::decode(Dtype dtype, const std::uint8_t* lanes, std::size_t n,
                        const std::uint32_t* codes, bool average, void* out) const {
  const Kernels& table = kernels();
  const std::uint32_t code = *codes;
  const Magnitude m = magnitude_of(code);
  DequantizeParams params{};
  params.offset = static_cast<std::uint32_t>(workers_ * level_);  // nL <= 2^31 - 1
  // One step of q is 2^(e-b), or M / L in the narrow fields; an nth of it for the average.
  const double share = average ? static_cast<double>(workers_) : 1.0;
  if (field_ == Field::F32) {
    params.scale = double_power_of_two(m.exponent - level_exponent_) / share;
    const bool power_of_two = !average || std::has_single_bit(workers_);
    params.in_float = power_of_two && params.scale >= 0x1p-126;  // no result is denormal
    params.high = params.in_float ? static_cast<float>(params.scale) : 0.0f;
  } else {
    params.scale = static_cast<double>(std::bit_cast<float>(code)) / (level_ * share);
    params.in_float = params.scale >= 0x1p-80;  // and no small part is, either
    // Towards zero, so that the product with `high` never overflows where the sum does not.
    params.high = std::bit_cast<float>(
        std::bit_cast<std::uint32_t>(static_cast<float>(params.scale)) & 0xffff0000u);
    params.low = static_cast<float>(params.scale - static_cast<double>(params.high));
  }

  table.dequantize[static_cast<int>(field_)].of[static_cast<int>(dtype)](lanes, n, params, out);
}

ElementFloat::ElementFloat(std::uint64_t workers)
    : Codec(workers, Field::F32, 1), level_exponent_(std::bit_width(level_) - 1) {}

EachParams ElementFloat::params(std::uint32_t offset, double part) const {
  return {.level_exponent = level_exponent_, .level = level_, .offset = offset, .part = part};
}

void ElementFloat::exponents(Dtype dtype, const void* in, std::size_t n,
                             std::uint8_t* codes) const {
  const auto* bytes = static_cast<const std::byte*>(in);
  for (std::size_t done = 0; done < n; done += kMaxRun) {
    float values[kMaxRun];
    const std::size_t run = std::min(n - done, kMaxRun);
    load(dtype, bytes + done * size_of(dtype), run, values);
    kernels().codes_of_each(values, run, codes + 4 * done);
  }
}

std::size_t ElementFloat::encode(Dtype dtype, const void* in, std::size_t n,
                                 const std::uint32_t* codes, std::uint8_t* lanes) const {
  float values[kMaxRun];
  load(dtype, in, n, values);
  kernels().quantize_each(values, codes, n, params(0, 1), lanes);
  return n;
}

void ElementFloat::decode(Dtype dtype, const std::uint8_t* lanes, std::size_t n,
                          const std::uint32_t* codes, bool average, void* out) const {
  float values[kMaxRun];
  const double part = 1.0 / (average ? static_cast<double>(workers_) : 1.0);
  kernels().dequantize_each(lanes, codes, n,
                            params(static_cast<std::uint32_t>(workers_ * level_), part), values);
  if (dtype == Dtype::Float32) {
    std::memcpy(out, values, n * sizeof(float));
  } else {
    kernels().store[static_cast<int>(dtype)](values, n, out);
  }
}

}  // namespace wiresum
