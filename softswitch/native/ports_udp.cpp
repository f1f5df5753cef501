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

// What the kernel says about a received message.
struct Received {
  std::size_t segment = 0;  // the length of the datagrams in a train, 0: one datagram
  std::uint32_t local = 0;  // the address it was sent to
  std::uint32_t overflows = 0;
};

Received read_control(const msghdr& header) {
  Received found;
  msghdr copy = header;
  for (cmsghdr* c = CMSG_FIRSTHDR(&copy); c != nullptr; c = CMSG_NXTHDR(&copy, c)) {
    if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
      int segment = 0;
      std::memcpy(&segment, CMSG_DATA(c), sizeof segment);
      found.segment = segment > 0 ? static_cast<std::size_t>(segment) : 0;
    } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
      in_pktinfo info{};
      std::memcpy(&info, CMSG_DATA(c), sizeof info);
      found.local = ntohl(info.ipi_addr.s_addr);
    } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
      std::memcpy(&found.overflows, CMSG_DATA(c), sizeof found.overflows);
    }
  }
  return found;
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
      rx_buffer_(
          std::make_unique_for_overwrite<std::uint8_t[]>(kRxMessages * (kHeaderBytes + kRxBytes))),
      next_(TxQueue::kFrames),
      datagrams_(TxQueue::kFrames),
      vectors_(kTxVectors) {
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
  chains_.reserve(TxQueue::kFrames);
}

std::string UdpPort::address() const { return to_string(bound_); }

// -- receiving -----------------------------------------------------------------------------------

