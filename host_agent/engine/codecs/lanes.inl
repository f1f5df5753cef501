// Fields into big-endian lanes and back. Element j of a lane is at bits [jF, (j+1)F): where memory
// is little-endian, a run of fields lies in memory just as its lanes do, but for the order of the
// bytes in each lane. Included by kernels.inl only, once per instruction set, in its unnamed
// namespace.

template <int kBits>
struct FieldType;
template <>
struct FieldType<32> {
  using type = std::uint32_t;
};
template <>
struct FieldType<16> {
  using type = std::uint16_t;
};
template <>
struct FieldType<8> {
  using type = std::uint8_t;
};

#if defined(__AVX512BW__)
constexpr std::size_t kShuffleBytes = 64;
#else
constexpr std::size_t kShuffleBytes = 32;
#endif

// Reverses the bytes of each 32-bit word; n words. Written as a byte shuffle, because compilers
// turn a loop of bswap into one scalar bswap per word.
inline void swap_words(const std::uint8_t* in, std::size_t n, std::uint8_t* out) {
  std::size_t whole = 0;
#if defined(__SSSE3__) || defined(__ARM_NEON)
  typedef std::uint8_t Bytes __attribute__((vector_size(kShuffleBytes)));
  Bytes order;
  for (std::size_t b = 0; b < kShuffleBytes; ++b) order[b] = static_cast<std::uint8_t>(b ^ 3);
  whole = n / (kShuffleBytes / 4) * (kShuffleBytes / 4);
  for (std::size_t i = 0; i < whole; i += kShuffleBytes / 4) {
    Bytes bytes;
    std::memcpy(&bytes, in + 4 * i, sizeof(bytes));
    bytes = __builtin_shuffle(bytes, order);
    std::memcpy(out + 4 * i, &bytes, sizeof(bytes));
  }
#endif
  for (std::size_t i = whole; i < n; ++i) {
    std::uint32_t word;
    std::memcpy(&word, in + 4 * i, 4);
    word = __builtin_bswap32(word);
    std::memcpy(out + 4 * i, &word, 4);
  }
}

// Where memory is big-endian, lanes are in order, but the fields in each lane must be reversed.
template <typename Field>
inline void reverse_fields(const Field* in, std::size_t n, Field* out) {
  constexpr std::size_t kPerLane = 4 / sizeof(Field);
  for (std::size_t i = 0; i < n; ++i) out[i] = in[i ^ (kPerLane - 1)];
}

template <typename Field>
inline void pack(const Field* fields, std::size_t n, std::uint8_t* lanes) {
  if constexpr (std::endian::native == std::endian::little) {
    swap_words(reinterpret_cast<const std::uint8_t*>(fields), n * sizeof(Field) / 4, lanes);
  } else {
    alignas(64) Field turned[kMaxRun];
    reverse_fields(fields, n, turned);
    std::memcpy(lanes, turned, n * sizeof(Field));
  }
}

template <typename Field>
inline void unpack(const std::uint8_t* lanes, std::size_t n, Field* fields) {
  if constexpr (std::endian::native == std::endian::little) {
    swap_words(lanes, n * sizeof(Field) / 4, reinterpret_cast<std::uint8_t*>(fields));
  } else {
    alignas(64) Field turned[kMaxRun];
    std::memcpy(turned, lanes, n * sizeof(Field));
    reverse_fields(turned, n, fields);
  }
}
