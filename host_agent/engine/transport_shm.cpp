#include "transport_shm.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "errors.hpp"

namespace wiresum {
namespace {

constexpr std::uint32_t kReceiveRecords = 64;  // in one batch

[[noreturn]] void refuse(const std::string& line) { throw EngineError(ErrorKind::Engine, line); }

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

void limit_waits(int fd, double seconds) {
  timeval limit{};
  limit.tv_sec = static_cast<time_t>(seconds);
  limit.tv_usec =
      std::max<suseconds_t>(1, static_cast<suseconds_t>((seconds - std::floor(seconds)) * 1e6));
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));  // for connect() too
}

void check(const shm::Welcome& welcome, ssize_t bytes, const std::string& who) {
  if (bytes == 0) refuse(who + " has hung up: it has no room for another worker");
  if (bytes != sizeof(welcome) || welcome.magic != shm::kMagic ||
      welcome.answer == shm::Answer::kOtherVersion) {
    refuse(who + " speaks another version: install the same wiresum on both sides");
  }
  if (welcome.answer == shm::Answer::kNoMemory) refuse(who + " has no memory for this worker");
  if (welcome.answer != shm::Answer::kWelcome ||
      !shm::valid(welcome.payload_bytes, welcome.records) || welcome.udp_port == 0 ||
      welcome.udp_port > 65535) {
    refuse(who + " refuses rings of this size");
  }
}

}  // namespace

int shm_connect(const std::string& path, std::uint32_t payload_bytes, std::uint32_t records,
                double timeout_s, ShmAddress& address) {
  const std::string who = "the switch at " + path;
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(name.sun_path)) {
    refuse("'" + path + "' cannot be the path of a socket");
  }
  if (!(timeout_s > 0) || timeout_s > 1e6) refuse("a time limit is not between 0 and 1000000 s");
  std::memcpy(name.sun_path, path.data(), path.size());
  Held socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
  if (socket.fd < 0) refuse(std::string("no socket: ") + std::strerror(errno));
  limit_waits(socket.fd, timeout_s);
  if (connect(socket.fd, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
    refuse(who + " cannot be reached: " + reason(errno));
  }
  const shm::Hello hello{.payload_bytes = payload_bytes, .records = records};
  if (::send(socket.fd, &hello, sizeof(hello), MSG_NOSIGNAL) < 0) {
    refuse(who + " cannot be reached: " + reason(errno));
  }
  // Looked at only: the descriptors that come with it are ShmTransport's to take.
  shm::Welcome welcome;
  ssize_t got;
  do {
    got = recv(socket.fd, &welcome, sizeof(welcome), MSG_PEEK);
  } while (got < 0 && errno == EINTR);
  if (got < 0) refuse(who + " cannot be reached: " + reason(errno));
  check(welcome, got, who);
  address = {welcome.ip, static_cast<std::uint16_t>(welcome.udp_port), welcome.switch_ip};
  return std::exchange(socket.fd, -1);
}

ShmTransport::ShmTransport(int fd, std::size_t datagram_bytes, Stats& stats)
    : Transport(datagram_bytes, stats), process_(getpid()), fd_(fd) {
  try {
    attach();
  } catch (...) {
    close_all();
    throw;
  }
}

void ShmTransport::attach() {
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
  if (got < 0) refuse(std::string("no shared memory from the switch: ") + std::strerror(errno));
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
    refuse(who + "'s rings take " + std::to_string(welcome.payload_bytes) +
           " bytes, a chunk of this lease has " + std::to_string(datagram_bytes_));
  }
  // Its size must be what the rings need, and stay so: reading beyond would end this process.
  const std::size_t bytes = shm::memory_bytes(welcome.payload_bytes, welcome.records);
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;
  struct stat about{};
  if (memory.fd < 0 || fstat(memory.fd, &about) != 0 ||
      about.st_size != static_cast<off_t>(bytes) ||
      (fcntl(memory.fd, F_GET_SEALS) & kSeals) != kSeals) {
    refuse(who + " has handed out memory that cannot be trusted");
  }
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory.fd, 0);
  if (at == MAP_FAILED) refuse(std::string("no shared memory: ") + std::strerror(errno));
  memory_ = at;
  memory_bytes_ = bytes;
  control_ = static_cast<shm::Control*>(at);
  std::uint8_t* records = static_cast<std::uint8_t*>(at) + sizeof(shm::Control);
  out_ = shm::Writer(&control_->to_switch, records, welcome.payload_bytes, welcome.records);
  in_ = shm::Reader(&control_->to_worker,
                    records + shm::ring_bytes(welcome.payload_bytes, welcome.records),
                    welcome.payload_bytes, welcome.records);
}

ShmTransport::~ShmTransport() { close_all(); }

void ShmTransport::close_all() {
  // Descriptors may live on in a fork of this process: what ends the connection is this.
  if (getpid() == process_) shutdown(fd_, SHUT_RDWR);
  if (memory_ != nullptr) munmap(memory_, memory_bytes_);
  if (wake_ >= 0) ::close(wake_);
  ::close(fd_);
}

void ShmTransport::gone(int error) {
  hung_up_ = true;
  last_error_ = error;
  stats_.refused.add();
}

// -- sending

std::size_t ShmTransport::send(std::span<std::uint8_t* const> datagrams) {
  if (hung_up_) return datagrams.size();
  std::size_t done = 0;
  for (; done < datagrams.size(); ++done) {
    std::uint8_t* room = out_.room();
    if (room == nullptr) break;
    std::memcpy(room, datagrams[done], datagram_bytes_);
    out_.push(static_cast<std::uint32_t>(datagram_bytes_));
  }
  full_ = done < datagrams.size();
  count_sent(done);
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
  received_ = std::min(in_.available(), kReceiveRecords);
  if (in_.broken() && !hung_up_) gone(EPROTO);
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
  source = {hung_up_ ? -1 : fd_, POLLIN, 0};
  if (hung_up_) return true;
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
  if (hung_up_) return;
  control_->worker_sleeps.store(shm::kAwake, std::memory_order_relaxed);
  if ((source.revents & (POLLIN | POLLHUP | POLLERR)) == 0) return;
  std::array<std::uint8_t, 64> bytes;
  stats_.receive_calls.add();
  const ssize_t got = recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) gone(got == 0 ? EPIPE : errno);
}

}  // namespace wiresum
