// The udp port: one UDP socket; every datagram that arrives is a frame, every frame a datagram.
//
// Needs no privilege. A datagram from a peer gets the headers that it had on the wire, as far as a
// switch program cares: Ethernet addresses made from the IP addresses, IPv4, UDP to the service's
// port. Trains: the kernel hands over many datagrams of one peer as one (UDP_GRO) and takes many
// to one peer as one (UDP_SEGMENT); it is asked for both and done without where it refuses.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ports_headers.hpp"
#include "ports_port.hpp"

namespace wiresum::softswitch::ports {

class UdpPort final : public Port {
 public:
  // Binds to `host` (an IPv4 address) and `port` (0: any). Frames that come in are addressed to
  // `service_port`. Throws std::system_error.
  UdpPort(std::uint16_t number, const std::string& host, std::uint16_t port,
          std::uint16_t service_port, Loss in, Loss out);

  int fd() const override { return socket_.get(); }
  std::string address() const override;
  bool receive() override;
  void deliver(FrameSink& sink) override;

  bool uses_gro() const { return gro_; }
  bool uses_gso() const { return gso_; }

 protected:
  void transmit() override;

 private:
  static constexpr std::size_t kRxMessages = 16;
  static constexpr std::size_t kRxBytes = 65536;
  // UDP_MAX_SEGMENTS of the oldest kernels that know UDP_SEGMENT.
  static constexpr std::size_t kTrain = 64;
  static constexpr std::size_t kTrainBytes = 65000;
  static constexpr std::size_t kTxMessages = 64;
  static constexpr std::size_t kTxVectors = 1024;

  struct RxMessage {
    sockaddr_in from;
    iovec vector;
    alignas(cmsghdr) std::array<std::uint8_t, 128> control;
  };

  // A train being built: consecutive datagrams to one peer.
  struct Outgoing {
    sockaddr_in to;
    std::size_t bytes = 0;
    std::size_t segment = 0;  // the length of all but the last, which may be shorter
    alignas(cmsghdr) std::array<std::uint8_t, 64> control;
  };

  // Whom waiting frames go to, as a chain through next_.
  struct Chain {
    Peer to;
    std::uint32_t from = 0;
    std::uint16_t head = 0, tail = 0;
  };

  void split(const mmsghdr& message, std::uint8_t* data, FrameSink& sink);
  void chain(std::size_t index);
  void send_chains();
  void append(const Chain& chain, std::span<std::uint8_t> payload);
  void close_train();
  void send_messages();
  void send_singly(const msghdr& train);
  void count_failure(int error, std::size_t frames);
  void learn_local(std::uint32_t ip);

  Fd socket_;
  sockaddr_in bound_{};
  std::uint16_t service_port_;
  bool gro_ = false;
  bool gso_ = false;
  unsigned gso_refusals_ = 0;

  std::unique_ptr<std::uint8_t[]> rx_buffer_;
  std::array<RxMessage, kRxMessages> rx_;
  std::array<mmsghdr, kRxMessages> rx_headers_;
  std::size_t received_ = 0;
  std::uint32_t overflows_ = 0;

  // Bound to every address: the ones that peers have used, so that answers leave from them.
  std::array<std::uint32_t, 8> local_{};
  std::size_t locals_ = 0;

  std::vector<Chain> chains_;
  std::vector<std::uint16_t> next_;
  std::vector<Datagram> datagrams_;
  std::array<Outgoing, kTxMessages> outgoing_;
  std::array<mmsghdr, kTxMessages> tx_headers_;
  std::vector<iovec> vectors_;
  std::size_t messages_ = 0;
  std::size_t vectors_used_ = 0;
  std::size_t train_start_ = 0;
  bool train_open_ = false;
};

}  // namespace wiresum::softswitch::ports
