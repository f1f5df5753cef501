#include "ports_raw.hpp"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>

#include "../runtime/program.hpp"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

namespace wiresum::softswitch::ports {
namespace {

constexpr int kBufferBytes = 32 << 20;
constexpr std::size_t kTagBytes = 4;

bool set_packet_option(int fd, int name, int value) {
  return setsockopt(fd, SOL_PACKET, name, &value, sizeof value) == 0;
}

// What the kernel says about a received frame.
struct Received {
  bool tagged = false;
  std::uint16_t tag_type = 0;
  std::uint16_t tag = 0;
  std::uint32_t overflows = 0;
};

Received read_control(const msghdr& header) {
  Received found;
  msghdr copy = header;
  for (cmsghdr* c = CMSG_FIRSTHDR(&copy); c != nullptr; c = CMSG_NXTHDR(&copy, c)) {
    if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA) {
      tpacket_auxdata aux{};
      std::memcpy(&aux, CMSG_DATA(c), sizeof aux);
      found.tagged = (aux.tp_status & TP_STATUS_VLAN_VALID) != 0;
      found.tag = aux.tp_vlan_tci;
      found.tag_type =
          (aux.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0 ? aux.tp_vlan_tpid : ETH_P_8021Q;
    } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
      std::memcpy(&found.overflows, CMSG_DATA(c), sizeof found.overflows);
    }
  }
  return found;
}

// Where the network header begins and what it is, behind any VLAN tags. False: a runt.
bool find_network(std::span<const std::uint8_t> frame, std::size_t* at, std::uint16_t* type) {
  *at = kEthernetBytes;
  while (frame.size() >= *at) {
    *type = load16(frame.data() + *at - 2);
    if (*type != ETH_P_8021Q && *type != ETH_P_8021AD) return true;
    *at += kTagBytes;
  }
  return false;
}

// Computes the checksum that the sender left to the hardware: the field already holds the sum of
// the pseudo header. False: it lies outside the frame.
bool complete_checksum(std::span<std::uint8_t> frame, std::size_t start, std::size_t offset) {
  if (start + offset + 2 > frame.size()) return false;
  std::uint16_t sum = checksum_finish(checksum_add(0, frame.subspan(start)));
  // For UDP a zero would mean "none"; for TCP both stand for the same number.
  if (sum == 0) sum = 0xFFFF;
  store16(frame.data() + start + offset, sum);
  return true;
}

}  // namespace

