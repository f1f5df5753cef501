// How workers connect to a shm port, get an address and the rings, and go again.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>

#include "ports_shm.hpp"

namespace wiresum::softswitch::ports {
namespace {

constexpr std::uint64_t kListener = ~std::uint64_t{0};
constexpr std::uint64_t kClock = kListener - 1;
constexpr std::uint32_t kFirstPort = 1024;
// A worker says Hello right after it has connected. One that does not would hold its place for
// ever.
constexpr std::int64_t kHelloLimitNs = 3'000'000'000;
constexpr int kBacklog = 128;

// What an event is about. The generation: a slot may have a new connection by now.
std::uint64_t token(std::uint32_t generation, std::uint32_t slot, bool is_socket) {
  return std::uint64_t{generation} << 32 | std::uint64_t{slot} << 1 | (is_socket ? 1 : 0);
}

std::int64_t now_ns() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    throw_errno("bind");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// Whether there is a socket that nobody listens on any more.
bool is_stale(const sockaddr_un& address) {
  struct stat about{};
  if (lstat(address.sun_path, &about) != 0 || !S_ISSOCK(about.st_mode)) return false;
  const Fd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return probe.get() >= 0 &&
         connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
         errno == ECONNREFUSED;
}

}  // namespace

ShmPort::Memory::~Memory() {
  if (at != nullptr) munmap(at, bytes);
}

ShmPort::ShmPort(std::uint16_t number, ShmOptions options, Loss in, Loss out)
    : Port(number, in, out),
      options_(std::move(options)),
      poll_(epoll_create1(EPOLL_CLOEXEC)),
      clock_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)),
      tickets_(options_.path + ".key"),
      generations_(static_cast<std::uint32_t>(random_bits())) {
  if (poll_.get() < 0 || clock_.get() < 0) throw_errno("epoll_create1");
  // The network's first two addresses, and its last one, are not given to workers.
  const std::size_t sources = options_.addresses > 3 ? options_.addresses - 3 : 0;
  slots_.resize(std::min(kMaxConnections, sources));
  base_ = static_cast<std::uint32_t>(random_bits() % (sources - slots_.size() + 1));
  active_.reserve(slots_.size());
  written_.reserve(slots_.size());
  open_socket();
}

ShmPort::~ShmPort() {
  struct stat about{};
  if (lstat(options_.path.c_str(), &about) == 0 && about.st_ino == inode_) {
    unlink(options_.path.c_str());
  }
}

void ShmPort::open_socket() {
  const sockaddr_un address = unix_address(options_.path);
  listener_ = Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (listener_.get() < 0) throw_errno("socket");
  // Linux takes the file's mode from here, less the umask: it is never too open.
  if (fchmod(listener_.get(), options_.mode) != 0) throw_errno("fchmod");
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  if (bind(listener_.get(), name, sizeof address) != 0) {
    if (errno != EADDRINUSE) throw_errno("bind");
    if (!is_stale(address)) {
      errno = EADDRINUSE;
      throw_errno("bind");
    }
    unlink(address.sun_path);
    if (bind(listener_.get(), name, sizeof address) != 0) throw_errno("bind");
  }
  struct stat about{};
  if (chmod(address.sun_path, options_.mode) != 0 || lstat(address.sun_path, &about) != 0 ||
      listen(listener_.get(), kBacklog) != 0) {
    const int error = errno;
    unlink(address.sun_path);
    errno = error;
    throw_errno("listen");
  }
  inode_ = about.st_ino;
  epoll_event event{EPOLLIN, {.u64 = kListener}};
  epoll_event clock{EPOLLIN, {.u64 = kClock}};
  if (epoll_ctl(poll_.get(), EPOLL_CTL_ADD, listener_.get(), &event) != 0 ||
      epoll_ctl(poll_.get(), EPOLL_CTL_ADD, clock_.get(), &clock) != 0) {
    throw_errno("epoll_ctl");
  }
}

// -- connections ---------------------------------------------------------------------------------

void ShmPort::attend() {
  std::array<epoll_event, 64> events;
  const int count = epoll_wait(poll_.get(), events.data(), events.size(), 0);
  stats_.calls_in.add();
  for (int i = 0; i < count; ++i) {
    const std::uint64_t about = events[static_cast<std::size_t>(i)].data.u64;
    if (about == kListener) {
      accept_workers();
      continue;
    }
    if (about == kClock) {
      expire_silent();
      continue;
    }
    Connection* connection = slots_[(about & 0xFFFFFFFF) >> 1].get();
    if (connection == nullptr || connection->generation != about >> 32) continue;
    // The eventfd has done its work by waking us.
    if ((about & 1) != 0) socket_event(*connection, events[static_cast<std::size_t>(i)].events);
  }
  sweep();
}

