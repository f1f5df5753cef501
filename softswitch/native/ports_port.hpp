// What every kind of port has in common: statistics, deliberate loss, and a queue of frames that
// wait for the end of the batch.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace wiresum::softswitch::ports {

// A count that one thread raises and others read.
class Count {
 public:
  void add(std::uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void set(std::uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// Why a frame did not get through a port, and how many did.
struct PortStats {
  Count frames_in, bytes_in, frames_out, bytes_out;  // bytes of frames, Ethernet header included
  Count calls_in, calls_out;                         // system calls
  Count drop_in_kernel;                              // the socket's buffer was full
  Count drop_in_lost;                                // the loss option
  Count drop_in_too_long;   // longer than any program takes (kMaxFrameBytes)
  Count drop_in_malformed;  // no whole frame
  Count drop_out_lost;      // the loss option
  Count drop_out_not_udp;   // a udp port carries IPv4/UDP only
  Count drop_out_full;      // the kernel took no more
  Count drop_out_failed;    // the kernel refused it (no route, too long, interface down)

  std::vector<std::pair<std::string, std::uint64_t>> list() const;
};

// Loses each frame with a probability; the same seed loses the same frames.
class Loss {
 public:
  Loss() = default;
  Loss(double probability, std::uint64_t seed);

  bool active() const { return threshold_ != 0; }
  bool lose() { return threshold_ != 0 && next() < threshold_; }

 private:
  std::uint64_t next();  // 63 random bits

  std::uint64_t threshold_ = 0;
  std::uint64_t state_ = 0;
};

// What a frame brought along that is not in its bytes: the offloads of a packet socket (the
// kernel's struct virtio_net_hdr, whose header C++ cannot read). See RawPort.
struct Offload {
  static constexpr std::uint8_t kNeedsChecksum = 1;  // flags
  static constexpr std::uint8_t kNone = 0;           // kind
  static constexpr std::uint8_t kUdpTrain = 5;

  std::uint8_t flags = 0;
  std::uint8_t kind = kNone;
  std::uint16_t header_bytes = 0;
  std::uint16_t segment_bytes = 0;
  std::uint16_t checksum_start = 0;
  std::uint16_t checksum_offset = 0;
};
static_assert(sizeof(Offload) == 10);

// One frame waiting to be sent.
struct Waiting {
  std::uint32_t offset = 0;
  std::uint32_t length = 0;
  Offload offload{};
};

// Frames of one port that wait for the end of the batch, in one block of memory made at the start.
class TxQueue {
 public:
  TxQueue();

  // Room for a frame, or nullptr: flush() first. Frames of any length up to kMaxFrameBytes fit
  // into an empty queue.
  std::uint8_t* add(std::size_t length, const Offload& offload);
  std::span<const Waiting> waiting() const { return {frames_.get(), count_}; }
  std::span<std::uint8_t> bytes(const Waiting& frame) {
    return {buffer_.get() + frame.offset, frame.length};
  }
  bool empty() const { return count_ == 0; }
  void clear() { count_ = used_ = 0; }

  static constexpr std::size_t kFrames = 2048;

 private:
  static constexpr std::size_t kBytes = std::size_t{1} << 20;
  static constexpr std::size_t kAlign = 64;
  // In front of every frame, for what a port puts there (a packet socket's offload header).
  static constexpr std::size_t kHeadroom = 64;

  std::unique_ptr<std::uint8_t[]> buffer_;
  std::unique_ptr<Waiting[]> frames_;
  std::size_t count_ = 0;
  std::size_t used_ = 0;
};

// Takes the frames of one received batch.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  virtual void frame(std::span<const std::uint8_t> frame, const Offload& offload) = 0;
};

// A port. All but stats() is for the loop's thread.
class Port {
 public:
  Port(std::uint16_t number, Loss in, Loss out) : number_(number), loss_in_(in), loss_out_(out) {}
  virtual ~Port() = default;
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  std::uint16_t number() const { return number_; }
  virtual int fd() const = 0;
  virtual std::string address() const = 0;
  const PortStats& stats() const { return stats_; }

  // Reads one batch from the kernel. False if there was nothing.
  virtual bool receive() = 0;
  // Hands the frames of the batch to `sink`.
  virtual void deliver(FrameSink& sink) = 0;

  // Room for a frame that leaves here; it is sent by flush() at the latest.
  std::uint8_t* room(std::size_t length, const Offload& offload);
  void flush();

 protected:
  // Sends all that waits in `queue_`.
  virtual void transmit() = 0;

  std::uint16_t number_;
  Loss loss_in_, loss_out_;
  PortStats stats_;
  TxQueue queue_;
};

// A file descriptor that closes itself.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd();
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept;
  int get() const { return fd_; }

 private:
  int fd_;
};

// Asks for socket buffers of `bytes`, as far as the kernel lets us.
void enlarge_buffers(int fd, int bytes);
// Throws std::system_error with errno.
[[noreturn]] void throw_errno(const char* what);

// Waits until the kernel takes more from us. False: it did not within a few milliseconds, and a
// switch that waits any longer loses what arrives meanwhile.
bool wait_writable(int fd);

}  // namespace wiresum::softswitch::ports