bool UdpPort::receive() {
  for (std::size_t i = 0; i < kRxMessages; ++i) {
    RxMessage& slot = rx_[i];
    slot.vector = {rx_buffer_.get() + i * (kHeaderBytes + kRxBytes) + kHeaderBytes, kRxBytes};
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

void UdpPort::deliver(FrameSink& sink) {
  for (std::size_t i = 0; i < received_; ++i) {
    split(rx_headers_[i], static_cast<std::uint8_t*>(rx_[i].vector.iov_base), sink);
  }
  received_ = 0;
}

void UdpPort::split(const mmsghdr& message, std::uint8_t* data, FrameSink& sink) {
  const Received info = read_control(message.msg_hdr);
  if (info.overflows != overflows_) {
    stats_.drop_in_kernel.add(info.overflows - overflows_);  // the kernel's count wraps at 2^32
    overflows_ = info.overflows;
  }
  if ((message.msg_hdr.msg_flags & MSG_TRUNC) != 0) {
    stats_.drop_in_malformed.add();
    return;
  }
  const auto* name = static_cast<const sockaddr_in*>(message.msg_hdr.msg_name);
  const Peer from{ntohl(name->sin_addr.s_addr), ntohs(name->sin_port)};
  Peer to{ntohl(bound_.sin_addr.s_addr), service_port_};
  if (to.ip == 0) {
    to.ip = info.local;
    learn_local(info.local);
  }
  const std::size_t total = message.msg_len;
  const std::size_t segment = info.segment == 0 ? total : info.segment;
  std::size_t at = 0;
  do {  // at least once: an empty datagram is a frame, too
    const std::size_t length = std::min(segment, total - at);
    // The headers go right in front of the payload: into the room before the buffer or over the
    // end of the datagram before, which the program has already seen.
    std::uint8_t* frame = data + at - kHeaderBytes;
    at += length;
    if (kHeaderBytes + length > kMaxFrameBytes) {
      stats_.drop_in_too_long.add();
      continue;
    }
    if (loss_in_.lose()) {
      stats_.drop_in_lost.add();
      continue;
    }
    write_headers(frame, from, to, length);
    stats_.frames_in.add();
    stats_.bytes_in.add(kHeaderBytes + length);
    sink.frame({frame, kHeaderBytes + length}, Offload{});
  } while (at < total);
}

void UdpPort::learn_local(std::uint32_t ip) {
  const auto end = local_.begin() + static_cast<std::ptrdiff_t>(locals_);
  if (locals_ < local_.size() && std::find(local_.begin(), end, ip) == end) local_[locals_++] = ip;
}

// -- sending -------------------------------------------------------------------------------------

void UdpPort::transmit() {
  const auto waiting = queue_.waiting();
  chains_.clear();
  for (std::size_t i = 0; i < waiting.size(); ++i) {
    if (!read_datagram(queue_.bytes(waiting[i]), &datagrams_[i]) ||
        datagrams_[i].payload.size() > kMaxPayload) {
      stats_.drop_out_not_udp.add();
    } else if (loss_out_.lose()) {
      stats_.drop_out_lost.add();
    } else {
      stats_.bytes_out.add(waiting[i].length);
      stats_.frames_out.add();
      chain(i);
    }
  }
  send_chains();
}

// Results of one chunk go to every worker in turn: trains form only where the frames are sorted by
// their destination first. The order towards each destination stays.
void UdpPort::chain(std::size_t index) {
  const Datagram& datagram = datagrams_[index];
  std::uint32_t from = 0;
  if (bound_.sin_addr.s_addr == INADDR_ANY) {
    const auto end = local_.begin() + static_cast<std::ptrdiff_t>(locals_);
    if (std::find(local_.begin(), end, datagram.from.ip) != end) from = datagram.from.ip;
  }
  const auto here = static_cast<std::uint16_t>(index);
  // Newest first: frames to the same peer tend to come close together.
  for (std::size_t i = chains_.size(); i-- > 0;) {
    Chain& chain = chains_[i];
    if (chain.to == datagram.to && chain.from == from) {
      next_[chain.tail] = here;
      chain.tail = here;
      return;
    }
  }
  chains_.push_back({datagram.to, from, here, here});
}

void UdpPort::send_chains() {
  messages_ = vectors_used_ = 0;
  for (const Chain& chain : chains_) {
    for (std::uint16_t i = chain.head;; i = next_[i]) {
      append(chain, datagrams_[i].payload);
      if (i == chain.tail) break;
    }
    close_train();
  }
  send_messages();
}

void UdpPort::append(const Chain& chain, std::span<std::uint8_t> payload) {
  if (train_open_) {
    Outgoing& train = outgoing_[messages_];
    const std::size_t count = vectors_used_ - train_start_;
    const bool fits = gso_ && payload.size() <= train.segment && count < kTrain &&
                      train.bytes + payload.size() <= kTrainBytes && vectors_used_ < kTxVectors &&
                      !payload.empty();
    if (!fits) close_train();
  }
  if (!train_open_) {
    if (messages_ == kTxMessages || vectors_used_ == kTxVectors) send_messages();
    Outgoing& train = outgoing_[messages_];
    train.to = {};
    train.to.sin_family = AF_INET;
    train.to.sin_addr.s_addr = htonl(chain.to.ip);
    train.to.sin_port = htons(chain.to.port);
    train.bytes = 0;
    train.segment = payload.size();
    train_start_ = vectors_used_;
    train_open_ = true;
    tx_headers_[messages_] = {};
    msghdr& header = tx_headers_[messages_].msg_hdr;
    header.msg_name = &train.to;
    header.msg_namelen = sizeof train.to;
    header.msg_iov = &vectors_[train_start_];
    header.msg_control = train.control.data();
    if (chain.from != 0) {
      in_pktinfo info{};
      info.ipi_spec_dst.s_addr = htonl(chain.from);
      add_control(&header, IPPROTO_IP, IP_PKTINFO, info);
    }
  }
  Outgoing& train = outgoing_[messages_];
  vectors_[vectors_used_++] = {payload.data(), payload.size()};
  train.bytes += payload.size();
  // Only the last datagram of a train may be shorter.
  if (payload.size() < train.segment) close_train();
}

void UdpPort::close_train() {
  if (!train_open_) return;
  train_open_ = false;
  msghdr& header = tx_headers_[messages_].msg_hdr;
  header.msg_iovlen = vectors_used_ - train_start_;
  if (header.msg_iovlen > 1) {
    const auto segment = static_cast<std::uint16_t>(outgoing_[messages_].segment);
    add_control(&header, SOL_UDP, UDP_SEGMENT, segment);
  }
  if (header.msg_controllen == 0) header.msg_control = nullptr;
  ++messages_;
}

void UdpPort::send_messages() {
  std::size_t sent = 0;
  while (sent < messages_) {
    stats_.calls_out.add();
    const int got =
        sendmmsg(fd(), &tx_headers_[sent], static_cast<unsigned>(messages_ - sent), MSG_DONTWAIT);
    if (got > 0) {
      sent += static_cast<std::size_t>(got);
      continue;
    }
    const int error = errno;
    const msghdr& header = tx_headers_[sent].msg_hdr;
    if (error == EINTR) continue;
    if (error == EAGAIN && wait_writable(fd())) continue;
    if (header.msg_iovlen > 1 && error != EAGAIN && error != ENOBUFS) {
      // The kernel, or the interface's MTU, does not take this train.
      if (++gso_refusals_ >= kGsoPatience) gso_ = false;
      send_singly(header);
    } else {
      count_failure(error, header.msg_iovlen);
    }
    ++sent;
  }
  messages_ = vectors_used_ = 0;
}

void UdpPort::send_singly(const msghdr& train) {
  for (std::size_t i = 0; i < train.msg_iovlen; ++i) {
    msghdr header = train;
    header.msg_iov = train.msg_iov + i;
    header.msg_iovlen = 1;
    // The segment size was added last; the source address before it stays.
    header.msg_controllen -= CMSG_SPACE(sizeof(std::uint16_t));
    if (header.msg_controllen == 0) header.msg_control = nullptr;
    stats_.calls_out.add();
    while (sendmsg(fd(), &header, MSG_DONTWAIT) < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN && wait_writable(fd())) continue;
      count_failure(errno, 1);
      break;
    }
  }
}

void UdpPort::count_failure(int error, std::size_t frames) {
  const bool full = error == EAGAIN || error == ENOBUFS;
  (full ? stats_.drop_out_full : stats_.drop_out_failed).add(frames);
}

}  // namespace wiresum::softswitch::ports
