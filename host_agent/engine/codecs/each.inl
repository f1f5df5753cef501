// Runs of elements that have an exponent code each, always in 32-bit fields: the same numbers as a
// block of one element would give through the other loops. Doubles hold every product exactly, and
// a power of two that is made from its bits needs no table: the loops vectorize by themselves.
// Included by kernels.inl only, once per instruction set, in its unnamed namespace.

constexpr std::uint32_t kNotFinite = 0x7f800000u;

void codes_of_each(const float* in, std::size_t n, std::uint8_t* codes) {
  alignas(64) std::uint32_t words[kMaxRun];
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t bits = as_bits(in[i]) & 0x7fffffffu;
    words[i] = bits < kNotFinite ? bits : 0xffffffffu;
  }
  pack(words, n, codes);
}

// e + 1022, where M = |code| is below 2^e and not below 2^(e-1); denormals are normal as doubles.
inline std::uint64_t biased_exponent(std::uint32_t code) {
  return std::bit_cast<std::uint64_t>(static_cast<double>(as_float(code))) >> 52;
}

inline double power_of_two(std::uint64_t biased) { return std::bit_cast<double>(biased << 52); }

void quantize_each(const float* in, const std::uint32_t* codes, std::size_t n,
                   const EachParams& params, std::uint8_t* lanes) {
  // Adding 1.5 * 2^52 rounds to nearest even and leaves the integer in the low bits.
  constexpr double kRound = 6755399441055744.0;
  const auto level_exponent = static_cast<std::uint64_t>(params.level_exponent);
  const double high = power_of_two(level_exponent + 1023);
  const double low = -high;
  const std::uint32_t offset = params.level;
  alignas(64) std::uint32_t fields[kMaxRun];
  for (std::size_t i = 0; i < n; ++i) {
    const double scale = power_of_two(level_exponent + 2045 - biased_exponent(codes[i]));
    double y = static_cast<double>(in[i]) * scale;
    y = y < high ? y : high;  // as in quantize_run
    y = y > low ? y : low;
    fields[i] = static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(y + kRound)) + offset;
  }
  pack(fields, n, lanes);
}

void dequantize_each(const std::uint8_t* lanes, const std::uint32_t* codes, std::size_t n,
                     const EachParams& params, float* out) {
  const auto level_exponent = static_cast<std::uint64_t>(params.level_exponent);
  const std::uint32_t offset = params.offset;
  const double part = params.part;
  alignas(64) std::uint32_t fields[kMaxRun];
  unpack(lanes, n, fields);
  for (std::size_t i = 0; i < n; ++i) {
    const auto sum = static_cast<std::int32_t>(fields[i] - offset);
    const double scale = power_of_two(biased_exponent(codes[i]) + 1 - level_exponent) * part;
    const double product = static_cast<double>(sum) * scale;
    const double spread = product * 33.0;  // as in dequantize_exactly
    out[i] = static_cast<float>(spread - (spread - product));
  }
}
