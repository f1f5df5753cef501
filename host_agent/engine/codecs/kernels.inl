// Bodies of the codec's inner loops. A kernels_*.cpp defines WIRESUM_KERNELS (the table's name) and
// WIRESUM_KERNELS_NAME and includes this file; CMake compiles each for its instruction set.
//
// Everything is in an unnamed namespace and nothing of the standard library is called: an inline
// function compiled here for AVX-512 must never be the copy that the linker keeps for all.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "codecs/kernels.hpp"

namespace wiresum {
namespace {

#include "codecs/half.inl"
#include "codecs/lanes.inl"

// Adding 1.5 * 2^23 to a float of less than 2^22 rounds it to nearest even, and leaves the integer
// in the low bits: no conversion, in any instruction set.
constexpr float kRounder = 12582912.0f;
constexpr std::uint32_t kRounderBits = 0x4b400000u;

#if defined(__AVX2__)
#include "codecs/vectors.inl"
#endif

#include "codecs/each.inl"
#include "codecs/levels.inl"

// Round to nearest even, as an integer.
inline std::int32_t round_to_int(float value) {
#if defined(__GNUC__) && !defined(__clang__)
  return __builtin_irintf(value);
#else
  return static_cast<std::int32_t>(__builtin_rintf(value));
#endif
}

std::uint32_t max_bits_float32(const void* in, std::size_t n) {
  const auto* bytes = static_cast<const unsigned char*>(in);
  std::int32_t best = 0;  // signed: SSE4.1 and AVX have it, and |x| never has the top bit set
  std::size_t i = 0;
#if defined(__AVX2__)
  best = max_vectors_32(bytes, n, i);
#endif
  for (; i < n; ++i) {
    std::int32_t bits;
    std::memcpy(&bits, bytes + 4 * i, 4);
    bits &= 0x7fffffff;
    best = bits > best ? bits : best;
  }
  return static_cast<std::uint32_t>(best);
}

std::int32_t max_bits_16(const void* in, std::size_t n) {
  const auto* bytes = static_cast<const unsigned char*>(in);
  std::int16_t best = 0;
  std::size_t i = 0;
#if defined(__AVX2__)
  best = max_vectors_16(bytes, n, i);
#endif
  for (; i < n; ++i) {
    std::int16_t bits;
    std::memcpy(&bits, bytes + 2 * i, 2);
    bits = static_cast<std::int16_t>(bits & 0x7fff);
    best = bits > best ? bits : best;
  }
  return best;
}

// F16C's conversions differ from half.inl's only in the payload of NaNs, and no NaN reaches them.

// Both conversions are monotone, so the largest half has the largest float.
std::uint32_t max_bits_float16(const void* in, std::size_t n) {
  return float16_to_bits(static_cast<std::uint32_t>(max_bits_16(in, n)));
}

std::uint32_t max_bits_bfloat16(const void* in, std::size_t n) {
  return static_cast<std::uint32_t>(max_bits_16(in, n)) << 16;
}

void load_float16(const void* in, std::size_t n, float* out) {
  const auto* bytes = static_cast<const unsigned char*>(in);
  std::size_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    __m128i halves;
    std::memcpy(&halves, bytes + 2 * i, sizeof(halves));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
  }
#endif
  for (; i < n; ++i) {
    std::uint16_t half;
    std::memcpy(&half, bytes + 2 * i, 2);
    out[i] = as_float(float16_to_bits(half));
  }
}

void load_bfloat16(const void* in, std::size_t n, float* out) {
  const auto* bytes = static_cast<const unsigned char*>(in);
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t half;
    std::memcpy(&half, bytes + 2 * i, 2);
    out[i] = as_float(static_cast<std::uint32_t>(half) << 16);
  }
}

void store_float16(const float* in, std::size_t n, void* out) {
  auto* bytes = static_cast<unsigned char*>(out);
  std::size_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(bytes + 2 * i, &halves, sizeof(halves));
  }
#endif
  for (; i < n; ++i) {
    const auto half = static_cast<std::uint16_t>(bits_to_float16(as_bits(in[i])));
    std::memcpy(bytes + 2 * i, &half, 2);
  }
}

