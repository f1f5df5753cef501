// Numbers as they lie on the wire.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace wiresum {

template <typename T>
T from_big_endian(T value) {
  if constexpr (std::endian::native == std::endian::big || sizeof(T) == 1) return value;
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
}

template <typename T>
T load_big_endian(const std::uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return from_big_endian(value);
}

template <typename T>
void store_big_endian(std::uint8_t* to, T value) {
  value = from_big_endian(value);
  std::memcpy(to, &value, sizeof(T));
}

}  // namespace wiresum
