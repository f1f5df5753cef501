// The codec's inner loops with the registers of AVX2 or AVX-512: from the tensor to the lanes and
// back in one pass, whatever the element type, for as many whole steps as there are. The same
// operations in the same order as the plain loops of kernels.inl, which do the rest. Included by
// kernels.inl only, once per instruction set, in its unnamed namespace.

#if defined(__AVX512BW__)
using Floats = __m512;
using Ints = __m512i;
#else
using Floats = __m256;
using Ints = __m256i;
#endif

constexpr std::size_t kWide = sizeof(Floats) / sizeof(float);
// Registers of 32-bit values in a step: as many as fill one register with fields, and at least two,
// since bfloat16 is packed from two.
template <int kBits>
constexpr std::size_t kParts = kBits == 8 ? 4 : 2;

struct alignas(64) Order {
  std::uint8_t at[64];
};

// Reverses the bytes of each 32-bit word.
constexpr Order turned_words() {
  Order order{};
  for (std::size_t i = 0; i < 64; ++i) order.at[i] = static_cast<std::uint8_t>((i & 15) ^ 3);
  return order;
}

// Fields of 8 bits to 32: 16-byte part k takes its four from lane k of 16 bytes held in each part.
constexpr Order widened_bytes() {
  Order order{};
  for (std::size_t i = 0; i < 64; ++i) {
    const std::size_t element = i / 4;
    order.at[i] = i % 4 == 0 ? static_cast<std::uint8_t>(element ^ 3) : 0x80;
  }
  return order;
}

// For fields of 16 bits that were widened in the order of memory: swaps the two fields of each
// lane, and the bytes of each field.
constexpr Order turned_halves() {
  Order order{};
  for (std::size_t i = 0; i < 64; ++i) {
    const std::size_t other = (i & 15) / 4 ^ 1;
    order.at[i] = i % 4 < 2 ? static_cast<std::uint8_t>(other * 4 + (i % 4 ^ 1)) : 0x80;
  }
  return order;
}

constexpr Order kTurnedWords = turned_words();
constexpr Order kWidenedBytes = widened_bytes();
constexpr Order kTurnedHalves = turned_halves();

#if defined(__AVX512BW__)

