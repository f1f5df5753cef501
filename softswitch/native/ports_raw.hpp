// The raw port: a real interface, through a packet socket.
//
// Frames arrive as the stack left them: with checksums still to be computed, and many segments in
// one frame (GSO, GRO). The kernel describes that in a header of its own (PACKET_VNET_HDR), and
// the port makes what a cable would have carried:
//  - a checksum that is still open is computed;
//  - a train of UDP datagrams over IPv4 is split into frames;
//  - a TCP train stays one frame; it passes the program as such and leaves with the same
//    description if its length is unchanged, so that the kernel cuts it on the way out. A program
//    that changes the length of TCP segments needs offloads switched off (ethtool -K ... gro off);
//  - a VLAN tag that the kernel has taken off is put back.
// Other frames longer than the outgoing interface's MTU are refused by the kernel and counted.
#pragma once

#include <linux/if_packet.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "ports_headers.hpp"
#include "ports_port.hpp"

namespace wiresum::softswitch::ports {

class RawPort final : public Port {
 public:
  // Opens `interface`. Throws std::system_error: ENODEV, EPERM without CAP_NET_RAW, ...
  RawPort(std::uint16_t number, const std::string& interface, Loss in, Loss out);

  int fd() const override { return socket_.get(); }
  std::string address() const override { return interface_; }
  bool receive() override;
  void deliver(FrameSink& sink) override;

 protected:
  void transmit() override;

 private:
  static constexpr std::size_t kRxMessages = 32;
  // In front of a frame: room for the kernel's description and for the headers of a split train.
  static constexpr std::size_t kHeadroom = 128;
  static constexpr std::size_t kRxBytes = 65536 + 32;
  static constexpr std::size_t kTxMessages = 64;

  struct RxMessage {
    sockaddr_ll from;
    iovec vector;
    alignas(cmsghdr) std::array<std::uint8_t, 128> control;
  };

  void accept(const mmsghdr& message, std::uint8_t* data, FrameSink& sink);
  void split(std::span<std::uint8_t> frame, std::size_t network, const Offload& offload,
             FrameSink& sink);
  void pass(std::span<std::uint8_t> frame, const Offload& offload, FrameSink& sink);
  void send_messages(std::size_t count);

  std::string interface_;
  Fd socket_;
  bool described_ = false;  // every frame has an Offload in front
  std::uint32_t overflows_ = 0;

  std::unique_ptr<std::uint8_t[]> rx_buffer_;
  std::array<RxMessage, kRxMessages> rx_;
  std::array<mmsghdr, kRxMessages> rx_headers_;
  std::size_t received_ = 0;

  std::array<iovec, kTxMessages> vectors_;
  std::array<mmsghdr, kTxMessages> tx_headers_;
};

}  // namespace wiresum::softswitch::ports
