// What every kind of port has in common: statistics, deliberate loss, and frames that wait for the
// end of the batch.
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

// One frame waiting to be sent, in two parts: the second may belong to other frames as well.
struct Waiting {
  std::uint8_t* head = nullptr;  // in front of it: TxMemory::kHeadroom bytes of its own
  const std::uint8_t* tail = nullptr;
  std::uint32_t head_bytes = 0;
  std::uint32_t tail_bytes = 0;
  Offload offload{};

  std::size_t length() const { return std::size_t{head_bytes} + tail_bytes; }
};

// Where the frames of all ports lie until the end of the batch: one block, made at the start.
class TxMemory {
 public:
  TxMemory() : buffer_(std::make_unique_for_overwrite<std::uint8_t[]>(kBytes)) {}

  // Room for a frame, or nullptr: send what is here and clear() first. Any frame that a program
  // makes fits when there is no other.
  std::uint8_t* add(std::size_t length) {
    const std::size_t at = used_ + kHeadroom;
    if (at + length > kBytes) return nullptr;
    used_ = (at + length + kAlign - 1) / kAlign * kAlign;
    return buffer_.get() + at;
  }
  // The bytes stay until add() gives them away.
  void clear() { used_ = 0; }

  // In front of every frame, for what a port puts there (a packet socket's offload header).
  static constexpr std::size_t kHeadroom = 64;

 private:
  static constexpr std::size_t kBytes = std::size_t{1} << 20;
  static constexpr std::size_t kAlign = 64;

  std::unique_ptr<std::uint8_t[]> buffer_;
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
  Port(std::uint16_t number, Loss in, Loss out) : number_(number), loss_in_(in), loss_out_(out) {
    waiting_.reserve(kMaxWaiting);
  }
  virtual ~Port() = default;
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  std::uint16_t number() const { return number_; }
  virtual int fd() const = 0;
  virtual std::string address() const = 0;
  const PortStats& stats() const { return stats_; }

  // Reads one batch from the kernel. False if there was nothing.
  virtual bool receive() = 0;

  // A port whose frames come through memory that it must read, without a system call: its receive()
  // is called in every turn, attend() when fd() is readable, and rest() before the loop sleeps.
  // rest() is false if there are frames; otherwise a sender makes fd() readable later.
  virtual bool in_memory() const { return false; }
  virtual bool rest() { return true; }
  virtual void attend() {}

  // Hands the frames of the batch to `sink`.
  virtual void deliver(FrameSink& sink) = 0;

  // Queues a frame that leaves here. Its memory must stay until flush(); false: flush() first.
  bool queue(const Waiting& frame) {
    if (waiting_.size() == kMaxWaiting) return false;
    waiting_.push_back(frame);
    return true;
  }
  void flush() {
    if (waiting_.empty()) return;
    transmit(waiting_);
    waiting_.clear();
    assembled_.clear();
  }

  static constexpr std::size_t kMaxWaiting = 2048;

 protected:
  virtual void transmit(std::span<const Waiting> frames) = 0;
  // The same frame in one part, until flush() ends. For the few frames that a port must see whole.
  Waiting assembled(const Waiting& frame);

  std::uint16_t number_;
  Loss loss_in_, loss_out_;
  PortStats stats_;

 private:
  std::vector<Waiting> waiting_;
  std::vector<std::unique_ptr<std::uint8_t[]>> assembled_;
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
