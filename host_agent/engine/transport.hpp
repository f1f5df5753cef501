// Datagrams to and from the switch over one UDP socket: batches, trains (UDP_SEGMENT, UDP_GRO),
// and what the kernel says about the path. Knows nothing of what is in a datagram.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "stats.hpp"

namespace wiresum {

struct TransportOptions {
  bool gso = true;
  bool gro = true;
};

class Transport {
 public:
  // Takes over `fd`, a bound IPv4 UDP socket. Every datagram sent is `datagram_bytes` long.
  // The socket's blocking mode is left as it is (it may be shared with the caller's own).
  Transport(int fd, const sockaddr_in& peer, std::size_t datagram_bytes,
            const TransportOptions& options, Stats& stats);
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  int fd() const { return fd_; }

  // Sends datagrams in order; returns how many were handed over (or given up as lost). Fewer than
  // asked for means that the socket is full: wants_write() until it is writable.
  std::size_t send(std::span<std::uint8_t* const> datagrams);
  bool wants_write() const { return wants_write_; }
  void writable() { wants_write_ = false; }

  // Receives one batch and calls handle(data, bytes) for each datagram that the peer sent.
  // Returns the number of datagrams taken from the socket; 0 if there was none.
  template <typename Handle>
  std::size_t receive(Handle&& handle) {
    const int messages = receive_batch();
    std::size_t taken = 0;
    for (int i = 0; i < messages; ++i) {
      const Batch batch = batch_at(i);
      for (std::size_t at = 0; at < batch.bytes; at += batch.segment) {
        ++taken;
        if (!batch.foreign) handle(batch.data + at, std::min(batch.segment, batch.bytes - at));
      }
      if (batch.bytes == 0) ++taken;
    }
    return taken;
  }

  // Reads the socket's error queue (ICMP messages), counting them.
  void drain_errors();
  int last_error() const { return last_error_; }  // errno of the last failure on the path, 0: none
  void path_works() { last_error_ = 0; }

 private:
  struct Batch {
    const std::uint8_t* data;
    std::size_t bytes;
    std::size_t segment;  // bytes of each datagram in it (the last may be shorter)
    bool foreign;
  };

  int receive_batch();
  Batch batch_at(int index);
  std::size_t prepare(std::span<std::uint8_t* const> datagrams, std::size_t per_message);
  void path_failed(int error);
  void count_sent(std::size_t datagrams);

  int fd_;
  sockaddr_in peer_;
  std::size_t datagram_bytes_;
  Stats& stats_;
  bool gso_;
  bool gro_ = false;
  bool wants_write_ = false;
  int last_error_ = 0;

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
