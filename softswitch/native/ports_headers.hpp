// The few header fields that ports read and write: Ethernet, IPv4 without options, UDP.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace wiresum::softswitch::ports {

inline constexpr std::size_t kEthernetBytes = 14;
inline constexpr std::size_t kIpv4Bytes = 20;
inline constexpr std::size_t kUdpBytes = 8;
inline constexpr std::size_t kHeaderBytes = kEthernetBytes + kIpv4Bytes + kUdpBytes;
inline constexpr std::uint16_t kEtherTypeIpv4 = 0x0800;
inline constexpr std::uint8_t kProtocolUdp = 17;

inline std::uint16_t load16(const std::uint8_t* at) {
  return static_cast<std::uint16_t>(at[0] << 8 | at[1]);
}

inline std::uint32_t load32(const std::uint8_t* at) {
  return std::uint32_t{load16(at)} << 16 | load16(at + 2);
}

inline void store16(std::uint8_t* at, std::uint16_t value) {
  at[0] = static_cast<std::uint8_t>(value >> 8);
  at[1] = static_cast<std::uint8_t>(value);
}

inline void store32(std::uint8_t* at, std::uint32_t value) {
  store16(at, static_cast<std::uint16_t>(value >> 16));
  store16(at + 2, static_cast<std::uint16_t>(value));
}

// Adds `bytes` to a ones' complement sum of big-endian 16-bit words (RFC 1071), at most 64 KiB.
inline std::uint32_t checksum_add(std::uint32_t sum, std::span<const std::uint8_t> bytes) {
  // The sum does not care about byte order as long as the result is swapped back, so that whole
  // machine words can be added, in two chains that do not wait for each other.
  std::uint64_t native = 0, other = 0;
  std::size_t i = 0;
  for (; i + 16 <= bytes.size(); i += 16) {
    std::array<std::uint32_t, 4> words;
    std::memcpy(words.data(), bytes.data() + i, sizeof words);
    native += std::uint64_t{words[0]} + words[1];
    other += std::uint64_t{words[2]} + words[3];
  }
  native += other;
  for (; i + 2 <= bytes.size(); i += 2) {
    std::uint16_t word;
    std::memcpy(&word, bytes.data() + i, sizeof word);
    native += word;
  }
  if (i < bytes.size()) {
    const std::array<std::uint8_t, 2> last{bytes[i], 0};
    std::uint16_t word;
    std::memcpy(&word, last.data(), sizeof word);
    native += word;
  }
  while (native >> 16 != 0) native = (native & 0xFFFF) + (native >> 16);
  const auto folded = static_cast<std::uint16_t>(native);
  std::array<std::uint8_t, 2> order;
  std::memcpy(order.data(), &folded, sizeof folded);
  return sum + load16(order.data());
}

inline std::uint16_t checksum_finish(std::uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

// An IPv4 address and a UDP port, host byte order.
struct Peer {
  std::uint32_t ip = 0;
  std::uint16_t port = 0;
  bool operator==(const Peer&) const = default;
};

// Writes the headers of a datagram of `payload` bytes to the kHeaderBytes at `at`. The addresses
// on the Ethernet level are made from the IP addresses: 02:00:a.b.c.d. The UDP checksum is 0, "not
// computed": what arrives in a datagram has been checked by the kernel.
inline void write_headers(std::uint8_t* at, Peer from, Peer to, std::size_t payload) {
  at[0] = 2;
  at[1] = 0;
  store32(at + 2, to.ip);
  at[6] = 2;
  at[7] = 0;
  store32(at + 8, from.ip);
  store16(at + 12, kEtherTypeIpv4);

  std::uint8_t* ip = at + kEthernetBytes;
  const auto udp_length = static_cast<std::uint16_t>(kUdpBytes + payload);
  ip[0] = 0x45;
  ip[1] = 0;
  store16(ip + 2, static_cast<std::uint16_t>(kIpv4Bytes + udp_length));
  store16(ip + 4, 0);
  store16(ip + 6, 0x4000);  // don't fragment: the identification may be zero (RFC 6864)
  ip[8] = 64;
  ip[9] = kProtocolUdp;
  store16(ip + 10, 0);
  store32(ip + 12, from.ip);
  store32(ip + 16, to.ip);
  store16(ip + 10, checksum_finish(checksum_add(0, {ip, kIpv4Bytes})));

  std::uint8_t* udp = ip + kIpv4Bytes;
  store16(udp, from.port);
  store16(udp + 2, to.port);
  store16(udp + 4, udp_length);
  store16(udp + 6, 0);
}

// The headers of datagrams between the same two and of the same length, made once.
class HeaderTemplate {
 public:
  // Writes kHeaderBytes to `at`.
  void write(std::uint8_t* at, Peer from, Peer to, std::size_t payload) {
    if (payload != payload_ || from != from_ || to != to_) {
      write_headers(bytes_.data(), from, to, payload);
      from_ = from;
      to_ = to;
      payload_ = payload;
    }
    std::memcpy(at, bytes_.data(), bytes_.size());
  }

 private:
  Peer from_, to_;
  std::size_t payload_ = ~std::size_t{0};
  std::array<std::uint8_t, kHeaderBytes> bytes_{};
};

// Where a datagram lies in a frame.
struct Datagram {
  Peer from;
  Peer to;
  std::size_t at = 0;     // of the payload in the frame
  std::size_t bytes = 0;  // of the payload
};

// Takes a frame of `length` bytes apart, of which `head` is the beginning. False: not IPv4/UDP, a
// fragment, lengths that do not fit, or headers that go on behind `head`.
inline bool read_datagram(std::span<const std::uint8_t> head, std::size_t length, Datagram* out) {
  if (head.size() < kHeaderBytes || load16(head.data() + 12) != kEtherTypeIpv4) return false;
  const std::uint8_t* ip = head.data() + kEthernetBytes;
  const std::size_t header = static_cast<std::size_t>(ip[0] & 15) * 4;
  const std::size_t total = load16(ip + 2);
  if (ip[0] >> 4 != 4 || header < kIpv4Bytes || ip[9] != kProtocolUdp) return false;
  if ((load16(ip + 6) & 0x3FFF) != 0) return false;  // a fragment has no UDP header, or half a body
  if (total > length - kEthernetBytes || total < header + kUdpBytes) return false;
  if (head.size() < kEthernetBytes + header + kUdpBytes) return false;
  const std::uint8_t* udp = ip + header;
  const std::size_t bytes = load16(udp + 4);
  if (bytes < kUdpBytes || bytes > total - header) return false;
  out->from = {load32(ip + 12), load16(udp)};
  out->to = {load32(ip + 16), load16(udp + 2)};
  out->at = kEthernetBytes + header + kUdpBytes;
  out->bytes = bytes - kUdpBytes;
  return true;
}

}  // namespace wiresum::softswitch::ports
