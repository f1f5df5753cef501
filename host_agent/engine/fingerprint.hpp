// The fingerprint of a collective: by it the switch finds ranks that disagree about a chunk.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace wiresum {

// splitmix64's finalizer (Steele, Lea, Flood 2014) over the words, folded to 32 bits.
inline std::uint32_t fingerprint(std::initializer_list<std::uint64_t> words) {
  std::uint64_t state = 0;
  for (const std::uint64_t word : words) {
    state = (state ^ word) + 0x9e3779b97f4a7c15u;
    state = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
    state = (state ^ state >> 27) * 0x94d049bb133111ebu;
    state ^= state >> 31;
  }
  return static_cast<std::uint32_t>(state ^ state >> 32);
}

}  // namespace wiresum
