#include "ports_raw.hpp"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <net/if.h>
#include <sys/ioctl.h>

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
// Refusals of a train after which none is tried any more.
constexpr unsigned kTrainPatience = 4;

bool set_packet_option(int fd, int name, int value) {
  return setsockopt(fd, SOL_PACKET, name, &value, sizeof value) == 0;
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
      rx_(kRxMessages, kHeadroom, kRxBytes) {
  if (socket_.get() < 0) throw_errno("socket");
  const unsigned index = if_nametoindex(interface.c_str());
  if (index == 0) throw_errno("if_nametoindex");
  enlarge_buffers(fd(), kBufferBytes);
  set_packet_option(fd(), PACKET_IGNORE_OUTGOING, 1);
  set_packet_option(fd(), PACKET_AUXDATA, 1);
  described_ = trains_ = set_packet_option(fd(), PACKET_VNET_HDR, 1);
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

void RawPort::deliver(FrameSink& sink) {
  rx_.each([&](const msghdr& header, const sockaddr_ll& from, std::span<std::uint8_t> data) {
    accept(header, from, data, sink);
  });
}

void RawPort::accept(const msghdr& header, const sockaddr_ll& from, std::span<std::uint8_t> bytes,
                     FrameSink& sink) {
  // Where the kernel does not know PACKET_IGNORE_OUTGOING, our own frames come back.
  if (from.sll_pkttype == PACKET_OUTGOING) return;
  bool tagged = false;
  std::uint16_t tag = 0, tag_type = 0;
  for_each_control(header, [&](const cmsghdr& c) {
    if (is_control(c, SOL_PACKET, PACKET_AUXDATA)) {
      const auto aux = control_value<tpacket_auxdata>(c);
      tagged = (aux.tp_status & TP_STATUS_VLAN_VALID) != 0;
      tag = aux.tp_vlan_tci;
      tag_type = (aux.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0 ? aux.tp_vlan_tpid : ETH_P_8021Q;
    } else if (is_control(c, SOL_SOCKET, SO_RXQ_OVFL)) {
      rx_.count_overflows(control_value<std::uint32_t>(c), stats_);
    }
  });
  std::uint8_t* data = bytes.data();
  std::size_t length = bytes.size();
  Offload offload;
  const std::size_t description = described_ ? sizeof offload : 0;
  if ((header.msg_flags & MSG_TRUNC) != 0 || length < description + kEthernetBytes) {
    stats_.drop_in_malformed.add();
    return;
  }
  std::memcpy(&offload, data, description);
  data += description;
  length -= description;
  if (tagged) {
    std::memmove(data - kTagBytes, data, 12);
    data -= kTagBytes;
    length += kTagBytes;
    store16(data + 12, tag_type);
    store16(data + 14, tag);
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

void RawPort::transmit(std::span<const Waiting> frames) {
  sending_ = frames;
  longest_ = 0;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    if (loss_out_.lose()) {
      stats_.drop_out_lost.add();
      continue;
    }
    stats_.frames_out.add();
    stats_.bytes_out.add(frames[i].length());
    append(i);
  }
  close();
  send_messages();
}

void RawPort::append(std::size_t index) {
  const Waiting& frame = sending_[index];
  // A frame that was lost on purpose leaves a gap in what send_messages() could repeat.
  const bool next = open_ && index == outgoing_[tx_.number()].first + train_.frames();
  if (next && tx_.room_for_pieces(2) && train_.add(frame)) {
    tx_.piece(frame.head + kHeaderBytes, frame.head_bytes - kHeaderBytes);
    tx_.piece(frame.tail, frame.tail_bytes);
    return;
  }
  close();
  begin(index);
}

void RawPort::begin(std::size_t index) {
  if (!tx_.room_for_message(3)) send_messages();
  const Waiting& frame = sending_[index];
  Outgoing& message = outgoing_[tx_.number()];
  message.first = index;
  tx_.begin();
  // The kernel cuts a train without a look at the interface's MTU.
  if (trains_ && index + 1 < sending_.size() && train_.begin(frame) &&
      frame.length() <= longest_frame()) {
    tx_.piece(message.head.data(), message.head.size());
    tx_.piece(frame.head + kHeaderBytes, frame.head_bytes - kHeaderBytes);
    tx_.piece(frame.tail, frame.tail_bytes);
    open_ = true;
  } else {
    message.count = 1;
    put_frame(frame);
    tx_.end();
  }
}

void RawPort::put_frame(const Waiting& frame) {
  std::uint8_t* start = frame.head;
  if (described_) {
    start -= sizeof frame.offload;
    std::memcpy(start, &frame.offload, sizeof frame.offload);
  }
  tx_.piece(start, static_cast<std::size_t>(frame.head + frame.head_bytes - start));
  tx_.piece(frame.tail, frame.tail_bytes);
}

void RawPort::close() {
  if (!open_) return;
  open_ = false;
  Outgoing& message = outgoing_[tx_.number()];
  message.count = train_.frames();
  if (message.count > 1) {
    message.head = train_.head();
    tx_.end();
    return;
  }
  // Nothing followed: it leaves as it is.
  tx_.drop();
  tx_.begin();
  put_frame(sending_[message.first]);
  tx_.end();
}

void RawPort::send_messages() {
  tx_.send(fd(), stats_, [&](std::size_t number, const msghdr&, int error) {
    const Outgoing& message = outgoing_[number];
    if (message.count == 1 || error == EAGAIN || error == ENOBUFS) {
      count_refused(stats_, error, message.count);
      return;
    }
    // This kernel takes no trains of UDP.
    if (++refusals_ >= kTrainPatience) trains_ = false;
    for (std::size_t i = 0; i < message.count; ++i) {
      send_alone(sending_[message.first + i]);
    }
  });
}

void RawPort::send_alone(const Waiting& frame) {
  std::uint8_t* start = frame.head - sizeof frame.offload;  // trains are always described
  std::memcpy(start, &frame.offload, sizeof frame.offload);
  std::array<iovec, 2> vectors{
      iovec{start, sizeof frame.offload + frame.head_bytes},
      iovec{const_cast<std::uint8_t*>(frame.tail), frame.tail_bytes},
  };
  msghdr header{};
  header.msg_iov = vectors.data();
  header.msg_iovlen = vectors.size();
  const int error = send_singly(fd(), header, stats_);
  if (error != 0) count_refused(stats_, error, 1);
}

std::size_t RawPort::longest_frame() {
  if (longest_ == 0) {
    ifreq request{};
    std::strncpy(request.ifr_name, interface_.c_str(), IFNAMSIZ - 1);
    const bool told = ioctl(fd(), SIOCGIFMTU, &request) == 0;
    longest_ = kEthernetBytes + (told ? static_cast<std::size_t>(request.ifr_mtu) : 0);
  }
  return longest_;
}

}  // namespace wiresum::softswitch::ports
