// Datagrams to and from the switch over one UDP socket: batches, trains (UDP_SEGMENT, UDP_GRO),
// and the kernel's errors about the path.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "transports/transport.hpp"

namespace wiresum {

struct UdpOptions {
  bool gso = true;
  bool gro = true;
};

class UdpTransport final : public Transport {
 public:
  // Takes over `fd`, a bound IPv4 UDP socket.
  // The socket's blocking mode is left as it is (it may be shared with the caller's own).
  UdpTransport(int fd, const sockaddr_in& peer, std::size_t datagram_bytes,
               const UdpOptions& options, Stats& stats);
  ~UdpTransport() override;

  std::size_t send(std::span<const Datagram> datagrams) override;
  bool wants_write() const override { return wants_write_; }
  bool about_to_sleep(pollfd& source) override;
  void awake(const pollfd& source) override;

 protected:
  int receive_batch() override;
  Batch batch_at(int index) override;

 private:
  std::size_t prepare(std::span<const Datagram> datagrams);
  void path_failed(int error);
  // Reads the socket's error queue (ICMP messages), counting them.
  void drain_errors();

  int fd_;
  sockaddr_in peer_;
  bool gso_;
  bool gro_ = false;
  bool wants_write_ = false;

  // Everything below is allocated once.
  struct Control {
    alignas(cmsghdr) unsigned char bytes[64];
  };
  std::size_t receive_bytes_;  // size of one receive buffer
  std::unique_ptr<std::uint8_t[]> receive_buffer_;
  std::vector<mmsghdr> received_;
  std::vector<iovec> receive_iov_;
  std::vector<Control> receive_control_;
  std::vector<sockaddr_in> sources_;

  std::vector<mmsghdr> sending_;
  std::vector<std::size_t> datagrams_in_;  // datagrams in each message of sending_
  std::vector<iovec> send_iov_;
  std::vector<Control> send_control_;
};

}  // namespace wiresum