RawPort::RawPort(std::uint16_t number, const std::string& interface, Loss in, Loss out)
    : Port(number, in, out),
      interface_(interface),
      // Protocol 0: nothing arrives before bind() has chosen the interface.
      socket_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      rx_buffer_(
          std::make_unique_for_overwrite<std::uint8_t[]>(kRxMessages * (kHeadroom + kRxBytes))) {
  if (socket_.get() < 0) throw_errno("socket");
  const unsigned index = if_nametoindex(interface.c_str());
  if (index == 0) throw_errno("if_nametoindex");
  enlarge_buffers(fd(), kBufferBytes);
  set_packet_option(fd(), PACKET_IGNORE_OUTGOING, 1);
  set_packet_option(fd(), PACKET_AUXDATA, 1);
  described_ = set_packet_option(fd(), PACKET_VNET_HDR, 1);
  const int on = 1;
  setsockopt(fd(), SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on);
  packet_mreq promiscuous{};
  promiscuous.mr_ifindex = static_cast<int>(index);
  promiscuous.mr_type = PACKET_MR_PROMISC;
  if (setsockopt(fd(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) != 0) {
    throw_errno("PACKET_ADD_MEMBERSHIP");
  }
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(index);
  if (bind(fd(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) throw_errno("bind");
}

// -- receiving -----------------------------------------------------------------------------------

bool RawPort::receive() {
  for (std::size_t i = 0; i < kRxMessages; ++i) {
    RxMessage& slot = rx_[i];
    slot.vector = {rx_buffer_.get() + i * (kHeadroom + kRxBytes) + kHeadroom, kRxBytes};
    rx_headers_[i] = {};
    msghdr& header = rx_headers_[i].msg_hdr;
    header.msg_name = &slot.from;
    header.msg_namelen = sizeof slot.from;
    header.msg_iov = &slot.vector;
    header.msg_iovlen = 1;
    header.msg_control = slot.control.data();
    header.msg_controllen = slot.control.size();
  }
  stats_.calls_in.add();
  const int got = recvmmsg(fd(), rx_headers_.data(), kRxMessages, MSG_DONTWAIT, nullptr);
  received_ = got > 0 ? static_cast<std::size_t>(got) : 0;
  return received_ > 0;
}

void RawPort::deliver(FrameSink& sink) {
  for (std::size_t i = 0; i < received_; ++i) {
    accept(rx_headers_[i], static_cast<std::uint8_t*>(rx_[i].vector.iov_base), sink);
  }
  received_ = 0;
}

void RawPort::accept(const mmsghdr& message, std::uint8_t* data, FrameSink& sink) {
  // Where the kernel does not know PACKET_IGNORE_OUTGOING, our own frames come back.
  const auto* name = static_cast<const sockaddr_ll*>(message.msg_hdr.msg_name);
  if (name->sll_pkttype == PACKET_OUTGOING) return;
  const Received info = read_control(message.msg_hdr);
  if (info.overflows != overflows_) {
    stats_.drop_in_kernel.add(info.overflows - overflows_);  // the kernel's count wraps at 2^32
    overflows_ = info.overflows;
  }
  std::size_t length = message.msg_len;
  Offload offload;
  const std::size_t description = described_ ? sizeof offload : 0;
  if ((message.msg_hdr.msg_flags & MSG_TRUNC) != 0 || length < description + kEthernetBytes) {
    stats_.drop_in_malformed.add();
    return;
  }
  std::memcpy(&offload, data, description);
  data += description;
  length -= description;
  if (info.tagged) {
    std::memmove(data - kTagBytes, data, 12);
    data -= kTagBytes;
    length += kTagBytes;
    store16(data + 12, info.tag_type);
    store16(data + 14, info.tag);
    offload.header_bytes += kTagBytes;
    offload.checksum_start += kTagBytes;
  }
  const std::span<std::uint8_t> frame{data, length};
  std::size_t network = 0;
  std::uint16_t type = 0;
  if (!find_network(frame, &network, &type)) {
    stats_.drop_in_malformed.add();
  } else if (offload.kind == Offload::kUdpTrain && type == kEtherTypeIpv4) {
    split(frame, network, offload, sink);
  } else if (offload.kind == Offload::kNone) {
    if ((offload.flags & Offload::kNeedsChecksum) != 0 &&
        !complete_checksum(frame, offload.checksum_start, offload.checksum_offset)) {
      stats_.drop_in_malformed.add();
      return;
    }
    pass(frame, Offload{}, sink);
  } else {
    pass(frame, offload, sink);
  }
}

// Makes the frames that a train of UDP datagrams over IPv4 would have been on a cable, each in
// place: its headers go over the end of the datagram before, which the program has already seen.
void RawPort::split(std::span<std::uint8_t> frame, std::size_t network, const Offload& offload,
                    FrameSink& sink) {
  const std::size_t ip_bytes =
      frame.size() > network ? static_cast<std::size_t>(frame[network] & 15) * 4 : 0;
  const std::size_t headers = network + ip_bytes + kUdpBytes;
  std::array<std::uint8_t, kHeadroom> first;
  if (ip_bytes < kIpv4Bytes || headers > frame.size() || headers > first.size() ||
      offload.segment_bytes == 0) {
    stats_.drop_in_malformed.add();
    return;
  }
  std::memcpy(first.data(), frame.data(), headers);
  std::uint16_t id = load16(first.data() + network + 4);
  for (std::size_t at = headers; at < frame.size(); at += offload.segment_bytes, ++id) {
    const std::size_t payload = std::min<std::size_t>(offload.segment_bytes, frame.size() - at);
    std::uint8_t* start = frame.data() + at - headers;
    std::memcpy(start, first.data(), headers);
    std::uint8_t* ip = start + network;
    std::uint8_t* udp = ip + ip_bytes;
    const auto udp_length = static_cast<std::uint16_t>(kUdpBytes + payload);
    store16(ip + 2, static_cast<std::uint16_t>(ip_bytes + udp_length));
    store16(ip + 4, id);
    store16(ip + 10, 0);
    store16(ip + 10, checksum_finish(checksum_add(0, {ip, ip_bytes})));
    store16(udp + 4, udp_length);
    store16(udp + 6, 0);
    std::uint32_t sum = checksum_add(0, {ip + 12, 8});
    sum += kProtocolUdp + udp_length;
    const std::uint16_t checksum = checksum_finish(checksum_add(sum, {udp, udp_length}));
    store16(udp + 6, checksum == 0 ? 0xFFFF : checksum);
    pass({start, headers + payload}, Offload{}, sink);
  }
}

void RawPort::pass(std::span<std::uint8_t> frame, const Offload& offload, FrameSink& sink) {
  if (frame.size() > kMaxFrameBytes) {
    stats_.drop_in_too_long.add();
    return;
  }
  if (loss_in_.lose()) {
    stats_.drop_in_lost.add();
    return;
  }
  stats_.frames_in.add();
  stats_.bytes_in.add(frame.size());
  sink.frame(frame, offload);
}

// -- sending -------------------------------------------------------------------------------------

void RawPort::transmit() {
  std::size_t count = 0;
  for (const Waiting& waiting : queue_.waiting()) {
    if (loss_out_.lose()) {
      stats_.drop_out_lost.add();
      continue;
    }
    stats_.frames_out.add();
    stats_.bytes_out.add(waiting.length);
    std::span<std::uint8_t> frame = queue_.bytes(waiting);
    std::uint8_t* start = frame.data();
    if (described_) {
      start -= sizeof waiting.offload;
      std::memcpy(start, &waiting.offload, sizeof waiting.offload);
    }
    vectors_[count] = {start, static_cast<std::size_t>(frame.data() + frame.size() - start)};
    tx_headers_[count] = {};
    tx_headers_[count].msg_hdr.msg_iov = &vectors_[count];
    tx_headers_[count].msg_hdr.msg_iovlen = 1;
    if (++count == kTxMessages) {
      send_messages(count);
      count = 0;
    }
  }
  send_messages(count);
}

void RawPort::send_messages(std::size_t count) {
  std::size_t sent = 0;
  while (sent < count) {
    stats_.calls_out.add();
    const int got =
        sendmmsg(fd(), &tx_headers_[sent], static_cast<unsigned>(count - sent), MSG_DONTWAIT);
    if (got > 0) {
      sent += static_cast<std::size_t>(got);
      continue;
    }
    const int error = errno;
    if (error == EINTR || (error == EAGAIN && wait_writable(fd()))) continue;
    // ENOBUFS: the interface's queue is full. A switch drops then; waiting would stop all ports.
    const bool full = error == EAGAIN || error == ENOBUFS;
    (full ? stats_.drop_out_full : stats_.drop_out_failed).add();
    ++sent;
  }
}

}  // namespace wiresum::softswitch::ports
