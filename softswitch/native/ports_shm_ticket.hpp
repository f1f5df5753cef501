// The ticket by which a worker proves that an address is its own: a random number that came with
// the address and that no other process has seen. Each connection gets a new one, and only the last
// one of an address is good: a ticket of an earlier connection is refused. The numbers lie in a
// file beside the socket as well, or the workers of a switch that was killed could not come back.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "ports_headers.hpp"
#include "ports_port.hpp"

namespace wiresum::softswitch::ports {

class Tickets {
 public:
  // Addresses whose tickets are kept, those of connections that have ended included. More than any
  // port has connections: only the ticket of a free address is ever forgotten.
  static constexpr std::size_t kKept = 512;

  // With what lies in `file`, which is made (mode 600) if there is none. A file that others can
  // read or have made is not used, nor touched: the tickets are then good for this process only.
  explicit Tickets(const std::string& file);

  // A new ticket, never 0, for a connection that gets `peer`. It is the only one that is good for
  // that IP address from now on, but that a later process takes `before` (0: none) as well until
  // arrived() is called: this process may end before the worker has the new one.
  std::uint64_t issue(Peer peer, std::uint64_t before);
  void arrived(Peer peer);

  // Whether `ticket` is the last one of `peer`.
  bool good(Peer peer, std::uint64_t ticket) const;
  // The connection has ended: the ticket stays good until its place is needed.
  void ended(Peer peer);
  // Whether a worker of a process before may still come back to this IP address.
  bool expected(std::uint32_t ip) const;

 private:
  // As it lies in the file.
  struct Record {
    std::uint32_t ip = 0;  // 0: nobody's
    std::uint16_t port = 0;
    std::uint16_t unused = 0;
    std::uint64_t ticket = 0;
    std::uint64_t before = 0;
    std::uint64_t number = 0;  // counts up with each ticket: the oldest is forgotten first
  };
  static_assert(sizeof(Record) == 32);
  enum class Holder : std::uint8_t { kNobody, kHere, kExpected };

  void open_file(const std::string& file);
  const Record* find(Peer peer) const;
  std::size_t place(std::uint32_t ip);
  void keep(std::size_t index);

  std::vector<Record> records_{kKept};
  std::vector<Holder> holders_{kKept, Holder::kNobody};
  std::unordered_map<std::uint32_t, std::size_t> by_ip_;
  std::uint64_t number_ = 0;
  std::string file_;
  Fd fd_;  // of the file; none: good for this process only
};

// Random bits of the kernel's.
std::uint64_t random_bits();

}  // namespace wiresum::softswitch::ports
