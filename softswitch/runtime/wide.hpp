// Integers wider than 64 bits: fixed size, two's complement, no allocation.
//
// Wide<N> holds N 64-bit words, least significant first. Arithmetic is modulo 2^(64 N); the
// translator picks N so that no exact result is lost (see translate/values.py). Comparison and
// right shift are signed. P4 fields are kept as their value modulo 2^bits, never negative.
#pragma once

#include <cstddef>
#include <cstdint>

namespace wiresum::softswitch {

template <std::size_t N>
struct Wide {
  std::uint64_t w[N] = {};

  static Wide from_u64(std::uint64_t value) {
    Wide r;
    r.w[0] = value;
    return r;
  }
  static Wide from_i64(std::int64_t value) {
    Wide r;
    r.w[0] = static_cast<std::uint64_t>(value);
    const std::uint64_t sign = value < 0 ? ~std::uint64_t{0} : 0;
    for (std::size_t i = 1; i < N; ++i) r.w[i] = sign;
    return r;
  }

  bool negative() const { return (w[N - 1] >> 63) != 0; }
  bool is_zero() const {
    std::uint64_t any = 0;
    for (std::size_t i = 0; i < N; ++i) any |= w[i];
    return any == 0;
  }

  // Sign-extends or cuts.
  template <std::size_t M>
  Wide<M> resize() const {
    Wide<M> r;
    const std::uint64_t sign = negative() ? ~std::uint64_t{0} : 0;
    for (std::size_t i = 0; i < M; ++i) r.w[i] = i < N ? w[i] : sign;
    return r;
  }
  // Extends with zeros or cuts.
  template <std::size_t M>
  Wide<M> zext() const {
    Wide<M> r;
    for (std::size_t i = 0; i < M && i < N; ++i) r.w[i] = w[i];
    return r;
  }

  // The value modulo 2^bits.
  Wide low(std::size_t bits) const {
    Wide r = *this;
    for (std::size_t i = 0; i < N; ++i) {
      if (i * 64 >= bits) {
        r.w[i] = 0;
      } else if (bits - i * 64 < 64) {
        r.w[i] &= (std::uint64_t{1} << (bits - i * 64)) - 1;
      }
    }
    return r;
  }
  // The low `bits` bits read as a two's complement number.
  Wide sign_extend(std::size_t bits) const {
    if (bits == 0 || bits >= 64 * N) return *this;
    const bool neg = ((w[(bits - 1) / 64] >> ((bits - 1) % 64)) & 1) != 0;
    Wide r = low(bits);
    if (neg) {
      for (std::size_t i = 0; i < N; ++i) {
        if (i * 64 >= bits) {
          r.w[i] = ~std::uint64_t{0};
        } else if (bits - i * 64 < 64) {
          r.w[i] |= ~((std::uint64_t{1} << (bits - i * 64)) - 1);
        }
      }
    }
    return r;
  }