void store_bfloat16(const float* in, std::size_t n, void* out) {
  auto* bytes = static_cast<unsigned char*>(out);
  for (std::size_t i = 0; i < n; ++i) {
    const auto half = static_cast<std::uint16_t>(bits_to_bfloat16(as_bits(in[i])));
    std::memcpy(bytes + 2 * i, &half, 2);
  }
}

// kCount: n where it is known when this is compiled, or 0.
template <int kBits, std::size_t kCount>
inline void quantize_run(const float* in, std::size_t count, const QuantizeParams& params,
                         std::uint8_t* lanes) {
  using Field = typename FieldType<kBits>::type;
  const std::size_t n = kCount == 0 ? count : kCount;
  const float a = params.a;
  const float b = params.b;
  const float high = params.limit;
  const float low = -params.limit;
  const std::uint32_t offset = params.offset;
  alignas(64) Field fields[kMaxRun];
  for (std::size_t i = 0; i < n; ++i) {
    float y = (in[i] * a) * b;
    // If the tensor is written to while it is reduced, nothing may wrap: NaN becomes `high`.
    y = y < high ? y : high;
    y = y > low ? y : low;
    if constexpr (kBits == 32) {
      fields[i] = static_cast<std::uint32_t>(round_to_int(y)) + offset;
    } else {
      fields[i] = static_cast<Field>(as_bits(y + kRounder) + (offset - kRounderBits));
    }
  }
  pack(fields, n, lanes);
}

template <Dtype kDtype>
inline void load(const unsigned char* in, std::size_t n, float* out) {
  if constexpr (kDtype == Dtype::Float32) {
    std::memcpy(out, in, n * sizeof(float));
  } else if constexpr (kDtype == Dtype::Float16) {
    load_float16(in, n, out);
  } else {
    load_bfloat16(in, n, out);
  }
}

template <Dtype kDtype>
inline void store(const float* in, std::size_t n, unsigned char* out) {
  if constexpr (kDtype == Dtype::Float32) {
    std::memcpy(out, in, n * sizeof(float));
  } else if constexpr (kDtype == Dtype::Float16) {
    store_float16(in, n, out);
  } else {
    store_bfloat16(in, n, out);
  }
}

template <int kBits, Dtype kDtype>
void quantize(const void* in, std::size_t n, const QuantizeParams& params, std::uint8_t* lanes) {
  constexpr std::size_t kPerLane = 32 / kBits;
  const auto* bytes = static_cast<const unsigned char*>(in);
#if defined(__AVX2__)
  const std::size_t done = quantize_vectors<kBits, kDtype>(bytes, n, params, lanes);
  if (done == n) return;
  bytes += done * (kDtype == Dtype::Float32 ? 4 : 2);
  n -= done;
  lanes += done * kBits / 8;
#endif
  if (kDtype == Dtype::Float32 && n == kMaxRun) {
    return quantize_run<kBits, kMaxRun>(reinterpret_cast<const float*>(bytes), n, params, lanes);
  }
  alignas(64) float values[kMaxRun];
  load<kDtype>(bytes, n, values);
  if (n == kMaxRun) return quantize_run<kBits, kMaxRun>(values, n, params, lanes);
  std::size_t padded = n;
  while (padded % kPerLane != 0) values[padded++] = 0.0f;
  quantize_run<kBits, 0>(values, padded, params, lanes);
}

// The quotient that `scale` stands for, rounded once to float.
template <typename Field>
inline void dequantize_exactly(const Field* fields, std::size_t n, const DequantizeParams& params,
                               float* out) {
  const std::uint32_t offset = params.offset;
  const double scale = params.scale;
  // The true quotient sum * M / D has small integers (sum, M's mantissa, D) in it: unless it is
  // exactly half way between two floats, it is further than 2^-47 of itself from there. The product
  // is off by at most 2^-52: rounding it to 48 bits first (Dekker's splitting) puts it on the half
  // way point, or leaves it on its side, so that the result is the quotient correctly rounded.
  for (std::size_t i = 0; i < n; ++i) {
    const auto sum = static_cast<std::int32_t>(fields[i] - offset);
    const double product = static_cast<double>(sum) * scale;
    const double spread = product * 33.0;
    out[i] = static_cast<float>(spread - (spread - product));
  }
}

