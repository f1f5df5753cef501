// float16 and bfloat16 to float32 and back, branch-free so that the loops vectorize; round to
// nearest even; every NaN becomes the same quiet NaN. Needs denormals on (no FTZ/DAZ).
// Included by kernels.inl only, once per instruction set, in that file's unnamed namespace.

inline float as_float(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline std::uint32_t as_bits(float value) { return std::bit_cast<std::uint32_t>(value); }

inline std::uint32_t float16_to_bits(std::uint32_t half) {
  const std::uint32_t magnitude = half & 0x7fffu;
  const std::uint32_t sign = (half & 0x8000u) << 16;
  // Normal numbers: move the exponent's bias from 15 to 127. Inf and NaN: all exponent bits.
  const std::uint32_t normal = (magnitude << 13) + (112u << 23);
  const std::uint32_t special = magnitude << 13 | 0x7f800000u;
  // Denormals: mantissa * 2^-24, exact as a difference of two floats of the same exponent.
  const std::uint32_t tiny = as_bits(as_float(magnitude + 0x3f000000u) - 0.5f);
  // 0.5f + mantissa * 2^-24 has its last bit at 2^-24.
  const std::uint32_t finite = magnitude < 0x0400u ? tiny : normal;
  return sign | (magnitude >= 0x7c00u ? special : finite);
}

inline std::uint32_t bits_to_float16(std::uint32_t bits) {
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  // Below 2^-14 the result is denormal: adding 0.5 leaves units of 2^-24, rounded by the adder.
  const std::uint32_t tiny =
      as_bits(as_float(magnitude < 0x38800000u ? magnitude : 0u) + 0.5f) - 0x3f000000u;
  const std::uint32_t odd = magnitude >> 13 & 1u;
  const std::uint32_t normal = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
  const std::uint32_t finite = magnitude < 0x38800000u ? tiny : normal;
  const std::uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  return sign | (magnitude >= 0x477ff000u ? large : finite);  // 65520 and above round to Inf
}

inline std::uint32_t bits_to_bfloat16(std::uint32_t bits) {
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return magnitude > 0x7f800000u ? 0x7fc0u : rounded;
}
