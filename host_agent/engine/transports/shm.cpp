#include "transports/shm.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <utility>

#include "errors.hpp"
#include "lines.hpp"

namespace wiresum {
namespace {

constexpr std::uint32_t kReceiveRecords = 64;  // in one batch
constexpr std::chrono::milliseconds kCallEvery{20};

std::string reason(int error) {
  return error == EAGAIN || error == EWOULDBLOCK ? "no answer in time" : std::strerror(error);
}

// A descriptor until it is given away.
struct Held {
  int fd = -1;
  ~Held() {
    if (fd >= 0) ::close(fd);
  }
};

sockaddr_un address_of(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(name.sun_path)) {
    refuse(lines::kBadPath.of(path));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  return name;
}

void limit_waits(int fd, double seconds) {
  seconds = std::min(seconds, 1e6);  // nobody waits longer for a socket of this host
  timeval limit{};
  limit.tv_sec = static_cast<time_t>(seconds);
  limit.tv_usec =
      std::max<suseconds_t>(1, static_cast<suseconds_t>((seconds - std::floor(seconds)) * 1e6));
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));  // for connect() too
}

void check(const shm::Welcome& welcome, ssize_t bytes, const std::string& who) {
  if (bytes == 0) refuse(lines::kNoRoom.of(who));
  if (bytes != sizeof(welcome) || welcome.magic != shm::kMagic ||
      welcome.answer == shm::Answer::kOtherVersion) {
    refuse(lines::kOtherVersion.of(who));
  }
  if (welcome.answer == shm::Answer::kOtherAddress) refuse(lines::kAddressLost.of(who));
  if (welcome.answer == shm::Answer::kNoMemory) refuse(lines::kNoMemory.of(who));
  if (welcome.answer != shm::Answer::kWelcome ||
      !shm::valid(welcome.payload_bytes, welcome.records) || welcome.udp_port == 0 ||
      welcome.udp_port > 65535) {
    refuse(lines::kRingsRefused.of(who));
  }
}

}  // namespace

int shm_connect(const std::string& path, std::uint32_t payload_bytes, std::uint32_t records,
                double timeout_s, ShmAddress& address) {
  const std::string who = "the switch at " + path;
  const sockaddr_un name = address_of(path);
  if (!(timeout_s > 0)) refuse(lines::kBadLimit.of());
  Held socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
  if (socket.fd < 0) refuse(lines::kNoSocket.of(std::strerror(errno)));
  limit_waits(socket.fd, timeout_s);
  if (connect(socket.fd, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
    refuse(lines::kNotReached.of(who, reason(errno)));
  }
  const shm::Hello hello{.payload_bytes = payload_bytes, .records = records};
  // The switch may have hung up already: that is reported below.
  const auto hung_up = [] { return errno == EPIPE || errno == ECONNRESET; };
  if (::send(socket.fd, &hello, sizeof(hello), MSG_NOSIGNAL) < 0 && !hung_up()) {
    refuse(lines::kNotReached.of(who, reason(errno)));
  }
  // Only peeked at: ShmTransport takes the descriptors that come with it.
  shm::Welcome welcome;
  ssize_t got;
  do {
    got = recv(socket.fd, &welcome, sizeof(welcome), MSG_PEEK);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && hung_up()) got = 0;
  if (got < 0) refuse(lines::kNotReached.of(who, reason(errno)));
  check(welcome, got, who);
  address = {welcome.ip, static_cast<std::uint16_t>(welcome.udp_port), welcome.switch_ip};
  return std::exchange(socket.fd, -1);
}

ShmTransport::ShmTransport(int fd, std::string path, std::size_t datagram_bytes, Stats& stats)
    : Transport(datagram_bytes, stats), process_(getpid()), path_(std::move(path)), fd_(fd) {
  try {
    if (!path_.empty()) address_of(path_);
    if (!attach()) refuse(lines::kNothingShared.of("it has not answered"));
  } catch (...) {
    close_all();
    throw;
  }
}

// Takes Welcome and the memory that comes with it. False: it is not there yet. Throws EngineError.
bool ShmTransport::attach() {
  const std::string who = "the switch";
  shm::Welcome welcome;
  iovec vector{&welcome, sizeof(welcome)};
  alignas(cmsghdr) std::array<unsigned char, CMSG_SPACE(shm::kDescriptors * sizeof(int))> control;
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = recvmsg(fd_, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (got < 0) refuse(lines::kNothingShared.of(std::strerror(errno)));
  Held memory;
  const cmsghdr* rights = CMSG_FIRSTHDR(&message);
  if (rights != nullptr && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS &&
      rights->cmsg_len == CMSG_LEN(shm::kDescriptors * sizeof(int))) {
    std::array<int, shm::kDescriptors> descriptors;
    std::memcpy(descriptors.data(), CMSG_DATA(rights), sizeof(descriptors));
    memory.fd = descriptors[shm::kMemory];
    wake_ = descriptors[shm::kWakeSwitch];
  }
  check(welcome, got, who);
  if (welcome.payload_bytes < datagram_bytes_) {
    refuse(lines::kRingsTooShort.of(who, welcome.payload_bytes, datagram_bytes_));
  }
  // Its size must fit the rings, and must not change: reading beyond it would end this process.
  const std::size_t bytes = shm::memory_bytes(welcome.payload_bytes, welcome.records);
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;
  struct stat about{};
  if (memory.fd < 0 || fstat(memory.fd, &about) != 0 ||
      about.st_size != static_cast<off_t>(bytes) ||
      (fcntl(memory.fd, F_GET_SEALS) & kSeals) != kSeals) {
    refuse(lines::kNotTrusted.of(who));
  }
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory.fd, 0);
  if (at == MAP_FAILED) refuse(lines::kNotMapped.of(std::strerror(errno)));
  memory_ = at;
  memory_bytes_ = bytes;
  control_ = static_cast<shm::Control*>(at);
  std::uint8_t* records = static_cast<std::uint8_t*>(at) + sizeof(shm::Control);
  out_ = shm::Writer(&control_->to_switch, records, welcome.payload_bytes, welcome.records);
  in_ = shm::Reader(&control_->to_worker,
                    records + shm::ring_bytes(welcome.payload_bytes, welcome.records),
                    welcome.payload_bytes, welcome.records);
  again_ = {.payload_bytes = welcome.payload_bytes,
            .records = welcome.records,
            .ip = welcome.ip,
            .udp_port = welcome.udp_port,
            .ticket = welcome.ticket};
  state_ = State::kConnected;
  return true;
}

ShmTransport::~ShmTransport() { close_all(); }

void ShmTransport::close_all() {
  // A fork of this process may still hold the descriptor: only shutdown() ends the connection.
  if (fd_ >= 0 && getpid() == process_) shutdown(fd_, SHUT_RDWR);
  if (memory_ != nullptr) munmap(std::exchange(memory_, nullptr), memory_bytes_);
  if (wake_ >= 0) ::close(std::exchange(wake_, -1));
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  control_ = nullptr;
  received_ = 0;
  full_ = false;
}

// -- when the switch is gone

void ShmTransport::gone(int error) {
  close_all();
  last_error_ = error;
  stats_.refused.add();
  if (path_.empty()) return give_up("");
  state_ = State::kAlone;
}

void ShmTransport::give_up(std::string refusal) {
  close_all();
  state_ = State::kEnded;
  refusal_ = std::move(refusal);
}

// Tries to connect again. Datagrams that were on their way are lost, as on any network.
void ShmTransport::call() {
  if (state_ == State::kAlone) {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_call_) return;
    next_call_ = now + kCallEvery;
    if (dial()) state_ = State::kCalling;
  }
  if (state_ == State::kCalling) listen();
}

