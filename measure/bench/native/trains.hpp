// UDP datagrams of one size in trains: UDP_SEGMENT on the way out, UDP_GRO on the way in.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

namespace wiresum::bench {

struct BenchError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws BenchError with the reason that errno names.
[[noreturn]] void fail(const std::string& what);

inline constexpr std::size_t kTrainBytes = 65507;  // the most that one UDP send may hold
inline constexpr std::size_t kMostSegments = 64;   // UDP_MAX_SEGMENTS of older kernels

// Datagrams of `bytes` that one train holds.
std::size_t train_length(std::size_t bytes);

// Large buffers, UDP_GRO. Throws BenchError where the kernel has no UDP_GRO.
void prepare_socket(int fd);

struct Train {
  std::span<std::uint8_t> data;
  std::size_t segment;  // bytes of a datagram in it
  sockaddr_in from;
};

// Receives whole trains, up to 16 in one call.
class Receiver {
 public:
  Receiver();
  // The trains that are there, or none; valid until the next call.
  std::span<const Train> receive(int fd);

 private:
  static constexpr std::size_t kMessages = 16;
  static constexpr std::size_t kBytes = 65536;
  union Control {
    cmsghdr align;
    std::uint8_t bytes[CMSG_SPACE(sizeof(int))];
  };
  std::unique_ptr<std::uint8_t[]> buffer_;
  mmsghdr messages_[kMessages];
  iovec vectors_[kMessages];
  Control controls_[kMessages];
  sockaddr_in sources_[kMessages];
  Train trains_[kMessages];
};

// Sends one train; false if the socket's buffer is full.
bool send_train(int fd, const Train& train);

// Waits until one of the sockets is readable (or writable, if asked); false after `timeout_ms`.
bool wait_for(std::span<const int> fds, bool writable, int timeout_ms);

}  // namespace wiresum::bench
