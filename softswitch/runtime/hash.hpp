// The hash and checksum algorithms of v1model, with simple_switch's parameters.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace wiresum::softswitch {

// RFC 1071 over big-endian 16-bit words; an odd last byte is padded with zero.
inline std::uint16_t csum16(const std::uint8_t* p, std::size_t n) {
  std::uint64_t sum = 0;
  std::size_t i = 0;
  for (; i + 1 < n; i += 2) sum += static_cast<std::uint64_t>(p[i]) << 8 | p[i + 1];
  if (i < n) sum += static_cast<std::uint64_t>(p[i]) << 8;
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

// The same sum over fields whose places are known beforehand: add() takes numbers that end at a
// 16-bit boundary of the data.
class Csum16 {
 public:
  void add(std::uint64_t value) { sum_ += (value & 0xffffffff) + (value >> 32); }
  std::uint16_t finish() const {
    std::uint64_t sum = sum_;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
  }

 private:
  std::uint64_t sum_ = 0;
};

// CRCs with reflected input and output, least significant bit first.
template <typename T>
constexpr std::array<T, 256> reflected_crc_table(T reflected_polynomial) {
  std::array<T, 256> table{};
  for (unsigned i = 0; i < 256; ++i) {
    T r = static_cast<T>(i);
    for (int bit = 0; bit < 8; ++bit) {
      r = static_cast<T>((r & 1) != 0 ? (r >> 1) ^ reflected_polynomial : r >> 1);
    }
    table[i] = r;
  }
  return table;
}

// CRC-16/ARC: polynomial 0x8005, initially 0.
inline std::uint16_t crc16(const std::uint8_t* p, std::size_t n) {
  static constexpr auto kTable = reflected_crc_table<std::uint16_t>(0xa001);
  std::uint16_t r = 0;
  for (std::size_t i = 0; i < n; ++i) {
    r = static_cast<std::uint16_t>((r >> 8) ^ kTable[(r ^ p[i]) & 0xff]);
  }
  return r;
}

// CRC-32 (IEEE 802.3).
inline std::uint32_t crc32(const std::uint8_t* p, std::size_t n) {
  static constexpr auto kTable = reflected_crc_table<std::uint32_t>(0xedb88320);
  std::uint32_t r = 0xffffffff;
  for (std::size_t i = 0; i < n; ++i) r = (r >> 8) ^ kTable[(r ^ p[i]) & 0xff];
  return ~r;
}

// CRC-16/CCITT-FALSE: polynomial 0x1021, initially 0xffff, not reflected.
inline std::uint16_t crc_ccitt(const std::uint8_t* p, std::size_t n) {
  std::uint16_t r = 0xffff;
  for (std::size_t i = 0; i < n; ++i) {
    r = static_cast<std::uint16_t>(r ^ (p[i] << 8));
    for (int bit = 0; bit < 8; ++bit) {
      r = static_cast<std::uint16_t>((r & 0x8000) != 0 ? (r << 1) ^ 0x1021 : r << 1);
    }
  }
  return r;
}

// The exclusive or of big-endian 16-bit words; an odd last byte is padded with zero.
inline std::uint16_t xor16(const std::uint8_t* p, std::size_t n) {
  std::uint16_t r = 0;
  for (std::size_t i = 0; i < n; ++i) {
    r = static_cast<std::uint16_t>(r ^ (i % 2 == 0 ? p[i] << 8 : p[i]));
  }
  return r;
}

// The first eight bytes as a big-endian number.
inline std::uint64_t identity(const std::uint8_t* p, std::size_t n) {
  std::uint64_t r = 0;
  for (std::size_t i = 0; i < n && i < 8; ++i) r = r << 8 | p[i];
  return r;
}

}  // namespace wiresum::softswitch
