// The packet format, made by p4/generate.py from the P4 headers: do not edit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace wiresum::packet {

inline constexpr std::uint32_t kUdpPort = 22355;
inline constexpr std::uint32_t kVersion = 3;
inline constexpr std::uint32_t kSlots = 4096;
inline constexpr std::uint32_t kJobs = 1024;
inline constexpr std::uint32_t kEvents = 8;
inline constexpr std::uint32_t kDropReasons = 17;
inline constexpr std::uint32_t kFloodGroup = 1;
inline constexpr std::uint32_t kJobGroups = 256;
inline constexpr std::uint32_t kEthernetBytes = 14;
inline constexpr std::uint32_t kIpv4Bytes = 20;
inline constexpr std::uint32_t kUdpBytes = 8;
inline constexpr std::uint32_t kHeaderBytes = 28;
inline constexpr std::uint32_t kContributorsBytes = 8;
inline constexpr std::uint32_t kReaderBits = 6;

enum class Kind : std::uint8_t { kContribution = 1, kResult = 2, kWait = 3, kMismatch = 4 };

enum class Op : std::uint8_t { kSum = 0, kMax = 1 };

enum class Readers : std::uint8_t { kAll = 0, kOnly = 1, kAllBut = 2 };

// Offsets in bytes from the start of the wiresum header.
namespace offset {
inline constexpr std::size_t kVersion = 0;
inline constexpr std::size_t kKind = 1;
inline constexpr std::size_t kOp = 2;
inline constexpr std::size_t kReaders = 3;
inline constexpr std::size_t kJob = 4;
inline constexpr std::size_t kSlot = 6;
inline constexpr std::size_t kEpoch = 8;
inline constexpr std::size_t kChunk = 12;
inline constexpr std::size_t kKey = 16;
inline constexpr std::size_t kFingerprint = 24;
}  // namespace offset

}  // namespace wiresum::packet
