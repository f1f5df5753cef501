#include "ports_port.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <system_error>

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

TxQueue::TxQueue()
    : buffer_(std::make_unique_for_overwrite<std::uint8_t[]>(kBytes)),
      frames_(std::make_unique<Waiting[]>(kFrames)) {}

std::uint8_t* TxQueue::add(std::size_t length, const Offload& offload) {
  const std::size_t offset = used_ + kHeadroom;
  if (count_ == kFrames || offset + length > kBytes) return nullptr;
  frames_[count_++] = {static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(length),
                       offload};
  used_ = (offset + length + kAlign - 1) / kAlign * kAlign;
  return buffer_.get() + offset;
}

std::uint8_t* Port::room(std::size_t length, const Offload& offload) {
  std::uint8_t* at = queue_.add(length, offload);
  if (at != nullptr) return at;
  flush();
  return queue_.add(length, offload);
}

void Port::flush() {
  if (queue_.empty()) return;
  transmit();
  queue_.clear();
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
