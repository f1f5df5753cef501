#include "ports_shm_ticket.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cstdio>

#include "ports_port.hpp"

namespace wiresum::softswitch::ports {
namespace {

using Key = std::array<std::uint64_t, 2>;

bool read_key(const std::string& file, Key* key) {
  const Fd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat about{};
  return fd.get() >= 0 && fstat(fd.get(), &about) == 0 && S_ISREG(about.st_mode) &&
         about.st_uid == geteuid() && (about.st_mode & 077) == 0 &&
         about.st_size == static_cast<off_t>(sizeof *key) &&
         read(fd.get(), key->data(), sizeof *key) == static_cast<ssize_t>(sizeof *key);
}

// Whole or not at all, and never in place of anything.
void write_key(const std::string& file, const Key& key) {
  const std::string part = file + "." + std::to_string(getpid());
  const Fd fd(open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) return;
  if (write(fd.get(), key.data(), sizeof key) == static_cast<ssize_t>(sizeof key)) {
    [[maybe_unused]] const int done = link(part.c_str(), file.c_str());
  }
  unlink(part.c_str());
}

// SipHash-2-4 (Aumasson, Bernstein 2012) of two words.
class SipHash {
 public:
  explicit SipHash(const Key& key)
      : a_(key[0] ^ 0x736f6d6570736575),
        b_(key[1] ^ 0x646f72616e646f6d),
        c_(key[0] ^ 0x6c7967656e657261),
        d_(key[1] ^ 0x7465646279746573) {}

  void add(std::uint64_t word) {
    d_ ^= word;
    round();
    round();
    a_ ^= word;
  }
  std::uint64_t finish() {
    c_ ^= 0xFF;
    for (int i = 0; i < 4; ++i) round();
    return a_ ^ b_ ^ c_ ^ d_;
  }

 private:
  void round() {
    a_ += b_;
    b_ = std::rotl(b_, 13) ^ a_;
    a_ = std::rotl(a_, 32);
    c_ += d_;
    d_ = std::rotl(d_, 16) ^ c_;
    a_ += d_;
    d_ = std::rotl(d_, 21) ^ a_;
    c_ += b_;
    b_ = std::rotl(b_, 17) ^ c_;
    c_ = std::rotl(c_, 32);
  }

  std::uint64_t a_, b_, c_, d_;
};

}  // namespace

std::uint64_t random_bits() {
  std::uint64_t bits = 0;
  // Never short for so few bytes.
  if (getrandom(&bits, sizeof bits, 0) != sizeof bits) throw_errno("getrandom");
  return bits;
}

Tickets::Tickets(const std::string& file) {
  if (read_key(file, &key_)) return;
  key_ = {random_bits(), random_bits()};
  write_key(file, key_);
}

std::uint64_t Tickets::of(Peer peer) const {
  SipHash hash(key_);
  hash.add(std::uint64_t{peer.ip} << 16 | peer.port);
  hash.add(std::uint64_t{8} << 56);  // the bytes before, as SipHash ends every message
  const std::uint64_t ticket = hash.finish();
  return ticket != 0 ? ticket : 1;
}

}  // namespace wiresum::softswitch::ports
