// Which frames may leave a raw port as one, because the kernel cuts it into the very same frames.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "ports_headers.hpp"
#include "ports_port.hpp"

namespace wiresum::softswitch::ports {

// When the kernel (inet_gso_segment, __udp_gso_segment) or a card cuts a train of UDP datagrams, it
// repeats the headers of the first frame, with lengths and checksums computed anew and with
// identifications that count up. A train is only made of frames of which that is true: each has the
// headers of the first and right checksums (no UDP checksum, 0, is not restored), its
// identification is one more than the one before, and only the last may be shorter.
class RawTrain {
 public:
  static constexpr std::size_t kMaxFrames = 256;

  // The description and the headers of a train.
  using Head = std::array<std::uint8_t, sizeof(Offload) + kHeaderBytes>;

  // Starts a train with this frame. False: it must leave by itself.
  bool begin(const Waiting& frame) {
    if (!is_restored(frame)) return false;
    first_ = &frame;
    frames_ = 1;
    payload_ = frame.length() - kHeaderBytes;
    ended_ = false;
    return true;
  }

  // Takes another frame in. False: it does not belong to this train.
  bool add(const Waiting& frame) {
    const std::size_t payload = frame.length() - kHeaderBytes;
    if (ended_ || frames_ == kMaxFrames || frame.length() <= kHeaderBytes ||
        frame.length() > first_->length() || payload_ + payload > kMaxPayload ||
        !follows(frame.head) || !is_restored(frame)) {
      return false;
    }
    ++frames_;
    payload_ += payload;
    ended_ = frame.length() < first_->length();
    return true;
  }

  std::size_t frames() const { return frames_; }

  // What the kernel is given in front of the payloads.
  Head head() const {
    Offload offload;
    offload.flags = Offload::kNeedsChecksum;
    offload.kind = Offload::kUdpTrain;
    offload.header_bytes = kHeaderBytes;
    offload.segment_bytes = static_cast<std::uint16_t>(first_->length() - kHeaderBytes);
    offload.checksum_start = kEthernetBytes + kIpv4Bytes;
    offload.checksum_offset = 6;
    Head head;
    std::memcpy(head.data(), &offload, sizeof offload);
    std::uint8_t* frame = head.data() + sizeof offload;
    std::memcpy(frame, first_->head, kHeaderBytes);
    std::uint8_t* ip = frame + kEthernetBytes;
    std::uint8_t* udp = ip + kIpv4Bytes;
    const auto length = static_cast<std::uint16_t>(kUdpBytes + payload_);
    store16(ip + 2, static_cast<std::uint16_t>(kIpv4Bytes + length));
    store16(ip + 10, 0);
    store16(ip + 10, checksum_finish(checksum_add(0, {ip, kIpv4Bytes})));
    store16(udp + 4, length);
    // The sum of the pseudo header: the kernel goes on from there.
    const std::uint16_t rest = checksum_finish(pseudo_header(ip, length));
    store16(udp + 6, static_cast<std::uint16_t>(~rest));
    return head;
  }

 private:
  // So that the train is an IPv4 packet.
  static constexpr std::size_t kMaxPayload = 65535 - kIpv4Bytes - kUdpBytes;

  static std::uint32_t pseudo_header(const std::uint8_t* ip, std::uint16_t udp_length) {
    return checksum_add(0, {ip + 12, 8}) + kProtocolUdp + udp_length;
  }

  // The fields that the kernel repeats; checksums and lengths are looked at elsewhere.
  bool follows(const std::uint8_t* frame) const {
    const std::uint8_t* first = first_->head;
    constexpr std::size_t kId = kEthernetBytes + 4;
    const auto id = static_cast<std::uint16_t>(load16(first + kId) + frames_);
    return std::memcmp(first, frame, kEthernetBytes + 2) == 0 && load16(frame + kId) == id &&
           std::memcmp(first + kId + 2, frame + kId + 2, 4) == 0 &&  // fragment, ttl, protocol
           std::memcmp(first + kId + 8, frame + kId + 8, 12) == 0;   // addresses, ports
  }

  // Whether lengths and checksums are those that the kernel would write.
  static bool is_restored(const Waiting& frame) {
    const std::uint8_t* at = frame.head;
    if (frame.head_bytes < kHeaderBytes || frame.length() == kHeaderBytes ||
        frame.offload.kind != Offload::kNone || load16(at + 12) != kEtherTypeIpv4) {
      return false;
    }
    const std::uint8_t* ip = at + kEthernetBytes;
    const std::uint8_t* udp = ip + kIpv4Bytes;
    const std::size_t ip_bytes = frame.length() - kEthernetBytes;
    const std::uint16_t udp_length = load16(udp + 4);
    if (ip[0] != 0x45 || ip[9] != kProtocolUdp || load16(ip + 2) != ip_bytes ||
        (load16(ip + 6) & 0x3FFF) != 0 || udp_length != ip_bytes - kIpv4Bytes ||
        load16(udp + 6) == 0 || (frame.head_bytes % 2 != 0 && frame.tail_bytes != 0)) {
      return false;
    }
    // All ones stands for 0 as well, but nobody computes it.
    if (load16(ip + 10) == 0xFFFF || checksum_finish(checksum_add(0, {ip, kIpv4Bytes})) != 0) {
      return false;
    }
    std::uint32_t sum = pseudo_header(ip, udp_length);
    sum = checksum_add(sum, {udp, frame.head_bytes - kEthernetBytes - kIpv4Bytes});
    return checksum_finish(checksum_add(sum, {frame.tail, frame.tail_bytes})) == 0;
  }

  const Waiting* first_ = nullptr;
  std::size_t frames_ = 0;
  std::size_t payload_ = 0;
  bool ended_ = false;
};

}  // namespace wiresum::softswitch::ports
