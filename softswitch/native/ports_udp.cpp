#include "ports_udp.hpp"

#include <arpa/inet.h>
#include <netinet/udp.h>

#include <algorithm>
#include <cerrno>

#include "../runtime/program.hpp"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace wiresum::softswitch::ports {
namespace {

constexpr int kBufferBytes = 32 << 20;
// Refusals of a train after which none is tried any more.
constexpr unsigned kGsoPatience = 4;
// What a datagram can carry at most.
constexpr std::size_t kMaxPayload = 65507;

std::string to_string(const sockaddr_in& address) {
  std::array<char, INET_ADDRSTRLEN> text{};
  inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size());
  return std::string(text.data()) + ":" + std::to_string(ntohs(address.sin_port));
}

bool set_option(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

// Appends one control message to the buffer that `header` points to.
template <typename T>
void add_control(msghdr* header, int level, int type, const T& value) {
  const std::size_t at = header->msg_controllen;
  header->msg_controllen = at + CMSG_SPACE(sizeof value);
  auto* c = reinterpret_cast<cmsghdr*>(static_cast<std::uint8_t*>(header->msg_control) + at);
  c->cmsg_level = level;
  c->cmsg_type = type;
  c->cmsg_len = CMSG_LEN(sizeof value);
  std::memcpy(CMSG_DATA(c), &value, sizeof value);
}

}  // namespace

UdpPort::UdpPort(std::uint16_t number, const std::string& host, std::uint16_t port,
                 std::uint16_t service_port, Loss in, Loss out)
    : Port(number, in, out),
      socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      service_port_(service_port),
      rx_(kRxMessages, kHeaderBytes, kRxBytes),
      next_(kMaxWaiting),
      payloads_(kMaxWaiting) {
  if (socket_.get() < 0) throw_errno("socket");
  bound_.sin_family = AF_INET;
  bound_.sin_port = htons(port);
  if (inet_pton(AF_INET, host.c_str(), &bound_.sin_addr) != 1) {
    errno = EAFNOSUPPORT;
    throw_errno("inet_pton");
  }
  if (bind(fd(), reinterpret_cast<sockaddr*>(&bound_), sizeof bound_) != 0) throw_errno("bind");
  socklen_t length = sizeof bound_;
  if (getsockname(fd(), reinterpret_cast<sockaddr*>(&bound_), &length) != 0) {
    throw_errno("getsockname");
  }
  enlarge_buffers(fd(), kBufferBytes);
  set_option(fd(), SOL_SOCKET, SO_RXQ_OVFL, 1);
  if (bound_.sin_addr.s_addr == INADDR_ANY) set_option(fd(), IPPROTO_IP, IP_PKTINFO, 1);
  gro_ = set_option(fd(), SOL_UDP, UDP_GRO, 1);
  // Segment size 0 means "no trains by default": it only asks whether the kernel knows the option.
  gso_ = set_option(fd(), SOL_UDP, UDP_SEGMENT, 0);
  chains_.reserve(kMaxWaiting);
}

std::string UdpPort::address() const { return to_string(bound_); }

// -- receiving -----------------------------------------------------------------------------------

void UdpPort::deliver(FrameSink& sink) {
  rx_.each([&](const msghdr& header, const sockaddr_in& from, std::span<std::uint8_t> data) {
    split(header, from, data, sink);
  });
}

