#include "transports/udp.hpp"

#include <linux/errqueue.h>
#include <netinet/udp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace wiresum {
namespace {

constexpr std::size_t kMaxUdpPayload = 65507;
constexpr std::size_t kMaxSegments = 64;  // UDP_MAX_SEGMENTS of every kernel that has UDP_SEGMENT
constexpr std::size_t kSendMessages = 32;
constexpr std::size_t kSendDatagrams = 512;  // in one call
constexpr int kSocketBuffer = 8 << 20;

void enlarge(int fd, int forced, int plain) {
  // The forced one passes the system's limit but needs CAP_NET_ADMIN.
  if (setsockopt(fd, SOL_SOCKET, forced, &kSocketBuffer, sizeof(int)) != 0) {
    setsockopt(fd, SOL_SOCKET, plain, &kSocketBuffer, sizeof(int));
  }
}

}  // namespace

UdpTransport::UdpTransport(int fd, const sockaddr_in& peer, std::size_t datagram_bytes,
                           const UdpOptions& options, Stats& stats)
    : Transport(datagram_bytes, stats), fd_(fd), peer_(peer), gso_(options.gso) {
  enlarge(fd_, SO_RCVBUFFORCE, SO_RCVBUF);
  enlarge(fd_, SO_SNDBUFFORCE, SO_SNDBUF);
  const int on = 1;
  setsockopt(fd_, IPPROTO_IP, IP_RECVERR, &on, sizeof(on));  // hear of ICMP port unreachable
  if (options.gro) gro_ = setsockopt(fd_, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) == 0;
  if (gso_) {
    int none = 0;
    socklen_t length = sizeof(none);
    gso_ = getsockopt(fd_, IPPROTO_UDP, UDP_SEGMENT, &none, &length) == 0;
  }
  stats_.gso.set(gso_);
  stats_.gro.set(gro_);

  // With UDP_GRO the kernel hands over a whole train at once. One byte more than a datagram shows
  // which ones are too long.
  const std::size_t messages = gro_ ? 16 : 64;
  receive_bytes_ = gro_ ? 65536 : datagram_bytes_ + 1;
  receive_buffer_ = std::make_unique<std::uint8_t[]>(messages * receive_bytes_);
  received_.resize(messages);
  receive_iov_.resize(messages);
  receive_control_.resize(messages);
  sources_.resize(messages);
  for (std::size_t i = 0; i < messages; ++i) {
    receive_iov_[i] = {receive_buffer_.get() + i * receive_bytes_, receive_bytes_};
  }
  sending_.resize(kSendMessages);
  datagrams_in_.resize(kSendMessages);
  send_iov_.resize(kSendDatagrams);
  send_control_.resize(kSendMessages);
}

UdpTransport::~UdpTransport() { close(fd_); }

void UdpTransport::path_failed(int error) {
  last_error_ = error;
  (error == ECONNREFUSED ? stats_.refused : stats_.send_errors).add();
}

// Lays datagrams out as messages, each a train of equally long ones where trains are taken; returns
// the messages made.
std::size_t UdpTransport::prepare(std::span<const Datagram> datagrams) {
  std::size_t messages = 0;
  std::size_t vectors = 0;
  for (std::size_t at = 0; at < datagrams.size() && messages < kSendMessages; ++messages) {
    const std::size_t bytes = datagrams[at].bytes;
    const std::size_t most =
        gso_ ? std::clamp<std::size_t>(kMaxUdpPayload / bytes, 1, kMaxSegments) : 1;
    std::size_t n = 1;
    while (n < most && at + n < datagrams.size() && datagrams[at + n].bytes == bytes) ++n;
    msghdr& header = sending_[messages].msg_hdr;
    header = {};
    header.msg_name = &peer_;
    header.msg_namelen = sizeof(peer_);
    header.msg_iov = &send_iov_[vectors];
    for (std::size_t i = 0; i < n; ++i) {
      iovec* last = header.msg_iovlen == 0 ? nullptr : &send_iov_[vectors - 1];
      // Chunks next to each other in memory are one piece of the train.
      std::uint8_t* const data = datagrams[at + i].data;
      if (last != nullptr && static_cast<std::uint8_t*>(last->iov_base) + last->iov_len == data) {
        last->iov_len += bytes;
      } else {
        send_iov_[vectors++] = {data, bytes};
        ++header.msg_iovlen;
      }
    }
    if (n > 1) {
      header.msg_control = send_control_[messages].bytes;
      header.msg_controllen = CMSG_SPACE(sizeof(std::uint16_t));
      cmsghdr* control = CMSG_FIRSTHDR(&header);
      control->cmsg_level = IPPROTO_UDP;
      control->cmsg_type = UDP_SEGMENT;
      control->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
      const auto segment = static_cast<std::uint16_t>(bytes);
      std::memcpy(CMSG_DATA(control), &segment, sizeof(segment));
    }
    datagrams_in_[messages] = n;
    at += n;
  }
  return messages;
}

