// Fields into big-endian lanes and back. Element j of a lane is at bits [jF, (j+1)F).
// Included by kernels.inl only, once per instruction set, in that file's unnamed namespace.

inline std::uint32_t big_endian(std::uint32_t value) {
  if constexpr (std::endian::native == std::endian::little) return __builtin_bswap32(value);
  return value;
}

// Host order to big-endian or back; n words. Spelled as a byte shuffle, because compilers turn a
// loop of bswap into one scalar bswap per word.
void swap_words(const std::uint8_t* in, std::size_t n, std::uint8_t* out) {
  std::size_t i = 0;
#if defined(__SSSE3__) || defined(__ARM_NEON)
  if constexpr (std::endian::native == std::endian::little) {
    typedef std::uint8_t Bytes __attribute__((vector_size(32)));
    constexpr Bytes kOrder = {3,  2,  1,  0,  7,  6,  5,  4,  11, 10, 9,  8,  15, 14, 13, 12,
                              19, 18, 17, 16, 23, 22, 21, 20, 27, 26, 25, 24, 31, 30, 29, 28};
    for (; i + 8 <= n; i += 8) {
      Bytes bytes;
      std::memcpy(&bytes, in + 4 * i, sizeof(bytes));
      bytes = __builtin_shuffle(bytes, kOrder);
      std::memcpy(out + 4 * i, &bytes, sizeof(bytes));
    }
  }
#endif
  for (; i < n; ++i) {
    std::uint32_t word;
    std::memcpy(&word, in + 4 * i, 4);
    word = big_endian(word);
    std::memcpy(out + 4 * i, &word, 4);
  }
}

template <int kBits>
void pack(const std::uint32_t* fields, std::size_t n, std::uint8_t* lanes) {
  alignas(64) std::uint32_t words[kMaxRun];
  const std::uint32_t* source = words;
  if constexpr (kBits == 32) {
    source = fields;
  } else if constexpr (kBits == 16) {
    for (std::size_t i = 0; i < n / 2; ++i) words[i] = fields[2 * i] | fields[2 * i + 1] << 16;
  } else {
    for (std::size_t i = 0; i < n / 4; ++i) {
      words[i] = fields[4 * i] | fields[4 * i + 1] << 8 | fields[4 * i + 2] << 16 |
                 fields[4 * i + 3] << 24;
    }
  }
  swap_words(reinterpret_cast<const std::uint8_t*>(source), n * kBits / 32, lanes);
}

template <int kBits>
void unpack(const std::uint8_t* lanes, std::size_t n, std::uint32_t* fields) {
  if constexpr (kBits == 32) {
    swap_words(lanes, n, reinterpret_cast<std::uint8_t*>(fields));
    return;
  }
  alignas(64) std::uint32_t words[kMaxRun];
  swap_words(lanes, n * kBits / 32, reinterpret_cast<std::uint8_t*>(words));
  if constexpr (kBits == 16) {
    for (std::size_t i = 0; i < n / 2; ++i) {
      fields[2 * i] = words[i] & 0xffffu;
      fields[2 * i + 1] = words[i] >> 16;
    }
  } else if constexpr (kBits == 8) {
    for (std::size_t i = 0; i < n / 4; ++i) {
      fields[4 * i] = words[i] & 0xffu;
      fields[4 * i + 1] = words[i] >> 8 & 0xffu;
      fields[4 * i + 2] = words[i] >> 16 & 0xffu;
      fields[4 * i + 3] = words[i] >> 24;
    }
  }
}