void UdpPort::split(const msghdr& header, const sockaddr_in& peer, std::span<std::uint8_t> data,
                    FrameSink& sink) {
  std::size_t segment = std::max<std::size_t>(data.size(), 1);
  std::uint32_t local = ntohl(bound_.sin_addr.s_addr);
  for_each_control(header, [&](const cmsghdr& c) {
    if (is_control(c, SOL_UDP, UDP_GRO)) {
      const auto said = control_value<int>(c);
      if (said > 0) segment = static_cast<std::size_t>(said);
    } else if (is_control(c, IPPROTO_IP, IP_PKTINFO)) {
      local = ntohl(control_value<in_pktinfo>(c).ipi_addr.s_addr);
      learn_local(local);
    } else if (is_control(c, SOL_SOCKET, SO_RXQ_OVFL)) {
      rx_.count_overflows(control_value<std::uint32_t>(c), stats_);
    }
  });
  const Peer from{ntohl(peer.sin_addr.s_addr), ntohs(peer.sin_port)};
  const Peer to{local, service_port_};
  std::size_t at = 0;
  do {  // a datagram may be empty
    const std::size_t length = std::min(segment, data.size() - at);
    // The headers go right in front of the payload: into the room before the buffer or over the
    // end of the datagram before, which the program has already seen.
    std::uint8_t* frame = data.data() + at - kHeaderBytes;
    at += length;
    if (kHeaderBytes + length > kMaxFrameBytes) {
      stats_.drop_in_too_long.add();
      continue;
    }
    if (loss_in_.lose()) {
      stats_.drop_in_lost.add();
      continue;
    }
    headers_.write(frame, from, to, length);
    stats_.frames_in.add();
    stats_.bytes_in.add(kHeaderBytes + length);
    sink.frame({frame, kHeaderBytes + length}, Offload{});
  } while (at < data.size());
}

void UdpPort::learn_local(std::uint32_t ip) {
  const auto end = local_.begin() + static_cast<std::ptrdiff_t>(locals_);
  if (locals_ < local_.size() && std::find(local_.begin(), end, ip) == end) local_[locals_++] = ip;
}

// -- sending -------------------------------------------------------------------------------------

// Results of one chunk go to every worker in turn: trains form only where the frames are sorted by
// their destination first. The order towards each destination stays.
void UdpPort::transmit(std::span<const Waiting> frames) {
  chains_.clear();
  chain_ = 0;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    Datagram datagram;
    if (!take_apart(frames[i], &datagram, &payloads_[i])) {
      stats_.drop_out_not_udp.add();
      continue;
    }
    if (loss_out_.lose()) {
      stats_.drop_out_lost.add();
      continue;
    }
    stats_.bytes_out.add(frames[i].length());
    stats_.frames_out.add();
    const auto here = static_cast<std::uint16_t>(i);
    const std::size_t known = chains_.size();
    Chain& chain = chain_to(datagram.to, source_of(datagram));
    if (chains_.size() > known) {
      chain.head = here;
    } else {
      next_[chain.tail] = here;
    }
    chain.tail = here;
  }
  for (const Chain& chain : chains_) {
    for (std::uint16_t i = chain.head;; i = next_[i]) {
      append(chain, payloads_[i]);
      if (i == chain.tail) break;
    }
    close_train();
  }
  send_messages();
}

// False: not a datagram, or too long for one.
bool UdpPort::take_apart(Waiting frame, Datagram* datagram, Payload* payload) {
  if (!read_datagram({frame.head, frame.head_bytes}, frame.length(), datagram)) {
    if (frame.tail_bytes == 0) return false;
    frame = assembled(frame);
    if (!read_datagram({frame.head, frame.head_bytes}, frame.length(), datagram)) return false;
  }
  if (datagram->bytes > kMaxPayload) return false;
  const std::size_t first = std::min(datagram->bytes, frame.head_bytes - datagram->at);
  payload->first = frame.head + datagram->at;
  payload->first_bytes = static_cast<std::uint32_t>(first);
  payload->second = frame.tail;
  payload->second_bytes = static_cast<std::uint32_t>(datagram->bytes - first);
  return true;
}

std::uint32_t UdpPort::source_of(const Datagram& datagram) const {
  if (bound_.sin_addr.s_addr != INADDR_ANY) return 0;
  const auto end = local_.begin() + static_cast<std::ptrdiff_t>(locals_);
  return std::find(local_.begin(), end, datagram.from.ip) != end ? datagram.from.ip : 0;
}

