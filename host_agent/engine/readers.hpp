// Who gets the result of a piece.
#pragma once

#include <cstdint>
#include <string>

#include "packet.hpp"

namespace wiresum {

// The ranks that get a result's lanes; the others get the same result without lanes.
struct Readers {
  packet::Readers kind = packet::Readers::kAll;
  std::uint32_t rank = 0;  // that `kind` names; 0 for all

  bool has(std::uint32_t other) const {
    if (kind == packet::Readers::kAll) return true;
    return (other == rank) == (kind == packet::Readers::kOnly);
  }
  std::uint8_t on_wire() const {
    return static_cast<std::uint8_t>(static_cast<unsigned>(kind) << packet::kReaderBits | rank);
  }
  // The rank as callers give it: -1 for all.
  int named() const { return kind == packet::Readers::kAll ? -1 : static_cast<int>(rank); }
};

// From a caller's numbers, which stand for the members of packet::Readers. Throws EngineError if
// they, or the source of a copy (-1: of a sum), are not of a job of so many workers.
Readers readers_of(int source, int readers, int reader, std::uint32_t workers);

// Of error lines: who reads, if not all ranks do; begins with a comma.
std::string describe(const Readers& readers);

}  // namespace wiresum
