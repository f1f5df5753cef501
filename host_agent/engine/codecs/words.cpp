#include "codecs/words.hpp"

#include <algorithm>
#include <cstring>

#include "big_endian.hpp"

namespace wiresum {
namespace {

std::uint32_t word(const void* in, std::size_t at) {
  std::uint32_t value;
  std::memcpy(&value, static_cast<const std::byte*>(in) + 4 * at, 4);
  return value;
}

}  // namespace

void IntegerSum::exponents(Dtype, const void* in, std::size_t n, std::uint8_t* codes) const {
  for (std::size_t first = 0; first < n; first += kBlock) {
    std::uint32_t any = 0;
    for (std::size_t i = first; i < std::min(n, first + kBlock); ++i) any |= word(in, i);
    store_big_endian<std::uint32_t>(codes + first / kBlock * 4, any != 0);
  }
}

std::size_t IntegerSum::encode(Dtype, const void* in, std::size_t n, const std::uint32_t*,
                               std::uint8_t* lanes) const {
  for (std::size_t i = 0; i < n; ++i) store_big_endian(lanes + 4 * i, word(in, i));
  return n;
}

void IntegerSum::decode(Dtype, const std::uint8_t* lanes, std::size_t n, const std::uint32_t*, bool,
                        void* out) const {
  for (std::size_t i = 0; i < n; ++i) {
    const auto sum = load_big_endian<std::uint32_t>(lanes + 4 * i);
    std::memcpy(static_cast<std::byte*>(out) + 4 * i, &sum, 4);
  }
}

void Largest::exponents(Dtype, const void* in, std::size_t n, std::uint8_t* codes) const {
  for (std::size_t i = 0; i < n; ++i) store_big_endian(codes + 4 * i, word(in, i));
}

void Largest::fill(Dtype, std::uint32_t code, void* out, std::size_t n) const {
  for (std::size_t i = 0; i < n; ++i) {
    std::memcpy(static_cast<std::byte*>(out) + 4 * i, &code, 4);
  }
}

}  // namespace wiresum
