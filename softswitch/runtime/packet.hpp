// Operations on headers and header stacks, logging, random numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "arith.hpp"
#include "bits.hpp"

namespace wiresum::softswitch {

// Element `index` of a stack; beyond it a spare header that is never valid, so that a wrong index
// reads zeros and writes nothing.
template <typename T>
T& element(T* stack, std::uint32_t size, std::uint32_t index) {
  if (index < size) return stack[index];
  static thread_local T spare;
  spare = T{};
  return spare;
}

// A header of which a field is about to be written, valid or not.
template <typename T>
T& touched(T& header) {
  header.used = true;
  return header;
}

// Clears what earlier packets have left in a header that this packet does not have, so that reading
// it gives zeros.
template <typename T>
void clear_unused(T& header, bool touched = false) {
  if (!header.valid && (header.used || touched)) header = T{};
}

// A header that is not valid makes the target invalid; its old fields do not matter any more.
template <typename T>
void assign_header(T& to, const T& from) {
  if (from.valid) {
    to = from;
  } else {
    to.valid = false;
  }
}

template <typename T>
bool same_header(const T& a, const T& b) {
  return a.valid && b.valid && a == b;
}

// `length` is what standard_metadata.packet_length will be in egress.
template <typename T>
void set_valid(T& header, std::uint32_t bytes, std::uint32_t& length) {
  if (header.valid) return;
  header = T{};
  header.valid = header.used = true;
  length += bytes;
}
template <typename T>
void set_invalid(T& header, std::uint32_t bytes, std::uint32_t& length) {
  if (!header.valid) return;
  header.valid = false;
  length -= bytes;
}

// As std::min, whose header is large.
inline std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }

template <typename T, std::size_t N>
void push_front(T (&stack)[N], std::uint32_t& next, std::size_t count) {
  count = smaller(count, N);
  for (std::size_t i = N; i-- > count;) stack[i] = stack[i - count];
  for (std::size_t i = 0; i < count; ++i) stack[i] = T{};
  next = static_cast<std::uint32_t>(smaller(N, next + count));
}
template <typename T, std::size_t N>
void pop_front(T (&stack)[N], std::uint32_t& next, std::size_t count) {
  count = smaller(count, N);
  for (std::size_t i = 0; i + count < N; ++i) stack[i] = stack[i + count];
  for (std::size_t i = N - count; i < N; ++i) stack[i] = T{};
  next -= static_cast<std::uint32_t>(smaller(next, count));
}

inline std::uint64_t at_least_one(std::uint64_t value) { return value == 0 ? 1 : value; }

// xorshift64* (Vigna 2016): good enough for v1model's random().
class Random {
 public:
  // Uniform in [low, high]; low where the range is empty.
  std::uint64_t between(std::uint64_t low, std::uint64_t high) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    const std::uint64_t bits = state_ * 0x2545f4914f6cdd1dULL;
    if (high <= low) return low;
    const std::uint64_t range = high - low + 1;
    if (range == 0) return bits;
    return low + static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits) * range) >> 64);
  }

 private:
  std::uint64_t state_ = 0x9e3779b97f4a7c15ULL;
};

std::string to_text(std::uint64_t value);
std::string to_text(std::int64_t value);
template <std::size_t N>
std::string to_text(const Wide<N>& value) {
  std::string text;
  for (std::size_t i = N * 16; i-- > 0;) {
    const unsigned digit = (value.w[i / 16] >> (4 * (i % 16))) & 15;
    if (!text.empty() || digit != 0 || i == 0) text += "0123456789abcdef"[digit];
  }
  return "0x" + text;
}

// One line on stderr, in one system call so that lines of several threads do not mix.
void log_line(std::string text);

// log_msg: a line on stderr in which each {} stands for the next value.
void log_texts(std::string_view format, std::span<const std::string> values);
template <typename... Values>
void log_message(std::string_view format, const Values&... values) {
  const std::string texts[] = {values..., std::string()};
  log_texts(format, {texts, sizeof...(values)});
}

}  // namespace wiresum::softswitch
