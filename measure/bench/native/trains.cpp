#include "trains.hpp"

#include <netinet/udp.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace wiresum::bench {

void fail(const std::string& what) { throw BenchError(what + ": " + std::strerror(errno)); }

std::size_t train_length(std::size_t bytes) {
  return std::clamp<std::size_t>(kTrainBytes / bytes, 1, kMostSegments);
}

void prepare_socket(int fd) {
  constexpr int size = 8 << 20;
  // The forced ones pass the system's limit but need CAP_NET_ADMIN.
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) != 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
  }
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) != 0) {
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  }
  const int on = 1;
  if (setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) != 0) fail("UDP_GRO");
}

Receiver::Receiver() : buffer_(std::make_unique<std::uint8_t[]>(kMessages * kBytes)) {}

std::span<const Train> Receiver::receive(int fd) {
  for (std::size_t i = 0; i < kMessages; ++i) {
    vectors_[i] = {buffer_.get() + i * kBytes, kBytes};
    messages_[i].msg_hdr = {.msg_name = &sources_[i],
                            .msg_namelen = sizeof(sources_[i]),
                            .msg_iov = &vectors_[i],
                            .msg_iovlen = 1,
                            .msg_control = controls_[i].bytes,
                            .msg_controllen = sizeof(controls_[i].bytes),
                            .msg_flags = 0};
  }
  const int found = recvmmsg(fd, messages_, kMessages, MSG_DONTWAIT, nullptr);
  if (found < 0) {
    if (errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED) return {};
    fail("recvmmsg");
  }
  for (int i = 0; i < found; ++i) {
    const std::size_t length = messages_[i].msg_len;
    std::size_t segment = length;
    msghdr& header = messages_[i].msg_hdr;
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
      if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
        int said = 0;
        std::memcpy(&said, CMSG_DATA(c), sizeof(said));
        segment = static_cast<std::size_t>(said);
      }
    }
    trains_[i] = {{buffer_.get() + static_cast<std::size_t>(i) * kBytes, length},
                  std::max<std::size_t>(segment, 1),
                  sources_[i]};
  }
  return {trains_, static_cast<std::size_t>(found)};
}

bool send_train(int fd, const Train& train) {
  iovec vector{train.data.data(), train.data.size()};
  sockaddr_in to = train.from;
  union {
    cmsghdr align;
    std::uint8_t bytes[CMSG_SPACE(sizeof(std::uint16_t))];
  } control{};
  msghdr header{};
  header.msg_name = &to;
  header.msg_namelen = sizeof(to);
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  if (train.data.size() > train.segment) {
    header.msg_control = control.bytes;
    header.msg_controllen = sizeof(control.bytes);
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
    const auto segment = static_cast<std::uint16_t>(train.segment);
    std::memcpy(CMSG_DATA(c), &segment, sizeof(segment));
  }
  while (sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno == EAGAIN) return false;
    if (errno != EINTR && errno != ECONNREFUSED) fail("sendmsg of a train");
  }
  return true;
}

bool wait_for(std::span<const int> fds, bool writable, int timeout_ms) {
  std::vector<pollfd> polled;
  for (const int fd : fds) {
    polled.push_back({fd, static_cast<short>(writable ? POLLIN | POLLOUT : POLLIN), 0});
  }
  return poll(polled.data(), polled.size(), timeout_ms) != 0;
}

}  // namespace wiresum::bench
