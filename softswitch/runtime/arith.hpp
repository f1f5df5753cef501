// Small operations that generated expressions call.
#pragma once

#include "wide.hpp"

namespace wiresum::softswitch {

// Shifts by any amount: past the last bit nothing (or only the sign) is left.
template <typename T>
inline T shift_left(T value, std::uint64_t n) {
  return n < 8 * sizeof(T) ? static_cast<T>(value << n) : T{0};
}
template <typename T>
inline T shift_right(T value, std::uint64_t n) {
  constexpr std::uint64_t kBits = 8 * sizeof(T);
  if (n < kBits) return static_cast<T>(value >> n);
  return value < T{0} ? static_cast<T>(-1) : T{0};
}
// An amount of more than 64 bits: everything above the largest field is alike.
template <std::size_t N>
inline std::uint64_t shift_amount(const Wide<N>& n) {
  for (std::size_t i = 1; i < N; ++i) {
    if (n.w[i] != 0) return ~std::uint64_t{0};
  }
  return n.w[0];
}

template <unsigned Bits>
inline std::int64_t sign_extend(std::uint64_t value) {
  static_assert(Bits >= 1 && Bits <= 64);
  return static_cast<std::int64_t>(value << (64 - Bits)) >> (64 - Bits);
}

template <typename T>
inline T clamp(const T& value, const T& low, const T& high) {
  return value < low ? low : high < value ? high : value;
}

// An action parameter of more than 64 bits.
template <std::size_t N>
inline Wide<N> wide_at(const std::uint64_t* words) {
  Wide<N> r;
  for (std::size_t i = 0; i < N; ++i) r.w[i] = words[i];
  return r;
}

}  // namespace wiresum::softswitch
