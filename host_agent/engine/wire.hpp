// The wiresum header as it lies on the wire: read and written field by field, big-endian.
// Constants and offsets come from packet.hpp, which is generated from the P4 headers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "big_endian.hpp"
#include "packet.hpp"

namespace wiresum {

// The header in host order.
struct Header {
  static constexpr std::size_t kBytes = packet::kHeaderBytes;

  std::uint8_t version;
  std::uint8_t kind;
  std::uint8_t op;
  std::uint8_t readers;
  std::uint16_t job;
  std::uint16_t slot;
  std::uint32_t epoch;
  std::uint32_t chunk;
  std::uint64_t key;
  std::uint32_t fingerprint;

  static Header read(const std::uint8_t* from) {
    namespace offset = packet::offset;
    return {.version = load_big_endian<std::uint8_t>(from + offset::kVersion),
            .kind = load_big_endian<std::uint8_t>(from + offset::kKind),
            .op = load_big_endian<std::uint8_t>(from + offset::kOp),
            .readers = load_big_endian<std::uint8_t>(from + offset::kReaders),
            .job = load_big_endian<std::uint16_t>(from + offset::kJob),
            .slot = load_big_endian<std::uint16_t>(from + offset::kSlot),
            .epoch = load_big_endian<std::uint32_t>(from + offset::kEpoch),
            .chunk = load_big_endian<std::uint32_t>(from + offset::kChunk),
            .key = load_big_endian<std::uint64_t>(from + offset::kKey),
            .fingerprint = load_big_endian<std::uint32_t>(from + offset::kFingerprint)};
  }

  void write(std::uint8_t* to) const {
    namespace offset = packet::offset;
    store_big_endian(to + offset::kVersion, version);
    store_big_endian(to + offset::kKind, kind);
    store_big_endian(to + offset::kOp, op);
    store_big_endian(to + offset::kReaders, readers);
    store_big_endian(to + offset::kJob, job);
    store_big_endian(to + offset::kSlot, slot);
    store_big_endian(to + offset::kEpoch, epoch);
    store_big_endian(to + offset::kChunk, chunk);
    store_big_endian(to + offset::kKey, key);
    store_big_endian(to + offset::kFingerprint, fingerprint);
  }
};

}  // namespace wiresum