inline Ints load_ints(const void* at) { return _mm512_loadu_si512(at); }
inline void store_ints(Ints value, void* at) { _mm512_storeu_si512(at, value); }
inline Floats all(float value) { return _mm512_set1_ps(value); }
inline Ints all(std::uint32_t value) { return _mm512_set1_epi32(static_cast<int>(value)); }
inline Floats floats(Ints bits) { return _mm512_castsi512_ps(bits); }
inline Ints ints(Floats bits) { return _mm512_castps_si512(bits); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats lower(Floats a, Floats b) { return _mm512_min_ps(a, b); }   // `b` if a NaN is there
inline Floats higher(Floats a, Floats b) { return _mm512_max_ps(a, b); }  // likewise
inline Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints subtract(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
inline Ints both(Ints a, Ints b) { return _mm512_and_si512(a, b); }
inline Ints rounded(Floats value) { return _mm512_cvtps_epi32(value); }
inline Floats converted(Ints value) { return _mm512_cvtepi32_ps(value); }
template <int kShift>
inline Ints shift_left(Ints value) {
  return _mm512_slli_epi32(value, kShift);
}
template <int kShift>
inline Ints shift_right(Ints value) {
  return _mm512_srli_epi32(value, kShift);
}
inline Ints shuffle(Ints value, const Order& order) {
  return _mm512_shuffle_epi8(value, load_ints(order.at));
}
inline Ints widen_16(const void* at) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(at)));
}
inline Floats load_float16s(const void* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(at)));
}
inline void store_float16s(Floats value, void* at) {
  _mm256_storeu_si256(static_cast<__m256i*>(at), _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
// Values below 2^16, each to 16 bits.
inline Ints narrow_16(Ints a, Ints b) {
  return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7),
                                  _mm512_packus_epi32(a, b));
}
// Values below 2^8, each to 8 bits.
inline Ints narrow_8(Ints a, Ints b, Ints c, Ints d) {
  return _mm512_permutexvar_epi32(
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
      _mm512_packus_epi16(_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d)));
}
inline Ints widen_lanes_8(const std::uint8_t* lanes, std::size_t part) {
  const auto* at = reinterpret_cast<const __m128i*>(lanes + part * kWide);
  return shuffle(_mm512_broadcast_i32x4(_mm_loadu_si128(at)), kWidenedBytes);
}
// The upper halves of each 32-bit value: those of `even` become the lower ones.
inline Ints upper_halves(Ints even, Ints odd) {
  return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(even, 16), odd);
}
// The 32-bit values of both in turn.
inline void store_in_turn(Ints a, Ints b, void* at) {
  const Ints first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  store_ints(_mm512_permutex2var_epi32(a, first, b), at);
  store_ints(_mm512_permutex2var_epi32(a, add(first, all(8u)), b),
             static_cast<unsigned char*>(at) + sizeof(Ints));
}
inline Ints highest_32(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
inline Ints highest_16(Ints a, Ints b) { return _mm512_max_epi16(a, b); }
inline __m256i fold_32(Ints value) {
  return _mm256_max_epi32(_mm512_castsi512_si256(value), _mm512_extracti64x4_epi64(value, 1));
}
inline __m256i fold_16(Ints value) {
  return _mm256_max_epi16(_mm512_castsi512_si256(value), _mm512_extracti64x4_epi64(value, 1));
}

#else

inline Ints load_ints(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}
inline void store_ints(Ints value, void* at) {
  _mm256_storeu_si256(static_cast<__m256i*>(at), value);
}
inline Floats all(float value) { return _mm256_set1_ps(value); }
inline Ints all(std::uint32_t value) { return _mm256_set1_epi32(static_cast<int>(value)); }
inline Floats floats(Ints bits) { return _mm256_castsi256_ps(bits); }
inline Ints ints(Floats bits) { return _mm256_castps_si256(bits); }
inline Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats lower(Floats a, Floats b) { return _mm256_min_ps(a, b); }   // `b` if a NaN is there
inline Floats higher(Floats a, Floats b) { return _mm256_max_ps(a, b); }  // likewise
inline Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints subtract(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
inline Ints both(Ints a, Ints b) { return _mm256_and_si256(a, b); }
inline Ints rounded(Floats value) { return _mm256_cvtps_epi32(value); }
inline Floats converted(Ints value) { return _mm256_cvtepi32_ps(value); }
template <int kShift>
inline Ints shift_left(Ints value) {
  return _mm256_slli_epi32(value, kShift);
}
template <int kShift>
inline Ints shift_right(Ints value) {
  return _mm256_srli_epi32(value, kShift);
}
inline Ints shuffle(Ints value, const Order& order) {
  return _mm256_shuffle_epi8(value, load_ints(order.at));
}
inline Ints widen_16(const void* at) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(at)));
}
inline Floats load_float16s(const void* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(at)));
}
inline void store_float16s(Floats value, void* at) {
  _mm_storeu_si128(static_cast<__m128i*>(at), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
// Values below 2^16, each to 16 bits.
inline Ints narrow_16(Ints a, Ints b) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), _MM_SHUFFLE(3, 1, 2, 0));
}
// Values below 2^8, each to 8 bits.
inline Ints narrow_8(Ints a, Ints b, Ints c, Ints d) {
  return _mm256_permutevar8x32_epi32(
      _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d)),
      _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
inline Ints widen_lanes_8(const std::uint8_t* lanes, std::size_t part) {
  const auto* at = reinterpret_cast<const __m128i*>(lanes + part / 2 * 16);
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(at)),
                             load_ints(kWidenedBytes.at + part % 2 * 32));
}
// The upper halves of each 32-bit value: those of `even` become the lower ones.
inline Ints upper_halves(Ints even, Ints odd) {
  return _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xaa);
}
// The 32-bit values of both in turn.
inline void store_in_turn(Ints a, Ints b, void* at) {
  const Ints low = _mm256_unpacklo_epi32(a, b);
  const Ints high = _mm256_unpackhi_epi32(a, b);
  store_ints(_mm256_permute2x128_si256(low, high, 0x20), at);
  store_ints(_mm256_permute2x128_si256(low, high, 0x31),
             static_cast<unsigned char*>(at) + sizeof(Ints));
}
inline Ints highest_32(Ints a, Ints b) { return _mm256_max_epi32(a, b); }
inline Ints highest_16(Ints a, Ints b) { return _mm256_max_epi16(a, b); }
inline __m256i fold_32(Ints value) { return value; }
inline __m256i fold_16(Ints value) { return value; }

