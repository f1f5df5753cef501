// By what a worker proves that an address was its own, also to a switch that has been restarted: a
// keyed hash of it, which only the switch can make. The key lies in a file beside the socket, or
// the workers of a switch that was killed could not come back.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "ports_headers.hpp"

namespace wiresum::softswitch::ports {

class Tickets {
 public:
  // With the key in `file`, which is made (mode 600) if there is none. A file that others can read
  // or have made is not used, nor touched: the key is then good for this process only.
  explicit Tickets(const std::string& file);

  std::uint64_t of(Peer peer) const;  // never 0

 private:
  std::array<std::uint64_t, 2> key_;
};

// Random bits of the kernel's.
std::uint64_t random_bits();

}  // namespace wiresum::softswitch::ports
