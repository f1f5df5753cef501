// The udp port: one UDP socket; every datagram that arrives is a frame, every frame a datagram.
//
// Needs no privilege. A datagram from a peer gets the headers that it had on the wire, as far as a
// switch program cares: Ethernet addresses made from the IP addresses, IPv4, UDP to the service's
// port. Trains: the kernel hands over many datagrams of one peer as one (UDP_GRO) and takes many
// to one peer as one (UDP_SEGMENT); it is asked for both and done without where it refuses.
#pragma once

#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "ports_batch.hpp"
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
  bool receive() override { return rx_.receive(fd(), stats_); }
  void deliver(FrameSink& sink) override;

 protected:
  void transmit(std::span<const Waiting> frames) override;

 private:
  static constexpr std::size_t kRxMessages = 16;
  static constexpr std::size_t kRxBytes = 65536;
  // UDP_MAX_SEGMENTS of the oldest kernels that know UDP_SEGMENT.
  static constexpr std::size_t kTrain = 64;
  static constexpr std::size_t kTrainBytes = 65000;

  // What belongs to a message being sent: a train of datagrams to one peer.
  struct Outgoing {
    sockaddr_in to;
    std::size_t bytes = 0;
    std::size_t segment = 0;  // the length of all but the last, which may be shorter
    std::size_t count = 0;
    alignas(cmsghdr) std::array<std::uint8_t, 64> control;
  };

  // Whom waiting frames go to, as a chain through next_.
  struct Chain {
    Peer to;
    std::uint32_t from = 0;
    std::uint16_t head = 0, tail = 0;
  };

  // A datagram that leaves: its payload in two parts.
  struct Payload {
    const std::uint8_t* first = nullptr;
    const std::uint8_t* second = nullptr;
    std::uint32_t first_bytes = 0;
    std::uint32_t second_bytes = 0;
    std::size_t bytes() const { return std::size_t{first_bytes} + second_bytes; }
  };

  void split(const msghdr& header, const sockaddr_in& peer, std::span<std::uint8_t> data,
             FrameSink& sink);
  bool take_apart(Waiting frame, Datagram* datagram, Payload* payload);
  Chain& chain_to(Peer to, std::uint32_t from);
  void append(const Chain& chain, const Payload& payload);
  void open_train(const Chain& chain, std::size_t segment);
  void close_train();
  void send_messages();
  void send_one_by_one(const msghdr& train, const Outgoing& about);
  std::uint32_t source_of(const Datagram& datagram) const;
  void learn_local(std::uint32_t ip);

  Fd socket_;
  sockaddr_in bound_{};
  std::uint16_t service_port_;
  bool gro_ = false;
  bool gso_ = false;
  unsigned gso_refusals_ = 0;

  RxBatch<sockaddr_in> rx_;
  HeaderTemplate headers_;

  // Bound to every address: the ones that peers have used, so that answers leave from them.
  std::array<std::uint32_t, 8> local_{};
  std::size_t locals_ = 0;

  std::vector<Chain> chains_;
  std::size_t chain_ = 0;  // the one used last
  std::vector<std::uint16_t> next_;
  std::vector<Payload> payloads_;
  TxBatch tx_;
  std::array<Outgoing, TxBatch::kMessages> outgoing_;
  bool train_open_ = false;
};

}  // namespace wiresum::softswitch::ports