std::size_t UdpTransport::send(std::span<const Datagram> datagrams) {
  std::size_t done = 0;
  while (done < datagrams.size()) {
    const auto part = datagrams.subspan(done, std::min(datagrams.size() - done, kSendDatagrams));
    const std::size_t messages = prepare(part);
    std::size_t first = 0;
    bool retried = false;
    while (first < messages) {
      const int sent = sendmmsg(fd_, &sending_[first], static_cast<unsigned>(messages - first),
                                MSG_DONTWAIT | MSG_NOSIGNAL);
      stats_.send_calls.add();
      if (sent > 0) {
        for (int i = 0; i < sent; ++i) {
          count_sent(datagrams_in_[first], datagrams_in_[first] * datagrams[done].bytes);
          done += datagrams_in_[first++];
        }
        retried = false;
        continue;
      }
      const int error = errno;
      if (error == EINTR) continue;
      if (error == EAGAIN || error == EWOULDBLOCK) {
        wants_write_ = true;
        return done;
      }
      if (gso_ && datagrams_in_[first] > 1 &&
          (error == EIO || error == EINVAL || error == EMSGSIZE || error == EOPNOTSUPP)) {
        // The path or the device has no segmentation after all: one datagram per message.
        gso_ = false;
        stats_.gso.set(0);
        break;
      }
      // Any other error is about the path, often about an earlier datagram (ECONNREFUSED): try once
      // more, then count these as lost; retransmission and the timeouts handle it.
      path_failed(error);
      if (!retried) {
        retried = true;
        continue;
      }
      retried = false;
      done += datagrams_in_[first++];
    }
  }
  return done;
}

int UdpTransport::receive_batch() {
  for (std::size_t i = 0; i < received_.size(); ++i) {
    msghdr& header = received_[i].msg_hdr;
    header = {};
    header.msg_name = &sources_[i];
    header.msg_namelen = sizeof(sockaddr_in);
    header.msg_iov = &receive_iov_[i];
    header.msg_iovlen = 1;
    header.msg_control = gro_ ? receive_control_[i].bytes : nullptr;
    header.msg_controllen = gro_ ? sizeof(Control) : 0;
  }
  const int got = recvmmsg(fd_, received_.data(), static_cast<unsigned>(received_.size()),
                           MSG_DONTWAIT, nullptr);
  stats_.receive_calls.add();
  more_ = got == static_cast<int>(received_.size());
  if (got >= 0) return got;
  const int error = errno;
  if (error != EAGAIN && error != EWOULDBLOCK && error != EINTR) path_failed(error);
  return 0;
}

UdpTransport::Batch UdpTransport::batch_at(int index) {
  const mmsghdr& message = received_[static_cast<std::size_t>(index)];
  const sockaddr_in& source = sources_[static_cast<std::size_t>(index)];
  Batch batch;
  batch.data = static_cast<const std::uint8_t*>(message.msg_hdr.msg_iov->iov_base);
  batch.bytes = message.msg_len;
  batch.segment = std::max<std::size_t>(batch.bytes, 1);
  if (gro_) {
    for (cmsghdr* control = CMSG_FIRSTHDR(&message.msg_hdr); control != nullptr;
         control = CMSG_NXTHDR(const_cast<msghdr*>(&message.msg_hdr), control)) {
      if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
        int segment = 0;
        std::memcpy(&segment, CMSG_DATA(control), sizeof(segment));
        if (segment > 0) batch.segment = static_cast<std::size_t>(segment);
      }
    }
  }
  const std::size_t datagrams =
      std::max<std::size_t>(1, (batch.bytes + batch.segment - 1) / batch.segment);
  count_received(datagrams, batch.bytes);
  batch.foreign = source.sin_family != AF_INET || source.sin_addr.s_addr != peer_.sin_addr.s_addr ||
                  source.sin_port != peer_.sin_port;
  if (batch.foreign) {
    stats_.drops_foreign.add(datagrams);
  } else if (batch.bytes == 0) {
    stats_.drops_length.add();
  }
  return batch;
}

bool UdpTransport::about_to_sleep(pollfd& source) {
  source = {fd_, static_cast<short>(wants_write_ ? POLLIN | POLLOUT : POLLIN), 0};
  return true;
}

void UdpTransport::awake(const pollfd& source) {
  if ((source.revents & POLLOUT) != 0) wants_write_ = false;
  if ((source.revents & POLLERR) != 0) {
    drain_errors();
    wants_write_ = false;
  }
}

void UdpTransport::drain_errors() {
  for (;;) {
    Control control;
    std::uint8_t data[64];
    iovec vector{data, sizeof(data)};
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    header.msg_control = control.bytes;
    header.msg_controllen = sizeof(control);
    if (recvmsg(fd_, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) return;
    for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr;
         part = CMSG_NXTHDR(&header, part)) {
      if (part->cmsg_level != IPPROTO_IP || part->cmsg_type != IP_RECVERR) continue;
      sock_extended_err error;
      std::memcpy(&error, CMSG_DATA(part), sizeof(error));
      if (error.ee_errno != 0) path_failed(static_cast<int>(error.ee_errno));
    }
  }
}

}  // namespace wiresum