#endif

// -- the block's maximum: |x| never has the top bit set, so signed comparisons do

inline std::int32_t max_vectors_32(const unsigned char* in, std::size_t n, std::size_t& done) {
  constexpr std::size_t kStep = 2 * kWide;
  const Ints mask = all(0x7fffffffu);
  Ints even = all(0u);
  Ints odd = all(0u);
  for (done = 0; done + kStep <= n; done += kStep) {
    even = highest_32(even, both(load_ints(in + 4 * done), mask));
    odd = highest_32(odd, both(load_ints(in + 4 * (done + kWide)), mask));
  }
  const __m256i all_eight = fold_32(highest_32(even, odd));
  __m128i best =
      _mm_max_epi32(_mm256_castsi256_si128(all_eight), _mm256_extracti128_si256(all_eight, 1));
  best = _mm_max_epi32(best, _mm_shuffle_epi32(best, _MM_SHUFFLE(1, 0, 3, 2)));
  best = _mm_max_epi32(best, _mm_shuffle_epi32(best, _MM_SHUFFLE(2, 3, 0, 1)));
  return _mm_cvtsi128_si32(best);
}

inline std::int16_t max_vectors_16(const unsigned char* in, std::size_t n, std::size_t& done) {
  constexpr std::size_t kStep = 4 * kWide;
  const Ints mask = all(0x7fff7fffu);
  Ints even = all(0u);
  Ints odd = all(0u);
  for (done = 0; done + kStep <= n; done += kStep) {
    even = highest_16(even, both(load_ints(in + 2 * done), mask));
    odd = highest_16(odd, both(load_ints(in + 2 * (done + 2 * kWide)), mask));
  }
  const __m256i all_sixteen = fold_16(highest_16(even, odd));
  const __m128i best =
      _mm_max_epi16(_mm256_castsi256_si128(all_sixteen), _mm256_extracti128_si256(all_sixteen, 1));
  // The only reduction over 16-bit lanes finds a minimum, so it gets the complements.
  const __m128i least = _mm_minpos_epu16(_mm_xor_si128(best, _mm_set1_epi16(-1)));
  return static_cast<std::int16_t>(~_mm_cvtsi128_si32(least) & 0x7fff);
}

// -- to lanes

template <Dtype kDtype>
inline Floats load_floats(const unsigned char* in) {
  if constexpr (kDtype == Dtype::Float32) {
    return floats(load_ints(in));
  } else if constexpr (kDtype == Dtype::Float16) {
    return load_float16s(in);
  } else {
    return floats(shift_left<16>(widen_16(in)));
  }
}

template <int kBits>
inline void store_lanes(const Ints* parts, std::uint8_t* lanes) {
  if constexpr (kBits == 32) {
    store_ints(shuffle(parts[0], kTurnedWords), lanes);
    store_ints(shuffle(parts[1], kTurnedWords), lanes + sizeof(Ints));
  } else if constexpr (kBits == 16) {
    store_ints(shuffle(narrow_16(parts[0], parts[1]), kTurnedWords), lanes);
  } else {
    store_ints(shuffle(narrow_8(parts[0], parts[1], parts[2], parts[3]), kTurnedWords), lanes);
  }
}

// Returns how many of the n elements are done.
template <int kBits, Dtype kDtype>
inline std::size_t quantize_vectors(const unsigned char* in, std::size_t n,
                                    const QuantizeParams& params, std::uint8_t* lanes) {
  constexpr std::size_t kSize = kDtype == Dtype::Float32 ? 4 : 2;
  constexpr std::size_t kStep = kParts<kBits> * kWide;
  const Floats a = all(params.a);
  const Floats b = all(params.b);
  const Floats high = all(params.limit);
  const Floats low = all(-params.limit);
  const Floats rounder = all(kRounder);
  const Ints offset = all(kBits == 32 ? params.offset : params.offset - kRounderBits);
  std::size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    Ints parts[kParts<kBits>];
    for (std::size_t part = 0; part < kParts<kBits>; ++part) {
      const Floats x = load_floats<kDtype>(in + (i + part * kWide) * kSize);
      const Floats y = higher(lower(multiply(multiply(x, a), b), high), low);
      parts[part] = add(kBits == 32 ? rounded(y) : ints(add(y, rounder)), offset);
    }
    store_lanes<kBits>(parts, lanes + i * kBits / 8);
  }
  return i;
}