// The chain to this peer, or a new one. Copies of a multicast come in the same order each time.
UdpPort::Chain& UdpPort::chain_to(Peer to, std::uint32_t from) {
  for (std::size_t i = 0; i < chains_.size(); ++i) {
    if (chains_[chain_].to == to && chains_[chain_].from == from) return chains_[chain_];
    if (++chain_ == chains_.size()) chain_ = 0;
  }
  chain_ = chains_.size();
  return chains_.emplace_back(Chain{to, from});
}

void UdpPort::append(const Chain& chain, const Payload& payload) {
  const std::size_t bytes = payload.bytes();
  if (train_open_) {
    const Outgoing& train = outgoing_[tx_.number()];
    const bool fits = gso_ && bytes <= train.segment && train.count < kTrain && bytes > 0 &&
                      train.bytes + bytes <= kTrainBytes && tx_.room_for_pieces(2);
    if (!fits) close_train();
  }
  if (!train_open_) open_train(chain, bytes);
  Outgoing& train = outgoing_[tx_.number()];
  tx_.piece(payload.first, payload.first_bytes);
  tx_.piece(payload.second, payload.second_bytes);
  train.bytes += bytes;
  ++train.count;
  // Only the last datagram of a train may be shorter.
  if (bytes < train.segment) close_train();
}

void UdpPort::open_train(const Chain& chain, std::size_t segment) {
  if (!tx_.room_for_message(2)) send_messages();
  Outgoing& train = outgoing_[tx_.number()];
  train.to = {};
  train.to.sin_family = AF_INET;
  train.to.sin_addr.s_addr = htonl(chain.to.ip);
  train.to.sin_port = htons(chain.to.port);
  train.bytes = train.count = 0;
  train.segment = segment;
  train_open_ = true;
  msghdr& header = tx_.begin();
  header.msg_name = &train.to;
  header.msg_namelen = sizeof train.to;
  header.msg_control = train.control.data();
  if (chain.from != 0) {
    in_pktinfo info{};
    info.ipi_spec_dst.s_addr = htonl(chain.from);
    add_control(&header, IPPROTO_IP, IP_PKTINFO, info);
  }
}

void UdpPort::close_train() {
  if (!train_open_) return;
  train_open_ = false;
  msghdr& header = tx_.message();
  const Outgoing& train = outgoing_[tx_.number()];
  if (train.count > 1) {
    add_control(&header, SOL_UDP, UDP_SEGMENT, static_cast<std::uint16_t>(train.segment));
  }
  if (header.msg_controllen == 0) header.msg_control = nullptr;
  tx_.end();
}

void UdpPort::send_messages() {
  tx_.send(fd(), stats_, [&](std::size_t number, const msghdr& header, int error) {
    const Outgoing& about = outgoing_[number];
    if (about.count > 1 && error != EAGAIN && error != ENOBUFS) {
      // The kernel, or the interface's MTU, does not take this train.
      if (++gso_refusals_ >= kGsoPatience) gso_ = false;
      send_one_by_one(header, about);
    } else {
      count_refused(stats_, error, about.count);
    }
  });
}

void UdpPort::send_one_by_one(const msghdr& train, const Outgoing& about) {
  msghdr header = train;
  // The segment size was added last; the source address before it stays.
  header.msg_controllen -= CMSG_SPACE(sizeof(std::uint16_t));
  if (header.msg_controllen == 0) header.msg_control = nullptr;
  std::size_t piece = 0;
  for (std::size_t i = 0; i < about.count; ++i) {
    header.msg_iov = train.msg_iov + piece;
    header.msg_iovlen = 0;
    for (std::size_t bytes = 0; bytes < about.segment && piece < train.msg_iovlen; ++piece) {
      bytes += train.msg_iov[piece].iov_len;
      ++header.msg_iovlen;
    }
    const int error = send_singly(fd(), header, stats_);
    if (error != 0) count_refused(stats_, error, 1);
  }
}

}  // namespace wiresum::softswitch::ports
