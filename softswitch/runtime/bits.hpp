// Moving fields between a packet's big-endian bits and the host's integers.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hot.hpp"
#include "wide.hpp"

namespace wiresum::softswitch {

static_assert(std::endian::native == std::endian::little,
              "the generated code assumes a little-endian host");

template <typename T>
WIRESUM_INLINE T byteswap(T value) {
  if constexpr (sizeof(T) == 1) {
    return value;
  } else if constexpr (sizeof(T) == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof(T) == 4) {
    return __builtin_bswap32(value);
  } else {
    return __builtin_bswap64(value);
  }
}

// A big-endian number of Bytes bytes (1 to 8).
template <std::size_t Bytes>
WIRESUM_INLINE std::uint64_t load_be(const std::uint8_t* p) {
  static_assert(Bytes >= 1 && Bytes <= 8);
  std::uint64_t value = 0;
  if constexpr (Bytes == 1) {
    value = *p;
  } else if constexpr (Bytes == 2) {
    std::uint16_t v;
    std::memcpy(&v, p, 2);
    value = byteswap(v);
  } else if constexpr (Bytes == 4) {
    std::uint32_t v;
    std::memcpy(&v, p, 4);
    value = byteswap(v);
  } else if constexpr (Bytes == 8) {
    std::uint64_t v;
    std::memcpy(&v, p, 8);
    value = byteswap(v);
  } else {
    for (std::size_t i = 0; i < Bytes; ++i) value = (value << 8) | p[i];
  }
  return value;
}

template <std::size_t Bytes>
WIRESUM_INLINE void store_be(std::uint8_t* p, std::uint64_t value) {
  static_assert(Bytes >= 1 && Bytes <= 8);
  for (std::size_t i = 0; i < Bytes; ++i) {
    p[i] = static_cast<std::uint8_t>(value >> (8 * (Bytes - 1 - i)));
  }
}

// A run of equally wide fields.
template <typename T>
WIRESUM_INLINE void load_run(T* __restrict to, const std::uint8_t* __restrict from,
                             std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    T v;
    std::memcpy(&v, from + i * sizeof(T), sizeof(T));
    to[i] = byteswap(v);
  }
}

template <typename T>
WIRESUM_INLINE void store_run(std::uint8_t* __restrict to, const T* __restrict from,
                              std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const T v = byteswap(from[i]);
    std::memcpy(to + i * sizeof(T), &v, sizeof(T));
  }
}

// `bits` bits that start `offset` bits into p, most significant first; bits <= 64.
inline std::uint64_t get_bits(const std::uint8_t* p, std::size_t offset, std::size_t bits) {
  std::uint64_t value = 0;
  p += offset / 8;
  std::size_t skip = offset % 8;
  while (bits > 0) {
    const std::size_t here = 8 - skip < bits ? 8 - skip : bits;
    const std::uint64_t part = (*p >> (8 - skip - here)) & ((1U << here) - 1);
    value = (value << here) | part;
    bits -= here;
    skip = 0;
    ++p;
  }
  return value;
}

// Writes the low `bits` bits of value; the bits around them stay. bits <= 64.
inline void put_bits(std::uint8_t* p, std::size_t offset, std::size_t bits, std::uint64_t value) {
  p += offset / 8;
  std::size_t skip = offset % 8;
  while (bits > 0) {
    const std::size_t here = 8 - skip < bits ? 8 - skip : bits;
    const std::size_t shift = 8 - skip - here;
    const unsigned mask = ((1U << here) - 1) << shift;
    const auto part = static_cast<unsigned>((value >> (bits - here)) << shift) & mask;
    *p = static_cast<std::uint8_t>((*p & ~mask) | part);
    bits -= here;
    skip = 0;
    ++p;
  }
}

template <std::size_t N>
Wide<N> get_wide(const std::uint8_t* p, std::size_t offset, std::size_t bits) {
  Wide<N> value;
  // Least significant word first: it ends where the field ends.
  for (std::size_t i = 0; i < N && bits > 0; ++i) {
    const std::size_t here = bits < 64 ? bits : 64;
    value.w[i] = get_bits(p, offset + bits - here, here);
    bits -= here;
  }
  return value;
}

template <std::size_t N>
void put_wide(std::uint8_t* p, std::size_t offset, std::size_t bits, const Wide<N>& value) {
  for (std::size_t i = 0; i < N && bits > 0; ++i) {
    const std::size_t here = bits < 64 ? bits : 64;
    put_bits(p, offset + bits - here, here, value.w[i]);
    bits -= here;
  }
}

// Concatenates fields of any width into bytes, for hashes and checksums. The last byte is filled up
// with zero bits.
class BitWriter {
 public:
  explicit BitWriter(std::uint8_t* to) : to_(to) {}
  void append(std::uint64_t value, std::size_t bits) {
    if (bits == 0) return;
    if (used_ % 8 == 0 && bits % 8 == 0) {
      std::uint8_t* p = to_ + used_ / 8;
      for (std::size_t i = bits; i > 0; i -= 8) *p++ = static_cast<std::uint8_t>(value >> (i - 8));
    } else {
      // put_bits keeps the bits around it: clear the bytes that it is about to begin.
      for (std::size_t i = (used_ + 7) / 8; i < (used_ + bits + 7) / 8; ++i) to_[i] = 0;
      put_bits(to_, used_, bits, value);
    }
    used_ += bits;
  }
  template <std::size_t N>
  void append(const Wide<N>& value, std::size_t bits) {
    std::size_t word = (bits + 63) / 64;
    std::size_t top = bits % 64 == 0 ? 64 : bits % 64;
    while (word-- > 0) {
      append(value.w[word], top);
      top = 64;
    }
  }
  void append_bytes(const std::uint8_t* from, std::size_t count) {
    if (used_ % 8 == 0) {
      std::memcpy(to_ + used_ / 8, from, count);
      used_ += 8 * count;
    } else {
      for (std::size_t i = 0; i < count; ++i) append(from[i], 8);
    }
  }
  std::size_t bytes() const { return (used_ + 7) / 8; }

 private:
  std::uint8_t* to_;
  std::size_t used_ = 0;
};

}  // namespace wiresum::softswitch