// kCount: n where it is known when this is compiled, or 0.
template <int kBits, std::size_t kCount>
inline void dequantize_run(const std::uint8_t* lanes, std::size_t count,
                           const DequantizeParams& params, float* out) {
  const std::size_t n = kCount == 0 ? count : kCount;
  alignas(64) typename FieldType<kBits>::type fields[kMaxRun];
  unpack(lanes, n, fields);
  if (!params.in_float) return dequantize_exactly(fields, n, params, out);
  const float high = params.high;
  const float low = params.low;
  for (std::size_t i = 0; i < n; ++i) {
    const auto sum = static_cast<float>(static_cast<std::int32_t>(fields[i] - params.offset));
    if constexpr (kBits == 32) {
      out[i] = sum * high;
    } else {
      out[i] = sum * high + sum * low;
    }
  }
}

template <int kBits, Dtype kDtype>
void dequantize(const std::uint8_t* lanes, std::size_t n, const DequantizeParams& params,
                void* out) {
  constexpr std::size_t kPerLane = 32 / kBits;
  auto* bytes = static_cast<unsigned char*>(out);
#if defined(__AVX2__)
  if (params.in_float) {
    const std::size_t done = dequantize_vectors<kBits, kDtype>(lanes, n, params, bytes);
    if (done == n) return;
    lanes += done * kBits / 8;
    n -= done;
    bytes += done * (kDtype == Dtype::Float32 ? 4 : 2);
  }
#endif
  if (kDtype == Dtype::Float32 && n == kMaxRun) {
    return dequantize_run<kBits, kMaxRun>(lanes, n, params, reinterpret_cast<float*>(bytes));
  }
  alignas(64) float values[kMaxRun];
  if (n == kMaxRun) {
    dequantize_run<kBits, kMaxRun>(lanes, n, params, values);
  } else {
    dequantize_run<kBits, 0>(lanes, (n + kPerLane - 1) / kPerLane * kPerLane, params, values);
  }
  store<kDtype>(values, n, bytes);
}

template <int kBits>
constexpr QuantizeKernels kQuantizers = {quantize<kBits, Dtype::Float32>,
                                         quantize<kBits, Dtype::Float16>,
                                         quantize<kBits, Dtype::Bfloat16>};
template <int kBits>
constexpr DequantizeKernels kDequantizers = {dequantize<kBits, Dtype::Float32>,
                                             dequantize<kBits, Dtype::Float16>,
                                             dequantize<kBits, Dtype::Bfloat16>};

}  // namespace

const Kernels WIRESUM_KERNELS = {
    .name = WIRESUM_KERNELS_NAME,
    .max_bits = {max_bits_float32, max_bits_float16, max_bits_bfloat16},
    .load = {nullptr, load_float16, load_bfloat16},
    .store = {nullptr, store_float16, store_bfloat16},
    .quantize = {kQuantizers<32>, kQuantizers<16>, kQuantizers<8>},
    .dequantize = {kDequantizers<32>, kDequantizers<16>, kDequantizers<8>},
    .codes_of_each = codes_of_each,
    .quantize_each = quantize_each,
    .dequantize_each = dequantize_each,
    .levels =
        {
            .random_words = random_words,
            .nearest = to_levels,
            .nearest_of_two = to_two_levels,
            .random = to_random_levels,
            .values = from_levels,
            .sum_of_magnitudes = sum_of_magnitudes,
            .sum_of_squares = sum_of_squares,
            .hadamard = hadamard,
            .turn_signs = turn_signs,
            .pack = {nullptr, pack_levels<1>, pack_levels<2>, pack_levels<3>, pack_levels<4>,
                     pack_levels<5>, pack_levels<6>, pack_levels<7>, pack_levels<8>, pack_levels<9>,
                     pack_levels<10>, pack_levels<11>, pack_levels<12>, pack_levels<13>,
                     pack_levels<14>, pack_levels<15>, pack_levels<16>},
            .unpack = {nullptr, unpack_levels<1>, unpack_levels<2>, unpack_levels<3>,
                       unpack_levels<4>, unpack_levels<5>, unpack_levels<6>, unpack_levels<7>,
                       unpack_levels<8>, unpack_levels<9>, unpack_levels<10>, unpack_levels<11>,
                       unpack_levels<12>, unpack_levels<13>, unpack_levels<14>, unpack_levels<15>,
                       unpack_levels<16>},
        },
};

}  // namespace wiresum