void ShmPort::accept_workers() {
  for (;;) {
    Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket.get() < 0) return;
    // One that no worker of a process before may still come back to, if there is any.
    std::size_t found = next_free(true);
    if (found == slots_.size()) found = next_free(false);
    if (found == slots_.size()) continue;  // no address is left: the worker sees a hang-up
    const auto slot = static_cast<std::uint32_t>(found);
    next_slot_ = slot + 1;
    auto connection = std::make_unique<Connection>();
    connection->socket = std::move(socket);
    connection->slot = slot;
    connection->generation = ++generations_;
    connection->accepted_ns = now_ns();
    // Another port each time: what the program knows of a worker that has gone does not fit the
    // next one that gets its address.
    connection->peer = {
        ip_of(slot), static_cast<std::uint16_t>(kFirstPort + generations_ % (65536 - kFirstPort))};
    watch(connection->socket.get(), EPOLLIN | EPOLLRDHUP, *connection, true);
    slots_[slot] = std::move(connection);
    if (!clock_runs_) set_clock(kHelloLimitNs);
  }
}

// The next slot in turn whose address is free; the number of slots: none.
std::size_t ShmPort::next_free(bool unexpected) const {
  for (std::size_t tried = 0; tried < slots_.size(); ++tried) {
    const std::size_t slot = (next_slot_ + tried) % slots_.size();
    const bool expected = tickets_.expected(ip_of(static_cast<std::uint32_t>(slot)));
    if (slots_[slot] == nullptr && !(unexpected && expected)) return slot;
  }
  return slots_.size();
}

void ShmPort::set_clock(std::int64_t ns) {
  itimerspec time{};
  time.it_value = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
  timerfd_settime(clock_.get(), 0, &time, nullptr);
  clock_runs_ = ns != 0;
}

// Closes connections that have said nothing for too long.
void ShmPort::expire_silent() {
  const std::int64_t now = now_ns();
  std::int64_t next = 0;
  for (const auto& connection : slots_) {
    if (connection == nullptr || connection->control != nullptr || connection->doomed) continue;
    const std::int64_t left = connection->accepted_ns + kHelloLimitNs - now;
    if (left <= 0) {
      doom(*connection);
    } else {
      next = next == 0 ? left : std::min(next, left);
    }
  }
  set_clock(next);  // which also makes the descriptor unreadable
}

