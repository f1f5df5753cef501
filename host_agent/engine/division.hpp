// The streams of a lease, and how its slots are divided among them.
#pragma once

#include <cstdint>

#include "lease.hpp"
#include "stream.hpp"

namespace wiresum {

enum class StreamName : std::uint8_t { Exponent, Data, Copy };
const char* name_of(StreamName name);
inline constexpr StreamName kStreams[] = {StreamName::Exponent, StreamName::Data, StreamName::Copy};

// Slots relative to the lease; an even number of them, half of which is the window.
struct SlotRange {
  std::uint32_t base;
  std::uint32_t count;

  bool has(std::uint32_t slot) const { return slot - base < count; }
};

// Every window counts while all streams are in use; while only sums are, the copies' slots are
// idle.
//  - Exponents take an eighth: one of their chunks opens the way for 32 data chunks or more. But
//    large words (MAX) travel in this stream alone, and small tensors as much in it as in the data
//    stream.
//  - Copies take a quarter: 64 chunks of 1 KiB in flight of the 512 slots of a default lease, which
//    fill a link of 1 Gbit/s up to a round trip of half a millisecond.
//  - Data have the rest: 160 chunks of the same lease, which fill 10 Gbit/s up to 130 microseconds.
struct Division {
  SlotRange exponent;
  SlotRange data;
  SlotRange copy;

  explicit Division(std::uint32_t slots);
};

StreamConfig stream_config(const Lease& lease, const EngineOptions& options, StreamName name);

}  // namespace wiresum
