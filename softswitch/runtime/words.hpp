// The control plane's bytes and the data plane's 64-bit words; for the runtime's own sources.
#pragma once

#include <cstdint>

#include "program.hpp"

namespace wiresum::softswitch {

// Big-endian bytes → little-endian 64-bit words. False if the value has more than `bits` bits.
bool bytes_to_words(const Bytes& bytes, unsigned bits, std::uint64_t* words);
Bytes words_to_bytes(const std::uint64_t* words, unsigned bits);

}  // namespace wiresum::softswitch