void ShmPort::watch(int fd, std::uint32_t events, const Connection& connection, bool is_socket) {
  epoll_event event{events, {.u64 = token(connection.generation, connection.slot, is_socket)}};
  // Fails only without memory; the worker then waits in vain and gives up.
  epoll_ctl(poll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void ShmPort::socket_event(Connection& connection, std::uint32_t events) {
  shm::Hello hello;
  const ssize_t got = recv(connection.socket.get(), &hello, sizeof hello, MSG_DONTWAIT | MSG_TRUNC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    if ((events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0) doom(connection);
    return;
  }
  // The end, or a second Hello, which nobody says.
  if (got <= 0 || connection.control != nullptr) return doom(connection);
  if (got != sizeof hello || hello.magic != shm::kMagic) {
    answer(connection, shm::Answer::kOtherVersion, nullptr);
    return doom(connection);
  }
  greet(connection, hello);
}

void ShmPort::greet(Connection& connection, const shm::Hello& hello) {
  const std::uint32_t records =
      std::bit_ceil(std::clamp(hello.records, shm::kMinRecords, shm::kMaxRecords));
  if (!shm::valid(hello.payload_bytes, records)) {
    answer(connection, shm::Answer::kBadRequest, nullptr);
    return doom(connection);
  }
  if (hello.ticket != 0 && !take_back(connection, hello)) {
    answer(connection, shm::Answer::kOtherAddress, nullptr);
    return doom(connection);
  }
  Fd memory;
  if (!share(connection, hello.payload_bytes, records, &memory)) {
    answer(connection, shm::Answer::kNoMemory, nullptr);
    return doom(connection);
  }
  const std::array<int, shm::kDescriptors> descriptors{memory.get(), connection.wake.get()};
  const std::uint64_t ticket = tickets_.issue(connection.peer, hello.ticket);
  answer(connection, shm::Answer::kWelcome, descriptors.data(), ticket);
  if (connection.doomed) return;
  tickets_.arrived(connection.peer);
  active_.push_back(&connection);
}

// Gives a connection the address that its worker has had before. False: it was somebody else's, or
// has been since.
bool ShmPort::take_back(Connection& connection, const shm::Hello& hello) {
  const Peer wanted{hello.ip, static_cast<std::uint16_t>(hello.udp_port)};
  const std::uint32_t offset = wanted.ip - options_.network - 2;
  if (hello.udp_port > 65535 || offset >= options_.addresses - 3 ||
      !tickets_.good(wanted, hello.ticket)) {
    return false;
  }
  // A connection that still has it came with this very ticket: its worker no longer wants it.
  if (Connection* before = connection_to(wanted); before != nullptr) {
    doom(*before);
    before->peer = {};
    returned_.erase(key_of(wanted));
  }
  if (const std::uint32_t slot = offset - base_; slot < slots_.size()) {
    change_places(connection, slot);
  } else {
    returned_[key_of(wanted)] = &connection;
  }
  connection.peer = wanted;
  return true;
}

// Puts a connection that has just said Hello into the slot of another address. Who is there has not
// said Hello yet, or is doomed: a ticket is good only as long as nobody else has the address.
void ShmPort::change_places(Connection& connection, std::uint32_t slot) {
  const std::uint32_t old = connection.slot;
  std::swap(slots_[old], slots_[slot]);
  for (const std::uint32_t changed : {old, slot}) {
    Connection* moved = slots_[changed].get();
    if (moved == nullptr) continue;
    moved->slot = changed;
    if (moved->control == nullptr) moved->peer.ip = ip_of(changed);
    epoll_event event{EPOLLIN | EPOLLRDHUP, {.u64 = token(moved->generation, changed, true)}};
    epoll_ctl(poll_.get(), EPOLL_CTL_MOD, moved->socket.get(), &event);
  }
}

// Makes the memory and the eventfd that wakes the loop. False: no memory or no descriptor is left.
bool ShmPort::share(Connection& connection, std::uint32_t payload_bytes, std::uint32_t records,
                    Fd* memory) {
  const std::size_t bytes = shm::memory_bytes(payload_bytes, records);
  *memory = Fd(memfd_create("wiresum-shm", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  connection.wake = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (memory->get() < 0 || connection.wake.get() < 0 ||
      ftruncate(memory->get(), static_cast<off_t>(bytes)) != 0 ||
      // A worker that could shrink it would end the switch.
      fcntl(memory->get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return false;
  }
  void* at =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory->get(), 0);
  if (at == MAP_FAILED) return false;
  connection.memory.at = static_cast<std::uint8_t*>(at);
  connection.memory.bytes = bytes;
  connection.control = new (at) shm::Control{};
  std::uint8_t* records_at = connection.memory.at + sizeof(shm::Control);
  connection.in = shm::Reader(&connection.control->to_switch, records_at, payload_bytes, records);
  connection.out =
      shm::Writer(&connection.control->to_worker,
                  records_at + shm::ring_bytes(payload_bytes, records), payload_bytes, records);
  // Every write is an edge, whatever the count: it is never read.
  watch(connection.wake.get(), EPOLLIN | EPOLLET, connection, false);
  return true;
}

void ShmPort::answer(Connection& connection, shm::Answer answer, const int* descriptors,
                     std::uint64_t ticket) {
  shm::Welcome welcome{.answer = answer,
                       .payload_bytes = connection.out.payload_bytes(),
                       .records = connection.out.records(),
                       .ip = connection.peer.ip,
                       .udp_port = connection.peer.port,
                       .switch_ip = options_.switch_ip,
                       .ticket = ticket};
  iovec vector{&welcome, sizeof welcome};
  alignas(cmsghdr) std::array<std::uint8_t, CMSG_SPACE(shm::kDescriptors * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (descriptors != nullptr) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(shm::kDescriptors * sizeof(int));
    std::memcpy(CMSG_DATA(rights), descriptors, shm::kDescriptors * sizeof(int));
  }
  if (sendmsg(connection.socket.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) doom(connection);
}

void ShmPort::doom(Connection& connection) {
  connection.doomed = true;
  connection.pending = 0;
  any_doomed_ = true;
}

void ShmPort::sweep() {
  if (!any_doomed_) return;
  any_doomed_ = false;
  std::erase_if(active_, [](const Connection* connection) { return connection->doomed; });
  for (auto& connection : slots_) {
    if (connection == nullptr || !connection->doomed) continue;
    // Unless its worker is back already.
    if (connection->control != nullptr && connection_to(connection->peer) == nullptr) {
      tickets_.ended(connection->peer);
    }
    // The worker may still hold the eventfd: closing this descriptor would leave it in the set.
    if (connection->wake.get() >= 0) {
      epoll_ctl(poll_.get(), EPOLL_CTL_DEL, connection->wake.get(), nullptr);
    }
    const auto returned = returned_.find(key_of(connection->peer));
    if (returned != returned_.end() && returned->second == connection.get()) {
      returned_.erase(returned);
    }
    connection.reset();
  }
}

}  // namespace wiresum::softswitch::ports