bool ShmTransport::dial() {
  fd_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const sockaddr_un name = address_of(path_);
  if (fd_ < 0 || connect(fd_, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0 ||
      ::send(fd_, &again_, sizeof(again_), MSG_NOSIGNAL) < 0) {
    last_error_ = errno;
    close_all();
    return false;
  }
  return true;
}

void ShmTransport::listen() {
  std::uint8_t byte;
  stats_.receive_calls.add();
  const ssize_t got = recv(fd_, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {  // it has no room yet, or has ended again
    last_error_ = got == 0 ? EPIPE : errno;
    close_all();
    state_ = State::kAlone;
    return;
  }
  try {
    attach();
  } catch (const EngineError& error) {
    give_up(error.what());
  }
}

// -- sending

std::size_t ShmTransport::send(std::span<const Datagram> datagrams) {
  if (state_ != State::kConnected) {
    call();
    if (state_ != State::kConnected) return datagrams.size();
  }
  std::size_t done = 0;
  std::size_t bytes = 0;
  for (; done < datagrams.size(); ++done) {
    std::uint8_t* room = out_.room();
    if (room == nullptr) break;
    std::memcpy(room, datagrams[done].data, datagrams[done].bytes);
    out_.push(static_cast<std::uint32_t>(datagrams[done].bytes));
    bytes += datagrams[done].bytes;
  }
  full_ = done < datagrams.size();
  count_sent(done, bytes);
  if (out_.publish()) {
    shm::full_fence();
    if (shm::wake_needed(control_->switch_sleeps, shm::kForRecords)) {
      stats_.send_calls.add();
      const std::uint64_t one = 1;
      [[maybe_unused]] const auto written = ::write(wake_, &one, sizeof(one));
    }
  }
  if (out_.broken()) gone(EPROTO);
  return done;
}

// -- receiving

int ShmTransport::receive_batch() {
  if (state_ != State::kConnected) {
    call();
    if (state_ != State::kConnected) {
      more_ = false;
      return 0;
    }
  }
  received_ = std::min(in_.available(), kReceiveRecords);
  more_ = received_ == kReceiveRecords;
  if (in_.broken()) gone(EPROTO);
  return static_cast<int>(received_);
}

Transport::Batch ShmTransport::batch_at(int index) {
  const auto ahead = static_cast<std::uint32_t>(index);
  const shm::View view = in_.at(ahead);
  if (ahead + 1 < received_) in_.prefetch(ahead + 1);
  count_received(1, view.bytes);
  if (view.bytes == 0) stats_.drops_length.add();
  return {view.payload, view.bytes, std::max<std::size_t>(view.bytes, 1), false};
}

void ShmTransport::batch_done() { in_.take(received_); }

// -- sleeping

bool ShmTransport::about_to_sleep(pollfd& source) {
  source = {fd_, POLLIN, 0};
  if (state_ != State::kConnected) return true;
  control_->worker_sleeps.store(full_ ? shm::kForRecordsOrRoom : shm::kForRecords,
                                std::memory_order_relaxed);
  shm::full_fence();
  if (in_.available() > 0 || (full_ && out_.has_room())) {
    control_->worker_sleeps.store(shm::kAwake, std::memory_order_relaxed);
    return false;
  }
  return true;
}

void ShmTransport::awake(const pollfd& source) {
  if (state_ != State::kConnected) return;
  control_->worker_sleeps.store(shm::kAwake, std::memory_order_relaxed);
  if ((source.revents & (POLLIN | POLLHUP | POLLERR)) == 0) return;
  std::array<std::uint8_t, 64> bytes;
  stats_.receive_calls.add();
  const ssize_t got = recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) gone(got == 0 ? EPIPE : errno);
}

}  // namespace wiresum
