// Whole blocks of kMaxRun elements as a few levels: u = x * factor + top / 2, clamped to 0 and top,
// and rounded. Doubles hold every product to 53 bits; the loops vectorize by themselves. Included
// by kernels.inl only, once per instruction set, in its unnamed namespace.

// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): word i of the
// block is word i / kCounters of what the generator makes of the counter {first + i % kCounters,
// rest}.
void random_words(std::uint32_t first, const std::uint32_t* rest, const std::uint32_t* key,
                  std::uint32_t* words) {
  constexpr std::size_t kCounters = kMaxRun / 4;
  std::uint32_t* const a = words;
  std::uint32_t* const b = words + kCounters;
  std::uint32_t* const c = words + 2 * kCounters;
  std::uint32_t* const d = words + 3 * kCounters;
  for (std::size_t i = 0; i < kCounters; ++i) {
    a[i] = first + static_cast<std::uint32_t>(i);
    b[i] = rest[0];
    c[i] = rest[1];
    d[i] = rest[2];
  }
  std::uint32_t low = key[0];
  std::uint32_t high = key[1];
  for (int round = 0; round < 10; ++round) {
    for (std::size_t i = 0; i < kCounters; ++i) {
      const std::uint64_t one = std::uint64_t{0xd2511f53u} * a[i];
      const std::uint64_t two = std::uint64_t{0xcd9e8d57u} * c[i];
      a[i] = static_cast<std::uint32_t>(two >> 32) ^ b[i] ^ low;
      b[i] = static_cast<std::uint32_t>(two);
      c[i] = static_cast<std::uint32_t>(one >> 32) ^ d[i] ^ high;
      d[i] = static_cast<std::uint32_t>(one);
    }
    low += 0x9e3779b9u;
    high += 0xbb67ae85u;
  }
}

inline double clamped_level(float x, const LevelParams& params) {
  double t = static_cast<double>(x) * params.factor + params.middle;
  t = t < params.top ? t : params.top;  // NaN becomes the top: nothing may leave its field
  return t > 0.0 ? t : 0.0;
}

void to_levels(const float* in, const LevelParams& params, std::uint32_t* levels) {
  // Adding 1.5 * 2^52 rounds to nearest even and leaves the integer in the low bits.
  constexpr double kRound = 6755399441055744.0;
  const LevelParams own = params;
  for (std::size_t i = 0; i < kMaxRun; ++i) {
    const double t = clamped_level(in[i], own);
    levels[i] = static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(t + kRound));
  }
}

void to_two_levels(const float* in, bool up, std::uint32_t* levels) {
  for (std::size_t i = 0; i < kMaxRun; ++i) {
    levels[i] = in[i] > 0.0f || (in[i] == 0.0f && up) ? 1u : 0u;
  }
}

void to_random_levels(const float* in, const LevelParams& params, const std::uint32_t* words,
                      std::uint32_t* levels) {
  const LevelParams own = params;
  for (std::size_t i = 0; i < kMaxRun; ++i) {
    const double t = clamped_level(in[i], own);
    const auto whole = static_cast<std::int32_t>(t);
    const double part = t - static_cast<double>(whole);
    const double drawn = static_cast<double>(static_cast<std::int32_t>(words[i] >> 1)) * 0x1p-31;
    levels[i] = static_cast<std::uint32_t>(whole + (drawn < part ? 1 : 0));
  }
}

void from_levels(const std::uint32_t* sums, std::int32_t zero, double scale, float* out) {
  for (std::size_t i = 0; i < kMaxRun; ++i) {
    const std::int32_t twice = 2 * static_cast<std::int32_t>(sums[i]) - zero;
    out[i] = static_cast<float>(static_cast<double>(twice) * scale);
  }
}

// Sum of |x| over a block, in eight parts that are added in their order.
double sum_of_magnitudes(const float* in) {
  double parts[8] = {};
  for (std::size_t i = 0; i < kMaxRun; i += 8) {
    for (std::size_t j = 0; j < 8; ++j) {
      parts[j] += static_cast<double>(as_float(as_bits(in[i + j]) & 0x7fffffffu));
    }
  }
  double sum = 0.0;
  for (const double part : parts) sum += part;
  return sum;
}

// Sum of x^2, in the same way: no double of a float overflows when it is squared.
double sum_of_squares(const float* in) {
  double parts[8] = {};
  for (std::size_t i = 0; i < kMaxRun; i += 8) {
    for (std::size_t j = 0; j < 8; ++j) {
      const auto x = static_cast<double>(in[i + j]);
      parts[j] += x * x;
    }
  }
  double sum = 0.0;
  for (const double part : parts) sum += part;
  return sum;
}

// Level j of a lane is at bits [j * kBits, (j + 1) * kBits); the last lane is filled with zeros.
template <int kBits>
void pack_levels(const std::uint32_t* levels, std::uint32_t* lanes) {
  constexpr std::size_t kPerLane = 32 / kBits;
  constexpr std::size_t kWhole = kMaxRun / kPerLane;
  for (std::size_t lane = 0; lane < kWhole; ++lane) {
    std::uint32_t word = 0;
    for (std::size_t j = 0; j < kPerLane; ++j) word |= levels[lane * kPerLane + j] << j * kBits;
    lanes[lane] = word;
  }
  if constexpr (kMaxRun % kPerLane != 0) {
    std::uint32_t word = 0;
    for (std::size_t j = 0; kWhole * kPerLane + j < kMaxRun; ++j) {
      word |= levels[kWhole * kPerLane + j] << j * kBits;
    }
    lanes[kWhole] = word;
  }
}

template <int kBits>
void unpack_levels(const std::uint32_t* lanes, std::uint32_t* levels) {
  constexpr std::size_t kPerLane = 32 / kBits;
  constexpr std::uint32_t kMask = (1u << kBits) - 1;
  constexpr std::size_t kWhole = kMaxRun / kPerLane;
  for (std::size_t lane = 0; lane < kWhole; ++lane) {
    const std::uint32_t word = lanes[lane];
    for (std::size_t j = 0; j < kPerLane; ++j) {
      levels[lane * kPerLane + j] = word >> j * kBits & kMask;
    }
  }
  if constexpr (kMaxRun % kPerLane != 0) {
    const std::uint32_t word = lanes[kWhole];
    for (std::size_t j = 0; kWhole * kPerLane + j < kMaxRun; ++j) {
      levels[kWhole * kPerLane + j] = word >> j * kBits & kMask;
    }
  }
}

// A Walsh-Hadamard transform of a block, times 1/16: it is its own inverse, and keeps the norm.
void hadamard(float* values) {
  for (std::size_t half = 1; half < kMaxRun; half *= 2) {
    for (std::size_t start = 0; start < kMaxRun; start += 2 * half) {
      for (std::size_t i = start; i < start + half; ++i) {
        const float a = values[i];
        const float b = values[i + half];
        values[i] = a + b;
        values[i + half] = a - b;
      }
    }
  }
  for (std::size_t i = 0; i < kMaxRun; ++i) values[i] *= 0.0625f;
}

// Turns the sign of x where the lowest bit of its word is set.
void turn_signs(const std::uint32_t* words, float* values) {
  for (std::size_t i = 0; i < kMaxRun; ++i) {
    values[i] = as_float(as_bits(values[i]) ^ (words[i] << 31));
  }
}
