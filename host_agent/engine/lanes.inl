// Fields into big-endian lanes and back. Element j of a lane is at bits [jF, (j+1)F).
// Included by kernels.inl only, once per instruction set, in that file's unnamed namespace.

inline std::uint32_t big_endian(std::uint32_t value) {
  if constexpr (std::endian::native == std::endian::little) return __builtin_bswap32(value);
  return value;
}

template <int kBits>
void pack(const std::uint32_t* fields, std::size_t n, std::uint8_t* lanes) {
  std::uint32_t words[kMaxRun];
  if constexpr (kBits == 32) {
    for (std::size_t i = 0; i < n; ++i) words[i] = big_endian(fields[i]);
    std::memcpy(lanes, words, n * 4);
  } else if constexpr (kBits == 16) {
    for (std::size_t i = 0; i < n / 2; ++i) {
      words[i] = big_endian(fields[2 * i] | fields[2 * i + 1] << 16);
    }
    std::memcpy(lanes, words, n * 2);
  } else {
    for (std::size_t i = 0; i < n / 4; ++i) {
      words[i] = big_endian(fields[4 * i] | fields[4 * i + 1] << 8 | fields[4 * i + 2] << 16 |
                            fields[4 * i + 3] << 24);
    }
    std::memcpy(lanes, words, n);
  }
}

template <int kBits>
void unpack(const std::uint8_t* lanes, std::size_t n, std::uint32_t* fields) {
  std::uint32_t words[kMaxRun];
  std::memcpy(words, lanes, n * kBits / 8);
  if constexpr (kBits == 32) {
    for (std::size_t i = 0; i < n; ++i) fields[i] = big_endian(words[i]);
  } else if constexpr (kBits == 16) {
    for (std::size_t i = 0; i < n / 2; ++i) {
      const std::uint32_t lane = big_endian(words[i]);
      fields[2 * i] = lane & 0xffffu;
      fields[2 * i + 1] = lane >> 16;
    }
  } else {
    for (std::size_t i = 0; i < n / 4; ++i) {
      const std::uint32_t lane = big_endian(words[i]);
      fields[4 * i] = lane & 0xffu;
      fields[4 * i + 1] = lane >> 8 & 0xffu;
      fields[4 * i + 2] = lane >> 16 & 0xffu;
      fields[4 * i + 3] = lane >> 24;
    }
  }
}