  friend Wide operator+(const Wide& a, const Wide& b) {
    Wide r;
    unsigned carry = 0;
    for (std::size_t i = 0; i < N; ++i) {
      const std::uint64_t s = a.w[i] + b.w[i];
      const unsigned c = s < a.w[i] ? 1 : 0;
      r.w[i] = s + carry;
      carry = c | (r.w[i] < s ? 1 : 0);
    }
    return r;
  }
  friend Wide operator~(const Wide& a) {
    Wide r;
    for (std::size_t i = 0; i < N; ++i) r.w[i] = ~a.w[i];
    return r;
  }
  friend Wide operator-(const Wide& a, const Wide& b) { return a + ~b + from_u64(1); }
  friend Wide operator*(const Wide& a, const Wide& b) {
    Wide r;
    for (std::size_t i = 0; i < N; ++i) {
      std::uint64_t carry = 0;
      for (std::size_t j = 0; i + j < N; ++j) {
        // The largest product plus both addends is exactly 2^128 - 1.
        const unsigned __int128 t =
            static_cast<unsigned __int128>(a.w[i]) * b.w[j] + r.w[i + j] + carry;
        r.w[i + j] = static_cast<std::uint64_t>(t);
        carry = static_cast<std::uint64_t>(t >> 64);
      }
    }
    return r;
  }
  friend Wide operator&(const Wide& a, const Wide& b) {
    Wide r;
    for (std::size_t i = 0; i < N; ++i) r.w[i] = a.w[i] & b.w[i];
    return r;
  }
  friend Wide operator|(const Wide& a, const Wide& b) {
    Wide r;
    for (std::size_t i = 0; i < N; ++i) r.w[i] = a.w[i] | b.w[i];
    return r;
  }
  friend Wide operator^(const Wide& a, const Wide& b) {
    Wide r;
    for (std::size_t i = 0; i < N; ++i) r.w[i] = a.w[i] ^ b.w[i];
    return r;
  }
  Wide shl(std::uint64_t n) const {
    Wide r;
    if (n >= 64 * N) return r;
    const std::size_t words = n / 64, bits = n % 64;
    for (std::size_t i = words; i < N; ++i) {
      r.w[i] = w[i - words] << bits;
      if (bits != 0 && i > words) r.w[i] |= w[i - words - 1] >> (64 - bits);
    }
    return r;
  }
  // Arithmetic: rounds towards minus infinity.
  Wide shr(std::uint64_t n) const {
    const std::uint64_t sign = negative() ? ~std::uint64_t{0} : 0;
    Wide r;
    const std::size_t words = n / 64 < N ? static_cast<std::size_t>(n / 64) : N;
    const std::size_t bits = n % 64;
    for (std::size_t i = 0; i < N; ++i) {
      const std::uint64_t lo = i + words < N ? w[i + words] : sign;
      const std::uint64_t hi = i + words + 1 < N ? w[i + words + 1] : sign;
      r.w[i] = bits == 0 ? lo : (lo >> bits) | (hi << (64 - bits));
    }
    return r;
  }

  friend bool operator==(const Wide& a, const Wide& b) {
    std::uint64_t diff = 0;
    for (std::size_t i = 0; i < N; ++i) diff |= a.w[i] ^ b.w[i];
    return diff == 0;
  }
  friend bool operator<(const Wide& a, const Wide& b) {
    if (a.negative() != b.negative()) return a.negative();
    for (std::size_t i = N; i-- > 0;) {
      if (a.w[i] != b.w[i]) return a.w[i] < b.w[i];
    }
    return false;
  }
  friend bool operator>(const Wide& a, const Wide& b) { return b < a; }
  friend bool operator<=(const Wide& a, const Wide& b) { return !(b < a); }
  friend bool operator>=(const Wide& a, const Wide& b) { return !(a < b); }
};

// Long division of numbers that are not negative; x / 0 is 0 and x % 0 is x.
template <std::size_t N>
void divide(const Wide<N>& a, const Wide<N>& b, Wide<N>* quotient, Wide<N>* remainder) {
  Wide<N> q, r;
  if (b.is_zero()) {
    *quotient = q;
    *remainder = a;
    return;
  }
  for (std::size_t i = 64 * N; i-- > 0;) {
    r = r.shl(1);
    r.w[0] |= (a.w[i / 64] >> (i % 64)) & 1;
    if (r >= b) {
      r = r - b;
      q.w[i / 64] |= std::uint64_t{1} << (i % 64);
    }
  }
  *quotient = q;
  *remainder = r;
}

template <std::size_t N>
Wide<N> operator/(const Wide<N>& a, const Wide<N>& b) {
  Wide<N> q, r;
  divide(a, b, &q, &r);
  return q;
}
template <std::size_t N>
Wide<N> operator%(const Wide<N>& a, const Wide<N>& b) {
  Wide<N> q, r;
  divide(a, b, &q, &r);
  return r;
}

// P4 leaves division by zero undefined; here x / 0 is 0 and x % 0 is x, so that no packet can stop
// the switch.
template <typename T>
inline T safe_div(const T& a, const T& b) {
  return b == T{} ? T{} : static_cast<T>(a / b);
}
template <typename T>
inline T safe_mod(const T& a, const T& b) {
  return b == T{} ? a : static_cast<T>(a % b);
}

}  // namespace wiresum::softswitch
