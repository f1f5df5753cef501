#include "transports/open.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "errors.hpp"
#include "lines.hpp"
#include "transports/shm.hpp"
#include "transports/udp.hpp"

namespace wiresum {
namespace {

int duplicate(int fd) {
  const int made = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (made < 0) refuse(lines::kNoDuplicate.of(strerror(errno)));
  return made;
}

void check_udp(int fd) {
  sockaddr_storage own{};
  socklen_t length = sizeof(own);
  int type = 0;
  socklen_t type_length = sizeof(type);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length) != 0 ||
      getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_length) != 0 || own.ss_family != AF_INET ||
      type != SOCK_DGRAM || reinterpret_cast<const sockaddr_in&>(own).sin_port == 0) {
    refuse(lines::kNoUdpSocket.of(fd));
  }
}

struct Opener {
  const sockaddr_in& peer;
  std::size_t datagram_bytes;
  Stats& stats;

  std::unique_ptr<Transport> operator()(const UdpSocket& socket) const {
    check_udp(socket.fd);
    return std::make_unique<UdpTransport>(duplicate(socket.fd), peer, datagram_bytes,
                                          UdpOptions{socket.gso, socket.gro}, stats);
  }
  std::unique_ptr<Transport> operator()(const ShmSocket& socket) const {
    return std::make_unique<ShmTransport>(duplicate(socket.fd), socket.path, datagram_bytes, stats);
  }
};

}  // namespace

std::unique_ptr<Transport> open_transport(const SwitchSocket& socket, const sockaddr_in& peer,
                                          std::size_t datagram_bytes, Stats& stats) {
  return std::visit(Opener{peer, datagram_bytes, stats}, socket);
}

}  // namespace wiresum
