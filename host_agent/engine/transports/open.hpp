// The kinds of transport, and how each one is opened. A new kind is a new struct here.
#pragma once

#include <netinet/in.h>

#include <cstddef>
#include <memory>
#include <string>
#include <variant>

#include "transports/transport.hpp"

namespace wiresum {

// A bound UDP socket (IPv4).
struct UdpSocket {
  int fd = -1;
  bool gso = true;  // trains of datagrams to the kernel, where it takes them
  bool gro = true;  // and from it
};

// A socket that shm_connect() has made, and that nobody has used since.
struct ShmSocket {
  int fd = -1;
  std::string path{};  // where it was connected to, to connect again; empty: never
};

using SwitchSocket = std::variant<UdpSocket, ShmSocket>;

// Opens the transport of the socket's kind, over a duplicate of its descriptor, for datagrams of
// at most `datagram_bytes` to and from the switch at `peer`. Throws EngineError.
std::unique_ptr<Transport> open_transport(const SwitchSocket& socket, const sockaddr_in& peer,
                                          std::size_t datagram_bytes, Stats& stats);

}  // namespace wiresum
