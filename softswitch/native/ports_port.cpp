#include "ports_port.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <system_error>

#include "ports_batch.hpp"

namespace wiresum::softswitch::ports {

std::vector<std::pair<std::string, std::uint64_t>> PortStats::list() const {
  return {{"frames_in", frames_in.get()},
          {"bytes_in", bytes_in.get()},
          {"frames_out", frames_out.get()},
          {"bytes_out", bytes_out.get()},
          {"calls_in", calls_in.get()},
          {"calls_out", calls_out.get()},
          {"drop_in_kernel", drop_in_kernel.get()},
          {"drop_in_lost", drop_in_lost.get()},
          {"drop_in_too_long", drop_in_too_long.get()},
          {"drop_in_malformed", drop_in_malformed.get()},
          {"drop_out_lost", drop_out_lost.get()},
          {"drop_out_not_udp", drop_out_not_udp.get()},
          {"drop_out_full", drop_out_full.get()},
          {"drop_out_failed", drop_out_failed.get()}};
}

Loss::Loss(double probability, std::uint64_t seed)
    : threshold_(static_cast<std::uint64_t>(std::ldexp(probability, 63))), state_(seed) {}

// SplitMix64 (Steele, Lea, Flood 2014).
std::uint64_t Loss::next() {
  std::uint64_t z = state_ += 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return (z ^ (z >> 31)) >> 1;
}

Waiting Port::assembled(const Waiting& frame) {
  assembled_.push_back(
      std::make_unique_for_overwrite<std::uint8_t[]>(TxMemory::kHeadroom + frame.length()));
  std::uint8_t* whole = assembled_.back().get() + TxMemory::kHeadroom;
  std::memcpy(whole, frame.head, frame.head_bytes);
  if (frame.tail_bytes > 0) std::memcpy(whole + frame.head_bytes, frame.tail, frame.tail_bytes);
  return {.head = whole,
          .head_bytes = static_cast<std::uint32_t>(frame.length()),
          .offload = frame.offload};
}

int send_singly(int fd, const msghdr& header, PortStats& stats) {
  stats.calls_out.add();
  while (sendmsg(fd, &header, MSG_DONTWAIT) < 0) {
    if (errno != EINTR && !(errno == EAGAIN && wait_writable(fd))) return errno;
  }
  return 0;
}

void count_refused(PortStats& stats, int error, std::size_t frames) {
  // ENOBUFS: the interface's queue is full. A switch drops then; waiting would stop all ports.
  const bool full = error == EAGAIN || error == ENOBUFS;
  (full ? stats.drop_out_full : stats.drop_out_failed).add(frames);
}

Fd::~Fd() {
  if (fd_ >= 0) ::close(fd_);
}

Fd& Fd::operator=(Fd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

void enlarge_buffers(int fd, int bytes) {
  for (auto [force, plain] : {std::pair{SO_RCVBUFFORCE, SO_RCVBUF}, {SO_SNDBUFFORCE, SO_SNDBUF}}) {
    // With CAP_NET_ADMIN the system's limit does not hold; without, it silently caps.
    if (setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof bytes) != 0) {
      setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes);
    }
  }
}

void throw_errno(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

bool wait_writable(int fd) {
  pollfd wait{fd, POLLOUT, 0};
  return ::poll(&wait, 1, 5) == 1 && (wait.revents & POLLOUT) != 0;
}

}  // namespace wiresum::softswitch::ports
