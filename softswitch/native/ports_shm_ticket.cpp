#include "ports_shm_ticket.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "ports_port.hpp"

namespace wiresum::softswitch::ports {
namespace {

constexpr std::array<char, 16> kKind{'w', 'i', 'r', 'e', 's', 'u', 'm', ' ',
                                     't', 'i', 'c', 'k', 'e', 't', 's', '1'};
// What versions before kept there: a key, which fits no ticket of this one.
constexpr off_t kKeyBytes = 16;

// The file, if it is ours alone.
Fd open_own(const std::string& file, off_t* bytes) {
  Fd fd(open(file.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat about{};
  if (fd.get() < 0 || fstat(fd.get(), &about) != 0 || !S_ISREG(about.st_mode) ||
      about.st_uid != geteuid() || (about.st_mode & 077) != 0) {
    return Fd();
  }
  *bytes = about.st_size;
  return fd;
}

bool write_all(int fd, const void* data, std::size_t bytes, off_t at) {
  return pwrite(fd, data, bytes, at) == static_cast<ssize_t>(bytes);
}

}  // namespace

std::uint64_t random_bits() {
  std::uint64_t bits = 0;
  // Never short for so few bytes.
  if (getrandom(&bits, sizeof bits, 0) != sizeof bits) throw_errno("getrandom");
  return bits;
}

Tickets::Tickets(const std::string& file) {
  open_file(file);
  for (std::size_t i = 0; i < kKept; ++i) {
    const Record& record = records_[i];
    if (record.ip == 0) continue;
    holders_[i] = Holder::kExpected;
    by_ip_[record.ip] = i;
    number_ = std::max(number_, record.number);
  }
}

// Reads what is there. Makes a file where there is none, whole or not at all, and never in place of
// anything but a key of a version before.
void Tickets::open_file(const std::string& file) {
  const std::size_t bytes = kKept * sizeof(Record);
  off_t there = 0;
  Fd fd = open_own(file, &there);
  const bool replace = fd.get() >= 0 && there == kKeyBytes;
  if (fd.get() >= 0 && !replace) {
    std::array<char, kKind.size()> kind;
    if (there == static_cast<off_t>(kKind.size() + bytes) &&
        pread(fd.get(), kind.data(), kind.size(), 0) == static_cast<ssize_t>(kind.size()) &&
        kind == kKind &&
        pread(fd.get(), records_.data(), bytes, kKind.size()) == static_cast<ssize_t>(bytes)) {
      fd_ = std::move(fd);
      file_ = file;
    } else {
      records_.assign(kKept, Record{});
    }
    return;
  }
  const std::string part = file + "." + std::to_string(getpid());
  Fd made(open(part.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (made.get() < 0) return;
  if (write_all(made.get(), kKind.data(), kKind.size(), 0) &&
      write_all(made.get(), records_.data(), bytes, kKind.size()) &&
      (replace ? rename(part.c_str(), file.c_str()) : link(part.c_str(), file.c_str())) == 0) {
    fd_ = std::move(made);
    file_ = file;
  }
  unlink(part.c_str());
}

const Tickets::Record* Tickets::find(Peer peer) const {
  const auto found = by_ip_.find(peer.ip);
  if (found == by_ip_.end() || records_[found->second].port != peer.port) return nullptr;
  return &records_[found->second];
}

// Where this address's ticket is kept: where its last one was, else in the place of the oldest
// ticket whose address is free.
std::size_t Tickets::place(std::uint32_t ip) {
  const auto found = by_ip_.find(ip);
  if (found != by_ip_.end()) return found->second;
  std::size_t oldest = kKept;
  for (std::size_t i = 0; i < kKept; ++i) {
    if (holders_[i] == Holder::kHere) continue;
    if (oldest == kKept || records_[i].number < records_[oldest].number) oldest = i;
  }
  by_ip_.erase(records_[oldest].ip);
  by_ip_[ip] = oldest;
  return oldest;
}

// Into the page cache: only a process on this host reads it, and no worker outlives the host.
void Tickets::keep(std::size_t index) {
  const auto at = static_cast<off_t>(kKind.size() + index * sizeof(Record));
  if (fd_.get() < 0 || write_all(fd_.get(), &records_[index], sizeof(Record), at)) return;
  // The file is wrong now, and would accept an old ticket.
  struct stat ours{}, there{};
  if (fstat(fd_.get(), &ours) == 0 && lstat(file_.c_str(), &there) == 0 &&
      ours.st_dev == there.st_dev && ours.st_ino == there.st_ino) {
    unlink(file_.c_str());
  }
  fd_ = Fd();
}

std::uint64_t Tickets::issue(Peer peer, std::uint64_t before) {
  const std::size_t index = place(peer.ip);
  Record& record = records_[index];
  std::uint64_t ticket = 0;
  while (ticket == 0 || ticket == record.ticket) ticket = random_bits();
  record = {
      .ip = peer.ip, .port = peer.port, .ticket = ticket, .before = before, .number = ++number_};
  holders_[index] = Holder::kHere;
  keep(index);
  return ticket;
}

void Tickets::arrived(Peer peer) {
  const auto found = by_ip_.find(peer.ip);
  if (found == by_ip_.end() || records_[found->second].before == 0) return;
  records_[found->second].before = 0;
  keep(found->second);
}

bool Tickets::good(Peer peer, std::uint64_t ticket) const {
  const Record* record = find(peer);
  if (record == nullptr || ticket == 0) return false;
  return ticket == record->ticket || ticket == record->before;
}

void Tickets::ended(Peer peer) {
  if (find(peer) != nullptr) holders_[by_ip_.at(peer.ip)] = Holder::kNobody;
}

bool Tickets::expected(std::uint32_t ip) const {
  const auto found = by_ip_.find(ip);
  return found != by_ip_.end() && holders_[found->second] == Holder::kExpected;
}

}  // namespace wiresum::softswitch::ports