// -- from lanes

template <int kBits>
inline Ints load_lanes(const std::uint8_t* lanes, std::size_t part) {
  if constexpr (kBits == 32) {
    return shuffle(load_ints(lanes + part * sizeof(Ints)), kTurnedWords);
  } else if constexpr (kBits == 16) {
    return shuffle(widen_16(lanes + part * sizeof(Ints) / 2), kTurnedHalves);
  } else {
    return widen_lanes_8(lanes, part);
  }
}

// bits_to_bfloat16() for values that are no NaN; the results are in the upper halves.
inline Ints rounded_to_bfloat16(Floats value) {
  const Ints bits = ints(value);
  const Ints odd = both(shift_right<16>(bits), all(1u));
  return add(add(bits, all(0x7fffu)), odd);
}

template <Dtype kDtype>
inline void store_two(Floats first, Floats second, unsigned char* out) {
  if constexpr (kDtype == Dtype::Float32) {
    store_ints(ints(first), out);
    store_ints(ints(second), out + sizeof(Ints));
  } else if constexpr (kDtype == Dtype::Float16) {
    store_float16s(first, out);
    store_float16s(second, out + sizeof(Ints) / 2);
  } else {
    store_ints(narrow_16(shift_right<16>(rounded_to_bfloat16(first)),
                         shift_right<16>(rounded_to_bfloat16(second))),
               out);
  }
}

// Element `kElement` of each lane, after the bytes of the lanes were reversed.
template <int kBits, int kElement>
inline Ints field_of(Ints words) {
  const Ints shifted = shift_right<kElement * kBits>(words);
  return (kElement + 1) * kBits == 32 ? shifted : both(shifted, all((1u << kBits) - 1));
}

class Dequantizer {
 public:
  explicit Dequantizer(const DequantizeParams& params)
      : offset_(all(params.offset)), high_(all(params.high)), low_(all(params.low)) {}

  template <int kBits>
  Floats value(Ints field) const {
    const Floats sum = converted(subtract(field, offset_));
    const Floats product = multiply(sum, high_);
    return kBits == 32 ? product : add(product, multiply(sum, low_));
  }
  // Elements kFirst and kFirst + 1 of each lane, rounded, in 32 bits as they lie in memory.
  template <int kBits, int kFirst>
  Ints two_bfloat16s(Ints words) const {
    return upper_halves(rounded_to_bfloat16(value<kBits>(field_of<kBits, kFirst>(words))),
                        rounded_to_bfloat16(value<kBits>(field_of<kBits, kFirst + 1>(words))));
  }

 private:
  Ints offset_;
  Floats high_, low_;
};

// With params.in_float; returns how many of the n elements are done. No sum makes a NaN.
template <int kBits, Dtype kDtype>
inline std::size_t dequantize_vectors(const std::uint8_t* lanes, std::size_t n,
                                      const DequantizeParams& params, unsigned char* out) {
  constexpr std::size_t kSize = kDtype == Dtype::Float32 ? 4 : 2;
  constexpr std::size_t kStep = kParts<kBits> * kWide;
  const Dequantizer dequantized(params);
  std::size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    const std::uint8_t* in = lanes + i * kBits / 8;
    if constexpr (kDtype == Dtype::Bfloat16 && kBits != 32) {
      // Neighbours in a lane are neighbours in memory: nothing needs to be widened or narrowed.
      const Ints words = shuffle(load_ints(in), kTurnedWords);
      const Ints first = dequantized.template two_bfloat16s<kBits, 0>(words);
      if constexpr (kBits == 16) {
        store_ints(first, out + i * kSize);
      } else {
        store_in_turn(first, dequantized.template two_bfloat16s<kBits, 2>(words), out + i * kSize);
      }
    } else {
      Floats parts[kParts<kBits>];
      for (std::size_t part = 0; part < kParts<kBits>; ++part) {
        parts[part] = dequantized.template value<kBits>(load_lanes<kBits>(in, part));
      }
      for (std::size_t part = 0; part < kParts<kBits>; part += 2) {
        store_two<kDtype>(parts[part], parts[part + 1], out + (i + part * kWide) * kSize);
      }
    }
  }
  return i;
}
